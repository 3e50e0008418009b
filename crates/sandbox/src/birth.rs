//! Forks of a builder: into new namespaces and, where the kernel can, into a cgroup.
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::cgroup::Cgroup;
use crate::process::Pidfd;
use crate::zygote::{Doing, JobError};

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
