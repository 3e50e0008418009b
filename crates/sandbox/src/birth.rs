//! Forks of a builder: into new namespaces and, where the kernel can, into a cgroup.
//!
//! A process that is to be in a pid namespace where others are is seen by them as soon as it is
//! forked, and one of them with CAP_SYS_PTRACE reaches whatever it has: dumpable or not. So such a
//! process is forked last, by a *maker* that is in no such namespace itself and has entered the
//! container, closed what it had and given up what it may not keep. The maker's child is the
//! builder's ([`Maker::fork`]).
//!
//! It is a fork: in memory that the two share, as after vfork(2), whoever traces the child would
//! also steer the maker, which is in the node's pid namespace.
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError};
use crate::process::Pidfd;
use crate::sys;

/// Of linux/sched.h; libc has it in too small a type. Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where a process comes into being.
pub(crate) struct Birthplace {
    /// Its cgroup's directory on v2, into which it is born; on v1 it has to move there.
    cgroup: Option<File>,
    /// From the root of its hierarchy.
    path: PathBuf,
}

impl Birthplace {
    pub(crate) fn in_cgroup(cgroup: &Cgroup) -> Result<Self, JobError> {
        let open = |path| {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
                .open(path)
        };
        let opened = cgroup.birthplace().map(open).transpose();
        Ok(Self {
            cgroup: opened.doing(|| format!("open the cgroup {}", cgroup.path().display()))?,
            path: cgroup.path().to_owned(),
        })
    }

    /// In the child: makes sure that it is in its cgroup.
    pub(crate) fn move_into(&self, cgroup: &Cgroup) -> Result<(), JobError> {
        if self.cgroup.is_some() {
            return Ok(());
        }
        // Process 0 is this one, in whichever pid namespace.
        Ok(cgroup.join(0)?)
    }

    /// Forks, with new namespaces: `None` in the child. The process must have one thread.
    pub(crate) fn clone_into(&self, new: CloneFlags) -> Result<Option<Pidfd>, JobError> {
        let mut fd: RawFd = -1;
        let namespaces = u64::from(new.bits().cast_unsigned());
        let own_pidfd = u64::from(libc::CLONE_PIDFD.cast_unsigned());
        // SAFETY: clone_args is plain data, for which all zeroes is a value.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = namespaces | own_pidfd;
        args.pidfd = u64::try_from((&raw mut fd).addr()).unwrap_or(0);
        args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
        if let Some(cgroup) = &self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        }
        // SAFETY: like fork(2): no new stack, no shared memory; a builder has one thread. The kernel
        // writes the pidfd into `fd`, which outlives the call.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw const args,
                size_of::<libc::clone_args>(),
            )
        };
        let pid = Errno::result(pid).doing(|| {
            let path = self.path.display();
            format!("clone a process into its namespaces ({new:?}) and its cgroup {path}")
        })?;
        if pid == 0 {
            return Ok(None);
        }
        // SAFETY: the kernel has just stored this descriptor there; no one else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Some(Pidfd {
            pid: i32::try_from(pid).map_err(|_| JobError::failed("clone3(2) answered no pid"))?,
            fd,
        }))
    }
}

/// The most that is read of what a maker says, in bytes: its child, which it passes the pipe on to,
/// may be in the hands of others.
const LONGEST: u64 = 64 * 1024;

/// A maker's end of the pipe to its builder.
pub(crate) struct Maker {
    born: PipeWriter,
}

/// A builder's end.
pub(crate) struct Birth {
    born: PipeReader,
}

/// The pipe between a builder and a maker.
pub(crate) fn announcement() -> Result<(Birth, Maker), JobError> {
    let (reader, writer) = io::pipe().doing(|| "make a pipe")?;
    Ok((Birth { born: reader }, Maker { born: writer }))
}

impl Maker {
    /// The descriptor, which has to stay open until the fork.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.born.as_raw_fd()
    }

    /// Forks a child of the builder, in new namespaces, and comes back in that child alone.
    pub(crate) fn fork(self, new: CloneFlags) {
        let flags = new.bits() | libc::CLONE_PARENT | libc::SIGCHLD;
        // clone(2), not clone3(2): a seccomp profile that is in force already cannot see what the
        // latter is about, and mostly refuses it.
        // SAFETY: like fork(2): no new stack, no shared memory; a maker has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match Errno::result(pid) {
            // The builder reads until all ends are closed.
            Ok(0) => {}
            Ok(pid) => self.say(&Ok(pid)),
            Err(errno) => self.fail(JobError::from_errno(
                errno,
                "fork the process (if the container's seccomp profile refuses clone(2): allow it, or set \
                 process.noNewPrivileges)",
            )),
        }
    }

    /// Ends the maker, which has not come to fork.
    pub(crate) fn fail(self, error: JobError) -> ! {
        self.say(&Err(error))
    }

    fn say(mut self, born: &Result<libc::c_long, JobError>) -> ! {
        let json = serde_json::to_vec(born).unwrap_or_default();
        // The builder is the only reader; if it is gone, so is whoever asked.
        let _ = self.born.write_all(&json);
        sys::exit_now(0)
    }
}

impl Birth {
    /// Waits for a maker's end, and comes back with what it has forked.
    pub(crate) fn wait(self, maker: &Pidfd) -> Result<Pidfd, JobError> {
        let mut json = Vec::new();
        self.born
            .take(LONGEST)
            .read_to_end(&mut json)
            .doing(|| "hear from the process that enters the container")?;
        let ended = maker
            .wait()
            .doing(|| "wait for the process that enters the container")?;
        if json.is_empty() {
            return Err(JobError::failed(format!(
                "the process that enters the container {ended} before it could fork: see whether the \
                 container's limits of memory and processes, and its seccomp profile, allow it"
            )));
        }
        let pid: i32 =
            serde_json::from_slice::<Result<i32, JobError>>(&json).unwrap_or_else(|error| {
                Err(JobError::failed(format!(
                    "the process that enters the container did not say what it has made: {error}"
                )))
            })?;
        let child = Pidfd::open(pid).doing(|| "open a pidfd for what was forked")?;
        // Whoever traces the child could have written anything.
        if child.is_child() {
            Ok(child)
        } else {
            Err(JobError::failed(format!(
                "process {pid} is not what was forked into the container: the container has interfered"
            )))
        }
    }
}
