//! Images: from a registry, an OCI layout or a directory to a root filesystem that can be mounted.
//!
//! ```no_run
//! # async fn example() -> Result<(), husk_engine::image::ImageError> {
//! use husk_engine::image::{Pull, Quiet, Source, Store};
//! let store = Store::open("/var/lib/husk/images")?;
//! let image = store.get(&Source::parse("busybox")?, Pull::IfNotPresent, &Quiet).await?;
//! let rootfs = store.rootfs(&image, "/run/husk-run/demo/app".as_ref()).await?;
//! println!("{:?} as {:?}", rootfs.mounts, image.config.cmd);
//! # Ok(()) }
//! ```
use std::collections::BTreeMap;
use std::path::PathBuf;

mod archive;
mod attributes;
mod blobs;
mod credentials;
mod decompress;
mod error;
mod layout;
mod manifest;
mod place;
mod registry;
mod rootfs;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod unpack;
mod user;

pub use error::ImageError;
pub use source::Source;
pub use store::Store;
pub use unpack::unpack;

/// An image that is in the store, ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The source in full, as [`Source`] shows it.
    pub reference: String,
    /// The manifest's digest, `sha256:…`; empty for a directory.
    pub digest: String,
    /// What the image says about the process to run.
    pub config: Config,
    /// Its files.
    pub content: Content,
}

/// The files of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Layers, lowest first.
    Layers(Vec<Layer>),
    /// A directory, `rootfs:DIRECTORY`.
    Folder(PathBuf),
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed tar, `sha256:…`.
    pub diff_id: String,
    /// The digest that stands for it and every layer below, `sha256:…`: what it is unpacked to
    /// depends on them (OCI image specification, `config.md`, ChainID).
    pub chain_id: String,
    /// The layer as it was downloaded, verified.
    pub blob: PathBuf,
}

/// What an image says about the process to run, see the OCI image specification, `config.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The command's beginning; Kubernetes' `command` replaces it.
    pub entrypoint: Vec<String>,
    /// The command's end; Kubernetes' `args` replace it.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`, or empty for root; see [`Rootfs::user`].
    pub user: String,
    /// The working directory, empty for `/`.
    pub workdir: String,
    /// Paths the image wants volumes at.
    pub volumes: Vec<String>,
    /// The signal that asks the process to end, such as `SIGQUIT`; SIGTERM if none.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// When to ask the registry; the words of Kubernetes' `imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Every time; what is in the store already is not downloaded again.
    Always,
    /// Only when the store has no image of that reference.
    #[default]
    IfNotPresent,
    /// Never: an image that is not in the store is an error.
    Never,
}

/// Told how an image arrives.
pub trait Progress: Send + Sync {
    /// Something moved on; called often, so do little.
    fn step(&self, step: &Step<'_>);
}

/// How far an image is. `layer` is a digest, `sha256:…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The registry is being asked what the reference means.
    Resolving {
        /// The reference in full.
        reference: &'a str,
    },
    /// Bytes of a layer have arrived.
    Downloading {
        /// The layer's digest as downloaded.
        layer: &'a str,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A layer is being unpacked.
    Unpacking {
        /// The layer's digest as downloaded.
        layer: &'a str,
    },
    /// The image is in the store.
    Ready {
        /// The manifest's digest.
        digest: &'a str,
    },
}

/// A [`Progress`] that says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, _step: &Step<'_>) {}
}

/// A root filesystem to be: what a shim must mount, and who is known in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// For the `rootfs` of a CreateTask request, in order; each has an empty target.
    pub mounts: Vec<RootfsMount>,
    /// What `/etc/passwd` holds in it; empty if there is none.
    pub passwd: String,
    /// What `/etc/group` holds in it; empty if there is none.
    pub group: String,
}

/// One mount of a root filesystem, as a CreateTask request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsMount {
    /// The filesystem type: `overlay` or `bind`.
    pub kind: String,
    /// What to mount.
    pub source: String,
    /// mount(8) options.
    pub options: Vec<String>,
}

/// Whom a container runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Further groups that `/etc/group` lists for the user.
    pub additional_gids: Vec<u32>,
    /// The home directory `/etc/passwd` lists, `/` if none.
    pub home: String,
}
