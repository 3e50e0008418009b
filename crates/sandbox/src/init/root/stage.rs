//! Filesystems that are not finished once they are mounted. A path that led to one may lead elsewhere
//! a moment later: what is still to be done to it is done where nobody else has a say, and by its
//! descriptor.
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, mkdirat};

use super::place::{Root, path_of};
use crate::mount_api;

const NAME: &str = "new";

/// A directory to mount on, which only this process has: on top of the root in the making, whose
/// descriptor leads below it.
pub(super) struct Stage(OwnedFd);

impl Stage {
    /// It is gone, and all that is still mounted there, when this is dropped.
    pub(super) fn set_up(root: &Root) -> Result<Self, Errno> {
        let stage = mount_api::new_filesystem(c"tmpfs", &[(c"source", Some(c"tmpfs"))])?;
        mkdirat(&stage, NAME, Mode::S_IRWXU)?;
        // move_mount(2) takes nothing from a mount that is attached nowhere.
        mount_api::attach(&stage, root.as_fd())?;
        Ok(Self(stage))
    }

    /// What is mounted there, or else the directory.
    pub(super) fn place(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.0, NAME, flags, Mode::empty())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It fails for nothing but a mount that is gone already.
        let _ = umount2(path_of(&self.0).as_str(), MntFlags::MNT_DETACH);
    }
}
