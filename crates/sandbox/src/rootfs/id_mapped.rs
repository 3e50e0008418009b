//! Root filesystems whose owners are seen by the ids of a user namespace: what containerd mounts for a
//! pod that has one, with the options `uidmap` and `gidmap`, and what is mounted for a container that
//! husk gives one.
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, chdir, setfsgid, setfsuid};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};

use super::options::{LOWER, Options, UPPER, WORK, shared_parent};
use super::unmount;
use crate::error::{Doing, JobError};
use crate::id_map::{self, IdMap};
use crate::mount_api::{self, Depth};

/// Which layers of an overlay are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layers {
    /// Those that are read: what is written belongs to the container's users on the node, too.
    Lower,
    /// What is written belongs to the node's users, whichever ids it was written by.
    All,
}

/// Exchanges what is mounted at `target` for a mount of the same that maps ids.
pub(super) fn remap(target: &File, map: &IdMap) -> Result<(), JobError> {
    let what = || "id-map the root filesystem";
    let mapped = copy(target, &map.namespace()?, "the root filesystem")?;
    // The descriptor stands for the mount that is there; below it lies where it was mounted.
    let path = fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd())).doing(what)?;
    unmount(&path).doing(what)?;
    let below = open(&path).doing(what)?;
    mount_api::attach(mapped, below.as_fd()).doing(what)
}

/// An overlay of id-mapped layers, attached nowhere yet: it cannot be mapped itself.
///
/// Before Linux 6.15 only what is mounted somewhere can be a layer. So that nobody sees it, and the
/// kernel takes it back should this process die, the layers are mounted in a mount namespace of this
/// process's own, below `rootfs`, and all that comes back from there is the overlay. Mapped layers ask
/// for Linux 5.19.
pub(super) fn overlay(
    rootfs: &Path,
    options: &Options,
    map: &IdMap,
    which: Layers,
) -> Result<OwnedFd, JobError> {
    let layers = Mapped::of(options, map, which)?;
    let what = || "enter a mount namespace, where layers are id-mapped";
    let nodes = File::open("/proc/self/ns/mnt").doing(what)?;
    unshare(CloneFlags::CLONE_NEWNS).doing(what)?;
    let made = layers.assemble(rootfs, options);
    setns(nodes, CloneFlags::CLONE_NEWNS).doing(|| "come back to the node's mount namespace")?;
    made.map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        match errno {
            Errno::EINVAL => JobError::failed(
                "cannot mount an overlay of id-mapped layers: the kernel refuses it; Linux 5.19 is the \
                 first that can",
            ),
            errno => JobError::from_errno(errno, "mount an overlay of id-mapped layers"),
        }
    })
}

/// Layers, attached nowhere yet.
struct Mapped<'a> {
    lower: Vec<OwnedFd>,
    upper: Option<Upper<'a>>,
}

/// What an overlay is written to.
struct Upper<'a> {
    /// A directory that holds the other two, which have to be in one mount.
    both: OwnedFd,
    /// Where they are in it.
    upper: &'a Path,
    work: &'a Path,
    /// Who owns what root of the user namespace makes: nobody of the node's may, in a mapped mount.
    root: (u32, u32),
}

impl<'a> Upper<'a> {
    fn of(
        upper: &'a Path,
        work: &'a Path,
        map: &IdMap,
        layer: impl FnOnce(&Path) -> Result<OwnedFd, JobError>,
    ) -> Result<Self, JobError> {
        let apart = || {
            let (upper, work) = (upper.display(), work.display());
            JobError::invalid(format!(
                "cannot id-map {upper} and {work}: no directory holds both"
            ))
        };
        let parent = shared_parent(&[upper, work]).ok_or_else(apart)?;
        let below = |path: &'a Path| path.strip_prefix(&parent).map_err(|_| apart());
        let nobody = || JobError::invalid("the container's user namespace has no root");
        Ok(Self {
            upper: below(upper)?,
            work: below(work)?,
            root: map.root().ok_or_else(nobody)?,
            both: layer(&parent)?,
        })
    }
}

impl<'a> Mapped<'a> {
    fn of(options: &'a Options, map: &IdMap, which: Layers) -> Result<Self, JobError> {
        let namespace = map.namespace()?;
        let layer = |path: &Path| {
            let name = format!("the layer {}", path.display());
            let layer = open(path).doing(|| format!("open {name}"))?;
            copy(&layer, &namespace, &name)
        };
        let lower = options.lower_directories().into_iter().map(layer);
        let lower = lower.collect::<Result<_, _>>()?;
        let upper = match (which, options.upper_directories()) {
            (Layers::All, Some([upper, work])) => Some(Upper::of(upper, work, map, layer)?),
            _ => None,
        };
        Ok(Self { lower, upper })
    }

    /// In a mount namespace that nobody else is in.
    fn assemble(&self, rootfs: &Path, options: &Options) -> io::Result<OwnedFd> {
        const TOP: &str = "top";
        const WHOLE: &str = "whole";
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), rootfs, Some("tmpfs"), MsFlags::empty(), none)?;
        chdir(rootfs)?;
        let names: Vec<String> = (0..self.lower.len()).map(|at| at.to_string()).collect();
        for (layer, name) in self.lower.iter().zip(&names) {
            attach(layer, name)?;
        }
        let mut directories = vec![(LOWER, names.join(":"))];
        if let Some(Upper {
            both, upper, work, ..
        }) = &self.upper
        {
            attach(both, TOP)?;
            let below = |path: &Path| Path::new(TOP).join(path).display().to_string();
            directories.extend([(UPPER, below(upper)), (WORK, below(work))]);
        }
        let data = options.with(&directories);
        fs::create_dir(WHOLE)?;
        let mount = || {
            let kind = Some("overlay");
            mount(kind, WHOLE, kind, options.flags, Some(data.as_str()))
        };
        match &self.upper {
            Some(Upper { root, .. }) => as_files_owner(*root, mount)??,
            None => mount()?,
        }
        Ok(mount_api::copy(open(WHOLE)?.as_fd(), Depth::One)?)
    }
}

/// Does something with all of this process's powers, and these ids on files: an overlay goes on to make
/// files as whoever has mounted it.
fn as_files_owner<T>((user, group): (u32, u32), act: impl FnOnce() -> T) -> io::Result<T> {
    // Without it a change of ids takes capabilities away.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    let group = setfsgid(Gid::from_raw(group));
    let user = setfsuid(Uid::from_raw(user));
    let done = act();
    setfsuid(user);
    setfsgid(group);
    set_capabilities_secure_bits(CapabilitiesSecureBits::empty())?;
    Ok(done)
}

fn attach(layer: &OwnedFd, name: &str) -> io::Result<()> {
    fs::create_dir(name)?;
    Ok(mount_api::attach(layer, open(name)?.as_fd())?)
}

/// A mount of what a descriptor stands for that maps ids, attached nowhere yet.
fn copy(of: &File, namespace: &OwnedFd, name: &str) -> Result<OwnedFd, JobError> {
    let copy = mount_api::copy(of.as_fd(), Depth::One).doing(|| format!("copy {name}"))?;
    id_map::apply(namespace, &copy, of, Depth::One, name)?;
    Ok(copy)
}

fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH).open(path)
}
