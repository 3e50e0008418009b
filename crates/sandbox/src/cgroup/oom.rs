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
    version: Version,
}

#[derive(Debug)]
enum Version {
    /// A notice comes just before the kill it announces.
    V1,
    /// The cgroup above counts the kills of those below it too, and outlives them.
    V2 { above: PathBuf, seen: u64 },
}

impl OomWatch {
    /// Watches a cgroup of v2.
    pub(super) fn v2(dir: &Path) -> Result<Self> {
        let counter = dir.join("memory.events");
        let above = dir.parent().unwrap_or(dir).join("memory.events");
        // Armed before the first look: a kill between the two is seen by one of them.
        let fd = inotify(&counter).map_err(Error::file("watch", &counter))?;
        let seen = kills(&counter)?.unwrap_or_default();
        let version = Version::V2 {
            seen: kills_elsewhere(&above),
            above,
        };
        Ok(Self {
            fd: fd.into(),
            counter,
            seen,
            version,
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
        let seen = kills_v1(&counter)?.unwrap_or_default();
        Ok(Self {
            fd: OwnedFd::from(event).into(),
            counter,
            seen,
            version: Version::V1,
        })
    }

    /// Whether a kill happened since the last call; it does not wait for one. [`AsFd`] is readable
    /// when it may have, and for good once the cgroup is removed.
    ///
    /// Call it once more when a process has exited, before its exit is reported: the notice may
    /// be under way. On v1 it may take 20 ms, when memory ran out and nothing was killed yet.
    ///
    /// systemd removes a scope as soon as its last process has ended, which may be before this is
    /// called: then the kill is known from the cgroup above, once.
    ///
    /// # Errors
    /// The cgroup is gone (kind `NotFound`), or what reading its counter says.
    pub fn fired(&mut self) -> Result<bool> {
        let noticed = self
            .drain()
            .map_err(Error::file("read the notices of", &self.counter))?;
        match self.look(noticed) {
            Err(error) if error.is_gone() && noticed && self.counted_above() => Ok(true),
            looked => looked,
        }
    }

    fn look(&mut self, noticed: bool) -> Result<bool> {
        match &mut self.version {
            Version::V1 => self.look_v1(noticed),
            Version::V2 { above, seen } => {
                // Before the own count: a kill between the two must not be seen above only.
                let before = kills_elsewhere(above);
                let kills = kills(&self.counter)?.unwrap_or_default();
                let new = std::mem::replace(&mut self.seen, kills) < kills;
                *seen = if new { kills_elsewhere(above) } else { before };
                Ok(new)
            }
        }
    }

    fn look_v1(&mut self, noticed: bool) -> Result<bool> {
        let deadline = Instant::now() + V1_KILL;
        loop {
            let Some(kills) = kills_v1(&self.counter)? else {
                // Kernels before 4.13 do not count kills: the notice is all there is.
                return Ok(noticed);
            };
            let new = std::mem::replace(&mut self.seen, kills) < kills;
            if new || !noticed || Instant::now() >= deadline {
                return Ok(new);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the cgroup above counted a kill since the last look.
    fn counted_above(&mut self) -> bool {
        match &mut self.version {
            Version::V1 => false,
            Version::V2 { above, seen } => {
                let kills = kills_elsewhere(above);
                std::mem::replace(seen, kills) < kills
            }
        }
    }

    /// Takes all notices; whether one says that the count may have changed.
    fn drain(&mut self) -> io::Result<bool> {
        let mut noticed = false;
        let mut buffer = [0; 4096];
        loop {
            match self.fd.read(&mut buffer) {
                Ok(0) => return Ok(noticed),
                Ok(count) => {
                    noticed |= match self.version {
                        // An eventfd only counts.
                        Version::V1 => true,
                        Version::V2 { .. } => has_change(buffer.get(..count).unwrap_or_default()),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(noticed),
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

/// On v1 a cgroup does not count the kills in those below it, in whose name memory ran out too.
fn kills_v1(counter: &Path) -> Result<Option<u64>> {
    let Some(own) = kills(counter)? else {
        return Ok(None);
    };
    let (Some(dir), Some(file)) = (counter.parent(), counter.file_name()) else {
        return Ok(Some(own));
    };
    let below = files::tree(dir)?;
    let below = below
        .iter()
        .skip(1)
        .map(|dir| kills_elsewhere(&dir.join(file)));
    Ok(Some(own + below.sum::<u64>()))
}

/// The root has no such file; neither has a cgroup that is gone.
fn kills_elsewhere(counter: &Path) -> u64 {
    kills(counter).ok().flatten().unwrap_or_default()
}

/// Whether one of these records of inotify(7) is about a change, not about the end of the watch.
///
/// A record is watch, mask, cookie and length of a name, 32 bits each; a watch of a file has no
/// name.
fn has_change(records: &[u8]) -> bool {
    records
        .chunks_exact(size_of::<libc::inotify_event>())
        .any(|record| {
            let mask = record.get(4..8).and_then(|mask| mask.try_into().ok());
            mask.map(u32::from_ne_bytes).unwrap_or_default() & libc::IN_MODIFY != 0
        })
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
