//! Paths that a container may not see, or not write.
use std::cell::OnceCell;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, makedev};

use super::place::Root;
use crate::error::{Doing, JobError};
use crate::mount_api::{self, Attributes, Depth, MOUNT_ATTR_RDONLY};

/// Makes paths read-only, each by a mount of itself; one that is not there is left out.
pub(super) fn make_read_only(root: &Root, paths: &[String]) -> Result<(), JobError> {
    for path in paths {
        let what = || format!("make {path} of the container read-only");
        let Some(place) = find(root, path).doing(what)? else {
            continue;
        };
        let close = || {
            let copy = mount_api::copy(place.as_fd(), Depth::All)?;
            mount_api::set(copy.as_fd(), Attributes::set(MOUNT_ATTR_RDONLY), Depth::One)?;
            mount_api::attach(&copy, place.as_fd())
        };
        close().doing(what)?;
    }
    Ok(())
}

/// Covers paths: files with the container's /dev/null, directories with an empty one. One that is
/// not there is left out. `label` is the SELinux label of what covers directories.
pub(super) fn mask(root: &Root, paths: &[String], label: Option<&CStr>) -> Result<(), JobError> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = null(root)?;
    let empty = OnceCell::new();
    for path in paths {
        let what = || format!("mask {path} of the container");
        let Some(place) = find(root, path).doing(what)? else {
            continue;
        };
        let is_directory =
            fstat(&place).doing(what)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let cover = if is_directory {
            cover_with_nothing(&empty, &place, label)
        } else {
            mount_api::copy(null.as_fd(), Depth::One)
                .and_then(|copy| mount_api::attach(copy, place.as_fd()))
        };
        cover.doing(what)?;
    }
    Ok(())
}

/// One filesystem for all directories: to make one costs more than all else.
fn cover_with_nothing(
    empty: &OnceCell<OwnedFd>,
    place: &OwnedFd,
    label: Option<&CStr>,
) -> Result<(), Errno> {
    match empty.get() {
        Some(empty) => {
            let copy = mount_api::copy(empty.as_fd(), Depth::One)?;
            mount_api::attach(copy, place.as_fd())
        }
        None => {
            let first = make_empty(label)?;
            mount_api::attach(&first, place.as_fd())?;
            empty.set(first).map_err(|_| Errno::EALREADY)
        }
    }
}

/// Whoever can make its mount writable, which takes CAP_SYS_ADMIN, finds a filesystem that is read-only
/// itself, and has no room for a file.
fn make_empty(label: Option<&CStr>) -> Result<OwnedFd, Errno> {
    let mut options = vec![
        (c"source", Some(c"tmpfs")),
        (c"ro", None),
        (c"nr_blocks", Some(c"1")),
        (c"nr_inodes", Some(c"1")),
    ];
    options.extend(label.map(|label| (c"context", Some(label))));
    let empty = mount_api::new_filesystem(c"tmpfs", &options)?;
    let read_only = Attributes::set(MOUNT_ATTR_RDONLY);
    mount_api::set(empty.as_fd(), read_only, Depth::One)?;
    Ok(empty)
}

/// The container's own /dev/null, and nothing that is called so (CVE-2025-31133). Not the node's:
/// whoever may change what covers a file would change the node's.
fn null(root: &Root) -> Result<OwnedFd, JobError> {
    let what = || "open the container's /dev/null, to mask paths with it";
    let null = root.find(Path::new("/dev/null")).doing(what)?;
    let stat = fstat(&null).doing(what)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3) {
        return Ok(null);
    }
    Err(JobError::invalid(
        "the container's /dev/null is not the null device: nothing can be masked with it",
    ))
}

fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>, Errno> {
    match root.find(Path::new(path)) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
