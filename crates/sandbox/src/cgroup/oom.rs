//! Learning that the kernel killed a process of a cgroup for want of memory.
//!
//! Both versions count such kills (`oom_kill`). Version 2 has a file that changes with the count,
//! watched by inotify(7); version 1 signals an eventfd(2) when the cgroup runs out of memory, which
//! is just before the kill, and also when the cgroup is removed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::{Error, Result};
use super::files;

/// How long after the v1 notice the kill may take to be counted.
const V1_KILL: Duration = Duration::from_millis(20);

/// Says when the kernel killed a process of a cgroup for want of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: File,
    /// The file with the count.
    counter: PathBuf,
    /// The kills that were reported.
    seen: u64,
    /// A notice comes before the kill it announces (v1).
    early: bool,
}

impl OomWatch {
    /// Watches a cgroup of v2.
    pub(super) fn v2(dir: &Path) -> Result<Self> {
        let counter = dir.join("memory.events");
        // Armed before the first look: a kill between the two is seen by one of them.
        let fd = inotify(&counter).map_err(Error::file("watch", &counter))?;
        let seen = kills(&counter)?.unwrap_or(0);
        Ok(Self {
            fd: fd.into(),
            counter,
            seen,
            early: false,
        })
    }

    /// Watches a cgroup of the v1 memory hierarchy.
    pub(super) fn v1(dir: &Path) -> Result<Self> {
        let counter = dir.join("memory.oom_control");
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::file("make an eventfd for", &counter)(errno.into()))?;
        let control = File::open(&counter).map_err(Error::file("open", &counter))?;
        let request = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        files::write(&dir.join("cgroup.event_control"), &request)?;
        let seen = kills(&counter)?.unwrap_or(0);
        Ok(Self {
            fd: OwnedFd::from(event).into(),
            counter,
            seen,
            early: true,
        })
    }

    /// Whether a kill happened since the last call; it does not wait for one. [`AsFd`] is readable
    /// when it may have, and for good once the cgroup is removed.
    ///
    /// Call it once more when a process has exited, before its exit is reported: the notice may
    /// be under way. On v1 it may take 20 ms, when memory ran out and nothing was killed yet.
    ///
    /// # Errors
    /// The cgroup is gone (kind `NotFound`), or what reading its counter says.
    pub fn fired(&mut self) -> Result<bool> {
        let notice = self
            .drain()
            .map_err(Error::file("read the notices of", &self.counter))?;
        let deadline = Instant::now() + V1_KILL;
        loop {
            let Some(kills) = kills(&self.counter)? else {
                // Kernels before 4.13 do not count kills: the notice is all there is.
                return Ok(notice);
            };
            if kills > self.seen {
                self.seen = kills;
                return Ok(true);
            }
            if !(self.early && notice) || Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes all notices; whether there were any.
    fn drain(&mut self) -> io::Result<bool> {
        let mut notice = false;
        let mut buffer = [0; 4096];
        loop {
            match self.fd.read(&mut buffer) {
                Ok(0) => return Ok(notice),
                Ok(_) => notice = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(notice),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kills(counter: &Path) -> Result<Option<u64>> {
    Ok(files::keyed(&files::read(counter)?, "oom_kill"))
}

/// An inotify descriptor that is readable once `file` was changed or removed.
fn inotify(file: &Path) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: inotify_init1 takes no pointers.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made, is valid, and has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `path` is a C string that outlives the call.
    let watch = unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) };
    if watch < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}
