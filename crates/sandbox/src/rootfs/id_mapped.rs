//! Root filesystems whose files belong to others than their layers say: what containerd mounts for a
//! pod with a user namespace, with the options `uidmap` and `gidmap`.
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::chdir;

use super::options::Options;
use super::unmount;
use crate::error::{Doing, JobError};
use crate::id_map::{self, IdMap};
use crate::mount_api::{self, Depth};

/// Where the overlay is mounted among its layers, whose names are numbers.
const WHOLE: &str = "whole";

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

/// An overlay whose lower directories are id-mapped, attached nowhere yet: it cannot be mapped itself.
///
/// Before Linux 6.15 only what is mounted somewhere can be a layer. So that nobody sees it, and the
/// kernel takes it back should this process die, the layers are mounted in a mount namespace of this
/// process's own, below `rootfs`, and all that comes back from there is the overlay. Mapped layers ask
/// for Linux 5.19.
pub(super) fn overlay(rootfs: &Path, options: &Options, map: &IdMap) -> Result<OwnedFd, JobError> {
    let namespace = map.namespace()?;
    let layers = options.lower_directories().into_iter().map(|path| {
        let name = format!("the layer {}", path.display());
        let layer = open(path).doing(|| format!("open {name}"))?;
        copy(&layer, &namespace, &name)
    });
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let what = || "enter a mount namespace, where layers are id-mapped";
    let nodes = File::open("/proc/self/ns/mnt").doing(what)?;
    unshare(CloneFlags::CLONE_NEWNS).doing(what)?;
    let made = assemble(rootfs, options, &layers);
    setns(nodes, CloneFlags::CLONE_NEWNS).doing(|| "come back to the node's mount namespace")?;
    made.map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::EINVAL => JobError::failed(
            "cannot mount an overlay of id-mapped layers: the kernel refuses it; Linux 5.19 is the \
             first that can",
        ),
        errno => JobError::from_errno(errno, "mount an overlay of id-mapped layers"),
    })
}

/// In a mount namespace that nobody else is in.
fn assemble(rootfs: &Path, options: &Options, layers: &[OwnedFd]) -> io::Result<OwnedFd> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), rootfs, Some("tmpfs"), MsFlags::empty(), none)?;
    chdir(rootfs)?;
    let mut names = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let name = at.to_string();
        fs::create_dir(&name)?;
        mount_api::attach(layer, open(&name)?.as_fd())?;
        names.push(name);
    }
    let data = options.with_lower_directories(&names.join(":"));
    fs::create_dir(WHOLE)?;
    let kind = Some("overlay");
    mount(kind, WHOLE, kind, options.flags, Some(data.as_str()))?;
    Ok(mount_api::copy(open(WHOLE)?.as_fd(), Depth::One)?)
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
