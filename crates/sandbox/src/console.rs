//! Terminals and the ownership of standard streams.
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};
use nix::unistd::{Uid, fchown, isatty};
use oci_spec::runtime::Process;

use crate::error::{Doing, JobError};
use crate::job::Stdio;

/// Takes a descriptor that was sent; `EAGAIN` when there is none.
pub(crate) fn receive_fd(socket: RawFd) -> Result<OwnedFd, Errno> {
    receive(socket, MsgFlags::MSG_DONTWAIT)
}

/// Waits for a descriptor that is sent; `ENODATA` when the other end is closed without.
pub(crate) fn await_fd(socket: RawFd) -> Result<OwnedFd, Errno> {
    receive(socket, MsgFlags::empty())
}

fn receive(socket: RawFd, flags: MsgFlags) -> Result<OwnedFd, Errno> {
    let mut bytes = [0; 64];
    let mut control = cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | flags;
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
    let fd = message
        .cmsgs()?
        .find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .ok_or(Errno::ENODATA)?;
    // SAFETY: the kernel has just installed this descriptor for us; no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a descriptor.
pub(crate) fn send_fd(socket: RawFd, fd: RawFd) -> Result<(), Errno> {
    let fds = [fd];
    let rights = [ControlMessage::ScmRights(&fds)];
    let parts = [IoSlice::new(b"console")];
    sendmsg::<()>(socket, &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Opens a new terminal of the container this process is in: the master and the slave.
///
/// A container could put anything at /dev/pts/ptmx: it is used only when it is what it must be
/// (CVE-2025-52565).
pub(crate) fn open_inside(process: &Process, user: u32) -> Result<(OwnedFd, OwnedFd), JobError> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let master = nix::fcntl::open("/dev/pts/ptmx", flags, Mode::empty())
        .doing(|| "open the container's /dev/pts/ptmx")?;
    let is_devpts = fstatfs(&master).is_ok_and(|fs| fs.filesystem_type() == DEVPTS_SUPER_MAGIC);
    let is_ptmx = fstat(&master).is_ok_and(|stat| stat.st_rdev == makedev(5, 2));
    if !(is_devpts && is_ptmx) {
        return Err(JobError::invalid(
            "the container's /dev/pts/ptmx is not the multiplexer of a devpts filesystem",
        ));
    }
    let lock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int, which outlives the call.
    let unlocked = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const lock) };
    Errno::result(unlocked).doing(|| "unlock the terminal")?;
    let slave = open_slave(&master).doing(|| "open the terminal")?;
    set_size(&master, process)?;
    give_to(slave.as_fd(), user).doing(|| "give the terminal to the user of the process")?;
    Ok((master, slave))
}

/// The other side of a terminal, whatever is mounted where its name is.
fn open_slave(master: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open(2) flags and returns a descriptor.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just returned this descriptor; no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a terminal to `process.consoleSize`; a size that does not fit is left alone.
fn set_size(master: &OwnedFd, process: &Process) -> Result<(), JobError> {
    let Some(size) = process.console_size() else {
        return Ok(());
    };
    let (Ok(ws_row), Ok(ws_col)) = (size.height().try_into(), size.width().try_into()) else {
        return Err(JobError::invalid(
            "process.consoleSize is larger than a terminal can be",
        ));
    };
    let size = libc::winsize {
        ws_row,
        ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    let answer = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(answer).doing(|| "set the size of the terminal")?;
    Ok(())
}

/// Gives the standard streams that are pipes to the user of a process, who may then open
/// /dev/stdout and the like.
pub(crate) fn own_stdio(stdio: &Stdio, user: Option<u32>) -> Result<(), JobError> {
    let Some(user) = user else { return Ok(()) };
    for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr]
        .into_iter()
        .flatten()
    {
        give_to(fd.as_fd(), user).doing(|| "give a standard stream to the container's user")?;
    }
    Ok(())
}

fn give_to(fd: std::os::fd::BorrowedFd<'_>, user: u32) -> Result<(), Errno> {
    let stat = fstat(fd)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    // A log file stays its writer's; /dev/null and other devices of the node stay the node's.
    let is_terminal = kind == SFlag::S_IFCHR && isatty(fd)?;
    if kind != SFlag::S_IFIFO && !is_terminal || stat.st_uid == user {
        return Ok(());
    }
    match fchown(fd, Some(Uid::from_raw(user)), None) {
        // A read-only filesystem, or one whose owners this namespace cannot name.
        Err(Errno::EROFS | Errno::EPERM | Errno::EINVAL) => Ok(()),
        answer => answer,
    }
}
