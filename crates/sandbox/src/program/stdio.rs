//! A process's descriptors 0, 1 and 2.
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::sys::stat::{fstat, makedev};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use oci_spec::runtime::Process;

use crate::console;
use crate::error::{Doing, JobError};
use crate::job::Stdio;

/// Takes the standard streams that the shim gave; what is /dev/null becomes the container's own.
/// Call it inside the container.
pub(crate) fn take(stdio: Stdio) -> Result<(), JobError> {
    let null = open_null()?;
    let or_null = |fd: Option<OwnedFd>| match fd.filter(|fd| !is_null(fd)) {
        Some(fd) => Ok(fd),
        None => null.try_clone(),
    };
    let stdin = or_null(stdio.stdin).doing(|| "open /dev/null")?;
    let stdout = or_null(stdio.stdout).doing(|| "open /dev/null")?;
    let stderr = or_null(stdio.stderr).doing(|| "open /dev/null")?;
    set(&stdin, &stdout, &stderr)
}

/// Opens a terminal of the container this process is in, hands its master over, and takes the
/// slave for its standard streams, which it comes back with. `user` is the owner, as this process sees him.
pub(crate) fn take_terminal(
    process: &Process,
    user: u32,
    master: &UnixDatagram,
) -> Result<OwnedFd, JobError> {
    let (ours, slave) = console::open_inside(process, user)?;
    console::send_fd(master.as_raw_fd(), ours.as_raw_fd()).doing(|| "hand the terminal over")?;
    set(&slave, &slave, &slave)?;
    Ok(slave)
}

/// Makes the terminal that is standard input the controlling one of this process's session.
pub(super) fn take_control() -> Result<(), JobError> {
    // SAFETY: TIOCSCTTY takes an integer: 0 does not steal the terminal of another session.
    let controlled = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
    Errno::result(controlled).doing(|| "make the terminal the controlling one")?;
    Ok(())
}

fn set(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), JobError> {
    dup2_stdin(stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .doing(|| "set up the standard streams")
}

fn is_null(fd: &OwnedFd) -> bool {
    // No other kind of file has this number in a field that only devices use.
    fstat(fd).is_ok_and(|stat| stat.st_rdev == makedev(1, 3))
}

/// The container's /dev/null, or this process's own where the container's is something else.
fn open_null() -> Result<OwnedFd, JobError> {
    let theirs = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NOFOLLOW)
        .open("/dev/null")
        .and_then(|null| Ok((null.metadata()?, null)))
        .ok()
        .filter(|(data, _)| data.file_type().is_char_device() && data.rdev() == makedev(1, 3));
    match theirs {
        Some((_, null)) => Ok(OwnedFd::from(null)),
        // Standard input is still what the zygote was given.
        None => std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .doing(|| "open /dev/null"),
    }
}
