//! The store: blobs and unpacked layers by digest, references to manifests.
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_client::Reference;
use oci_spec::image::{ImageConfiguration, ImageManifest};

use super::blobs::{self, Blobs};
use super::error::Doing as _;
use super::registry::Registry;
use super::unpack::{Marks, unpack_blob};
use super::{Config, Content, Image, ImageError, Layer, Progress, Pull, Rootfs, Source, Step};
use super::{credentials, layout, rootfs};

/// Images on disk, shared by every process that opens the same directory.
///
/// Whatever has a final name is complete: files and layers are written in `tmp` and renamed, so a
/// process killed at any moment leaves nothing wrong, and two that bring the same thing agree.
/// Locks only save them from doing the work twice.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    pub(super) blobs: Blobs,
    /// Whether overlayfs can be used with the store; if not, why.
    pub(super) overlay: Arc<Result<(), String>>,
}

impl Store {
    /// Opens a store, making the directory if there is none.
    ///
    /// It is closed to other users: layers hold set-user-id programs.
    ///
    /// # Errors
    /// [`ImageError::Io`]: the directory cannot be made or written.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir: PathBuf = dir.into();
        let doing = || format!("opening the image store {}", dir.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .doing(doing)?;
        // Overlay options and links need a name that holds from any working directory.
        let dir = dir.canonicalize().doing(doing)?;
        let blobs = Blobs {
            dir: dir.join("blobs/sha256"),
            tmp: dir.join("tmp"),
        };
        for path in [
            &blobs.dir,
            &blobs.tmp,
            &dir.join("layers"),
            &dir.join("l"),
            &dir.join("locks"),
        ] {
            fs::create_dir_all(path).doing(|| format!("making {}", path.display()))?;
        }
        let lock = open_lock(&dir.join("lock"))?;
        remove_leftovers(&dir, &lock)?;
        lock.lock_shared()
            .doing(|| format!("locking {}/lock", dir.display()))?;
        let overlay = rootfs::probe(&blobs.tmp);
        if let Err(reason) = &overlay {
            log::info!(
                "{}: no overlayfs here, root filesystems are copied: {reason}",
                dir.display()
            );
        }
        Ok(Self {
            dir,
            blobs,
            overlay: Arc::new(overlay),
        })
    }

    /// Brings an image into the store and says what it is. A directory stays where it is.
    ///
    /// # Errors
    /// See [`ImageError`]; what was complete before stays.
    pub async fn get(
        &self,
        source: &Source,
        pull: Pull,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        if let Source::Folder(path) = source {
            return folder(source, path);
        }
        let reference = source.to_string();
        let _locks = self.lock(&reference).await?;
        let digest = match source {
            Source::Registry(wanted) => self.pull(wanted, pull, progress).await?,
            Source::Layout { .. } | Source::Archive { .. } => {
                let (blobs, source) = (self.blobs.clone(), source.clone());
                blocking(move || layout::import(&blobs, &source)).await?
            }
            Source::Folder(_) => String::new(),
        };
        let image = self
            .assemble(&reference, &digest)?
            .ok_or_else(|| ImageError::Broken {
                image: reference.clone(),
                part: format!("manifest {digest}"),
                reason: format!(
                    "a part of it has vanished from {}; try again",
                    self.dir.display()
                ),
            })?;
        self.unpack(&image, progress).await?;
        progress.step(&Step::Ready {
            digest: &image.digest,
        });
        Ok(image)
    }

    /// What the store in `dir` says an image is, with nothing made, fetched or unpacked. None for
    /// an image that the store does not have, and for a layout or an archive: those are imported to
    /// be read.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn find(dir: &Path, source: &Source) -> Result<Option<Image>, ImageError> {
        let wanted = match source {
            Source::Folder(path) => return folder(source, path).map(Some),
            Source::Layout { .. } | Source::Archive { .. } => return Ok(None),
            Source::Registry(wanted) => wanted.to_string(),
        };
        let Ok(digest) = fs::read_to_string(dir.join("references").join(&wanted)) else {
            return Ok(None);
        };
        let store = Self {
            dir: dir.to_owned(),
            blobs: Blobs {
                dir: dir.join("blobs/sha256"),
                tmp: dir.join("tmp"),
            },
            overlay: Arc::new(Err("not looked for".to_owned())),
        };
        store.assemble(&wanted, &digest)
    }

    /// The root filesystem of one container: what the image has, and what the container will
    /// write, which goes to `dir` and nowhere else. Remove `dir` once it is unmounted.
    ///
    /// With overlayfs the image is not copied; without it (the reason is logged) it is.
    ///
    /// # Errors
    /// [`ImageError::Io`] when a copy fails, [`ImageError::Entry`] for a layer that cannot be
    /// unpacked.
    pub async fn rootfs(&self, image: &Image, dir: &Path) -> Result<Rootfs, ImageError> {
        let (store, image, dir) = (self.clone(), image.clone(), dir.to_owned());
        blocking(move || rootfs::prepare(&store, &image, &dir)).await
    }

    /// The directory of an unpacked layer.
    pub(super) fn layer(&self, layer: &Layer) -> PathBuf {
        self.dir
            .join("layers")
            .join(layer.chain_id.trim_start_matches("sha256:"))
    }

    /// A short name for an unpacked layer, as the kernel takes one page of mount options.
    pub(super) fn short(&self, layer: &Layer) -> io::Result<PathBuf> {
        let hex = layer.chain_id.trim_start_matches("sha256:");
        let target = Path::new("../layers").join(hex);
        for length in (6..=hex.len()).step_by(2) {
            let link = self.dir.join("l").join(hex.get(..length).unwrap_or(hex));
            match std::os::unix::fs::symlink(&target, &link) {
                Ok(()) => return Ok(link),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::read_link(&link)? == target {
                        return Ok(link);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "every short name of layer {hex} is taken"
        )))
    }

    /// The digest of a reference's manifest, asking the registry as the policy says.
    async fn pull(
        &self,
        wanted: &Reference,
        pull: Pull,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let reference = wanted.to_string();
        let name = self.dir.join("references").join(&reference);
        if pull != Pull::Always
            && let Ok(digest) = fs::read_to_string(&name)
            && self.assemble(&reference, &digest)?.is_some()
        {
            return Ok(digest);
        }
        if pull == Pull::Never {
            return Err(ImageError::NotPresent {
                image: reference,
                store: self.dir.clone(),
            });
        }
        progress.step(&Step::Resolving {
            reference: &reference,
        });
        let auth = credentials::of(wanted.resolve_registry());
        let digest = Registry::of(wanted, auth)?
            .pull(&self.blobs, progress)
            .await?;
        blobs::write_atomically(&self.blobs.tmp, &name, digest.as_bytes())?;
        Ok(digest)
    }

    /// The image of a manifest; `None` when a part is not in the store.
    pub(super) fn assemble(
        &self,
        reference: &str,
        digest: &str,
    ) -> Result<Option<Image>, ImageError> {
        let broken = |part: String, reason: String| ImageError::Broken {
            image: reference.to_owned(),
            part,
            reason,
        };
        let Some(bytes) = self.blobs.document(reference, digest)? else {
            return Ok(None);
        };
        let manifest = ImageManifest::from_reader(&*bytes)
            .map_err(|error| broken(format!("manifest {digest}"), error.to_string()))?;
        let of_config = manifest.config().digest().to_string();
        let Some(bytes) = self.blobs.document(reference, &of_config)? else {
            return Ok(None);
        };
        let config = ImageConfiguration::from_reader(&*bytes)
            .map_err(|error| broken(format!("configuration {of_config}"), error.to_string()))?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err(broken(
                format!("configuration {of_config}"),
                format!(
                    "{} layers, but the manifest has {}",
                    diff_ids.len(),
                    manifest.layers().len()
                ),
            ));
        }
        let mut layers: Vec<Layer> = Vec::new();
        for (diff_id, descriptor) in diff_ids.iter().zip(manifest.layers()) {
            if blobs::hex(diff_id).is_none() {
                return Err(broken(
                    format!("layer `{diff_id}`"),
                    "only sha256 is supported".into(),
                ));
            }
            let blob = self.blobs.path(reference, descriptor.digest().as_ref())?;
            if !blob.exists() {
                return Ok(None);
            }
            let chain_id = match layers.last() {
                None => diff_id.clone(),
                Some(below) => blobs::digest(format!("{} {diff_id}", below.chain_id).as_bytes()),
            };
            layers.push(Layer {
                diff_id: diff_id.clone(),
                chain_id,
                blob,
            });
        }
        Ok(Some(Image {
            reference: reference.to_owned(),
            digest: digest.to_owned(),
            config: process(&config),
            content: Content::Layers(layers),
        }))
    }

    /// Unpacks the layers that are not yet.
    async fn unpack(&self, image: &Image, progress: &dyn Progress) -> Result<(), ImageError> {
        let Content::Layers(layers) = &image.content else {
            return Ok(());
        };
        if self.overlay.is_err() {
            // Without overlayfs each container gets a copy, made from the blobs.
            return Ok(());
        }
        let mut lower: Vec<PathBuf> = Vec::new();
        for layer in layers {
            let to = self.layer(layer);
            lower.insert(0, to.clone());
            if to.exists() {
                continue;
            }
            progress.step(&Step::Unpacking {
                layer: &layer.diff_id,
            });
            let (tmp, layer) = (self.blobs.tmp.clone(), layer.clone());
            let below = lower.get(1..).unwrap_or_default().to_owned();
            blocking(move || unpack_layer(&tmp, &layer, &below, &to)).await?;
        }
        Ok(())
    }

    /// One process at a time brings an image; and while any does, nobody removes what is in `tmp`.
    async fn lock(&self, reference: &str) -> Result<[File; 2], ImageError> {
        let digest = blobs::digest(reference.as_bytes());
        let own = self
            .dir
            .join("locks")
            .join(digest.trim_start_matches("sha256:"));
        let all = self.dir.join("lock");
        blocking(move || {
            let all_file = open_lock(&all)?;
            all_file
                .lock_shared()
                .doing(|| format!("locking {}", all.display()))?;
            let own_file = open_lock(&own)?;
            own_file
                .lock()
                .doing(|| format!("locking {}", own.display()))?;
            Ok([all_file, own_file])
        })
        .await
    }
}

fn open_lock(path: &Path) -> Result<File, ImageError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    file.doing(|| format!("opening {}", path.display()))
}

/// Removes what killed processes left in `tmp`, unless another process may be writing there.
fn remove_leftovers(dir: &Path, lock: &File) -> Result<(), ImageError> {
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => {
            return Err(error).doing(|| format!("locking {}/lock", dir.display()));
        }
    }
    let tmp = dir.join("tmp");
    let doing = || format!("clearing {}", tmp.display());
    for entry in fs::read_dir(&tmp).doing(doing)? {
        let entry = entry.doing(doing)?;
        rootfs::unmount_probe(&entry.path());
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        removed.doing(|| format!("removing {}", entry.path().display()))?;
    }
    Ok(())
}

/// A directory as an image.
fn folder(source: &Source, path: &Path) -> Result<Image, ImageError> {
    let path = path
        .canonicalize()
        .doing(|| format!("image `{source}`: opening {}", path.display()))?;
    if !path.is_dir() {
        return Err(ImageError::Source {
            given: source.to_string(),
            reason: "not a directory; an image in a tar file is oci-archive:FILE".into(),
        });
    }
    Ok(Image {
        reference: source.to_string(),
        digest: String::new(),
        config: Config::default(),
        content: Content::Folder(path),
    })
}

fn unpack_layer(tmp: &Path, layer: &Layer, lower: &[PathBuf], to: &Path) -> Result<(), ImageError> {
    let fresh = tempfile::Builder::new()
        .tempdir_in(tmp)
        .doing(|| format!("making a directory in {}", tmp.display()))?;
    let root = fresh.path().join("root");
    rootfs::make_root(&root).doing(|| format!("making {}", root.display()))?;
    unpack_blob(layer, &root, lower, Marks::Keep)?;
    match fs::rename(&root, to) {
        // Another process was as quick, and what it has is the same.
        Err(_) if to.is_dir() => Ok(()),
        renamed => renamed.doing(|| format!("naming {}", to.display())),
    }
}

/// What an image's configuration says about the process to run.
fn process(config: &ImageConfiguration) -> Config {
    let Some(config) = config.config() else {
        return Config::default();
    };
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut volumes = list(config.volumes());
    volumes.sort_unstable();
    let labels: BTreeMap<_, _> = config
        .labels()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    Config {
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        env: list(config.env()),
        user: config.user().clone().unwrap_or_default(),
        workdir: config.working_dir().clone().unwrap_or_default(),
        volumes,
        stop_signal: config
            .stop_signal()
            .clone()
            .filter(|signal| !signal.is_empty()),
        labels,
    }
}

/// Runs what blocks where it does not hold up the caller's other tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)).doing(|| "waiting for a thread".into()),
    }
}
