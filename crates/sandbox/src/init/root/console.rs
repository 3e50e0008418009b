//! The container's /dev/console.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::error::{Doing, JobError};
use crate::mount_api::{self, Depth};

pub(super) const CONSOLE: &str = "/dev/console";

/// Shows a terminal as /dev/console of the container this process is in. A link there could lead
/// anywhere, and is refused (CVE-2025-52565).
pub(in crate::init) fn bind(terminal: &OwnedFd) -> Result<(), JobError> {
    let place = match open_itself() {
        Err(Errno::ENOENT) => make().and_then(|()| open_itself()),
        found => found,
    };
    let place = place.doing(|| format!("open {CONSOLE}"))?;
    let stat = fstat(&place).doing(|| format!("look at {CONSOLE}"))?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
        return Err(JobError::invalid(format!(
            "{CONSOLE} of the container is a link: no terminal is mounted there"
        )));
    }
    mount_api::copy(terminal.as_fd(), Depth::One)
        .and_then(|copy| mount_api::attach(copy, place.as_fd()))
        .doing(|| format!("mount the terminal at {CONSOLE}"))
}

fn open_itself() -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(Path::new(CONSOLE), flags, Mode::empty())
}

fn make() -> Result<(), Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(CONSOLE, flags, Mode::from_bits_truncate(0o600)).map(drop)
}
