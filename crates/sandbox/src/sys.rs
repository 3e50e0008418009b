//! System calls without a safe wrapper elsewhere.
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::process;

/// Ends the process at once: no destructors, no atexit handlers, which belong to its parent.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// The user namespace that owns a namespace; see ioctl_nsfs(2).
///
/// # Errors
/// `EPERM`: it is not of this process's user namespace, nor of one below.
pub(crate) fn owner_of(namespace: &File) -> io::Result<OwnedFd> {
    // SAFETY: this ioctl takes no argument.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor; no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Has the kernel send `death` when the parent ends.
///
/// # Errors
/// The parent has ended already.
pub(crate) fn die_with_parent(parent: u32, death: Signal) -> io::Result<()> {
    prctl::set_pdeathsig(death)?;
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the parent process has ended"));
    }
    Ok(())
}

/// Closes every descriptor above 2 but `fd`, which becomes number `number`, 3 at least.
pub(crate) fn keep_only(fd: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    let fd = fd.into_raw_fd();
    if fd != number {
        // SAFETY: dup3(2) takes integers; whatever `number` was is closed below anyway.
        if unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_between(3, number - 1)?;
    close_between(number + 1, RawFd::MAX)?;
    // SAFETY: the only other owner, the argument, gave its descriptor up above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor but `fd`, the standard streams among them; it becomes `number`.
pub(crate) fn keep_one(fd: OwnedFd, number: RawFd) -> io::Result<()> {
    let fd = fd.into_raw_fd();
    if fd != number {
        // SAFETY: dup3(2) takes integers; whatever `number` was is not wanted any more.
        if unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_between(0, number - 1)?;
    close_between(number + 1, RawFd::MAX)
}

/// Closes every descriptor above 2 but these; no object that owns another may be used any more.
pub(crate) fn close_all_but<const N: usize>(mut kept: [RawFd; N]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        close_between(first, fd - 1)?;
        first = first.max(fd + 1);
    }
    close_between(first, RawFd::MAX)
}

/// Closes every descriptor, 0 to 2 included, but `fd`, which becomes number `number`, and `other`, which
/// is above that.
pub(crate) fn keep_two(fd: OwnedFd, number: RawFd, other: RawFd) -> io::Result<OwnedFd> {
    if other <= number {
        return Err(io::Error::other(format!(
            "descriptor {other} is needed for another"
        )));
    }
    let kept = if fd.as_raw_fd() == number {
        fd
    } else {
        move_to(fd, number)?
    };
    close_between(0, number - 1)?;
    close_between(number + 1, other - 1)?;
    close_between(other + 1, RawFd::MAX)?;
    Ok(kept)
}

/// Has execve(2) close the descriptors from `first` on.
pub(crate) fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: close_range(2) takes integers, and with this flag closes nothing yet.
    if unsafe { libc::close_range(first.cast_unsigned(), libc::c_uint::MAX, flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes the descriptors from `first` to `last`.
fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: close_range(2) takes integers; the caller gives up all objects that owned one.
    let answer = unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor, then opens a pipe whose ends are `number` and the one after it: comes
/// back with the end to read from. The other one is never closed.
pub(crate) fn keep_only_an_idle_pipe(number: RawFd) -> io::Result<OwnedFd> {
    close_between(0, RawFd::MAX)?;
    let (reader, writer) = io::pipe()?;
    // Not 0, 1 or 2: whoever writes to those by habit must get an error.
    let reader = move_to(OwnedFd::from(reader), number)?;
    let writer = move_to(OwnedFd::from(writer), number + 1)?;
    std::mem::forget(writer);
    Ok(reader)
}

fn move_to(fd: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: dup3(2) takes integers; nothing was open at `number`.
    if unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: dup3 has just made this descriptor; no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has the kernel reap the children of this process as they end, orphans handed to it included;
/// see waitpid(2).
pub(crate) fn reap_automatically() -> io::Result<()> {
    ignore(Signal::SIGCHLD)
}

/// setdomainname(2).
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `name.len()` bytes of a string that outlives the call.
    if unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes a descriptor that a forked child got with its parent's memory.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the object that owns `fd` is never dropped in this process, which ends by _exit(2).
    unsafe { libc::close(fd) };
}

/// Ignores a signal.
pub(crate) fn ignore(which: Signal) -> io::Result<()> {
    // SAFETY: no handler is installed.
    unsafe { signal(which, SigHandler::SigIgn) }?;
    Ok(())
}

/// Forgets what this process was executed with, environment and arguments: in its memory, where
/// /proc/PID/environ and /proc/PID/cmdline show them to others, too. In place of the arguments there
/// is `name` then, as much of it as fits.
pub(crate) fn forget_how_it_was_executed(name: &[u8]) -> io::Result<()> {
    // SAFETY: the process has one thread, so no one reads the environment meanwhile.
    if unsafe { libc::clearenv() } != 0 {
        return Err(io::Error::other("the environment cannot be cleared"));
    }
    let [arguments, environment] = process::strings_of_this_process()?;
    // SAFETY: the kernel has put the strings there, one after the other, and nothing else; this
    // process, which was forked to do other work, asks for neither again. The page stays mapped for
    // its life.
    let arguments = unsafe { bytes_at(arguments) };
    // SAFETY: as above.
    let environment = unsafe { bytes_at(environment) };
    environment.fill(0);
    arguments.fill(0);
    // The last byte stays zero, or the kernel takes what follows for a part of it.
    let room = arguments.len().saturating_sub(1);
    for (to, from) in arguments.iter_mut().take(room).zip(name) {
        *to = *from;
    }
    Ok(())
}

/// # Safety
/// The range is mapped, writable and used by nobody else for as long as the result is.
unsafe fn bytes_at<'a>(range: std::ops::Range<usize>) -> &'a mut [u8] {
    if range.is_empty() {
        return &mut [];
    }
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: that is the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
}
