//! Pins: bind mounts that keep a namespace when no process is in it.
use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::error::{Doing, JobError, Leftovers};
use crate::rootfs;

/// Keeps a namespace of the process `pid` at `path`, a file that is made for it. `entry` is its
/// name in `/proc/PID/ns`.
pub(crate) fn pin(pid: i32, entry: &str, path: &Path) -> Result<(), JobError> {
    let what = || format!("pin the {entry} namespace at {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).doing(what)?;
    }
    // One that is there belongs to another, or was left: either way it is not ours to cover.
    File::create_new(path).doing(what)?;
    let namespace = format!("/proc/{pid}/ns/{entry}");
    let none = None::<&str>;
    mount(Some(namespace.as_str()), path, none, MsFlags::MS_BIND, none).map_err(|errno| {
        let _ = fs::remove_file(path);
        JobError::from_errno(errno, what())
    })
}

/// Undoes a pin: the namespace ends with its last process. Gone already is no error.
///
/// # Errors
/// What umount2(2) and unlink(2) say.
pub fn unpin(path: &Path) -> io::Result<()> {
    rootfs::unmount(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

/// Undoes pins of a job that has failed.
pub(crate) fn unpin_all<'a>(paths: impl Iterator<Item = &'a Path>) -> Leftovers {
    let mut left = Leftovers::default();
    for path in paths {
        left.note(unpin(path), || format!("undo the pin {}", path.display()));
    }
    left
}
