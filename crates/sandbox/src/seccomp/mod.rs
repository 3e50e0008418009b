//! System call filters: compiled by libseccomp, kept on disk, loaded by ourselves.
//!
//! libcontainer compiles a profile anew in each process that it is for: 10 ms of CPU for the default
//! profile of containerd, which is more than all other steps of a container's creation together.
//! Here a profile is compiled once between two boots of the node; see [`cache`].
mod cache;
mod compile;

use nix::errno::Errno;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

use crate::zygote::{Doing, JobError};

/// A profile as the kernel takes it.
#[derive(Debug)]
pub(crate) struct Filter {
    instructions: Vec<libc::sock_filter>,
    flags: libc::c_ulong,
}

impl Filter {
    /// # Errors
    /// `Invalid`: a profile that notifies a listener, or that libseccomp refuses.
    pub(crate) fn of(profile: &LinuxSeccomp) -> Result<Self, JobError> {
        if notifies(profile) {
            return Err(JobError::invalid(
                "the container's seccomp profile notifies a listener, which is not supported here: \
                 use it without SCMP_ACT_NOTIFY",
            ));
        }
        let key = cache::key(profile)?;
        let program = match cache::find(&key) {
            Some(program) => program,
            None => {
                let program = compile::compile(profile)?;
                cache::keep(&key, &program);
                program
            }
        };
        Ok(Self {
            instructions: instructions(&program),
            flags: flags(profile),
        })
    }

    /// Binds this process, and those it will fork, for good. It takes `no_new_privs` or
    /// CAP_SYS_ADMIN; see seccomp(2).
    pub(crate) fn load(&self) -> Result<(), JobError> {
        let what = || "load the seccomp profile";
        let len = u16::try_from(self.instructions.len())
            .map_err(|_| Errno::E2BIG)
            .doing(what)?;
        let program = libc::sock_fprog {
            len,
            filter: self.instructions.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads `len` instructions, which `self` keeps alive, and writes none.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                self.flags,
                &raw const program,
            )
        };
        Errno::result(answer).doing(what)?;
        Ok(())
    }
}

/// Whether a profile hands system calls to a listener.
pub(crate) fn notifies(profile: &LinuxSeccomp) -> bool {
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    notifies(profile.default_action())
        || profile
            .syscalls()
            .iter()
            .flatten()
            .any(|syscall| notifies(syscall.action()))
}

fn flags(profile: &LinuxSeccomp) -> libc::c_ulong {
    let flags = profile.flags().iter().flatten();
    flags.fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                    libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
                }
                // It changes how a listener is waited for, and there is none.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
            }
    })
}

/// Eight bytes each, in the byte order of the machine; see linux/filter.h.
fn instructions(program: &[u8]) -> Vec<libc::sock_filter> {
    let (chunks, _) = program.as_chunks::<8>();
    chunks
        .iter()
        .map(|&[a, b, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect()
}
