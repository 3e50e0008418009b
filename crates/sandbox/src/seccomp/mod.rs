//! System call filters: compiled by libseccomp, kept on disk, loaded by ourselves.
//!
//! libcontainer compiles a profile anew in each process that it is for: 10 ms of CPU for the default
//! profile of containerd, which is more than all other steps of a container's creation together.
//! Here a profile is compiled once between two boots of the node; see [`cache`].
mod cache;
mod compile;
mod instructions;
mod listener;
mod newer;

use std::io;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

pub(crate) use self::instructions::Instructions;
pub(crate) use self::listener::{LISTENING, Listener, announce, release};
use crate::error::{Doing, JobError};

/// A profile as the kernel takes it.
#[derive(Debug)]
pub(crate) struct Filter {
    instructions: Instructions,
    flags: libc::c_ulong,
}

impl Filter {
    /// # Errors
    /// `Invalid`: a profile that libseccomp refuses.
    pub(crate) fn of(profile: &LinuxSeccomp) -> Result<Self, JobError> {
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
            instructions: Instructions::from_bytes(&program)
                .doing(|| "read the compiled linux.seccomp")?,
            flags: flags(profile),
        })
    }

    /// Binds this process, and those it will fork, for good. It takes `no_new_privs` or
    /// CAP_SYS_ADMIN; see seccomp(2).
    pub(crate) fn load(&self) -> Result<(), JobError> {
        self.bind().doing(|| "load the seccomp profile")
    }

    /// The same, with the kernel's answer.
    pub(crate) fn bind(&self) -> io::Result<()> {
        self.instructions.load(self.flags)
    }
}

/// A profile's program, of which nothing is kept.
#[cfg(fuzzing)]
pub(crate) fn compile_anew(profile: &LinuxSeccomp) -> Result<Vec<u8>, JobError> {
    compile::compile(profile)
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

/// Refuses a profile that asks for what no kernel can do, or that says what would be left out.
///
/// # Errors
/// `Invalid`, naming the field.
pub(crate) fn check(profile: &LinuxSeccomp) -> Result<(), JobError> {
    let default = profile.default_action();
    if default == LinuxSeccompAction::ScmpActNotify {
        return Err(JobError::invalid(
            "linux.seccomp.defaultAction is SCMP_ACT_NOTIFY: a listener is for calls that are named",
        ));
    }
    check_errno(
        "linux.seccomp.defaultErrnoRet",
        default,
        profile.default_errno_ret(),
    )?;
    for rule in profile.syscalls().iter().flatten() {
        let field = "linux.seccomp.syscalls: errnoRet";
        check_errno(field, rule.action(), rule.errno_ret())
            .map_err(|error| JobError::invalid(format!("{error} (for {:?})", rule.names())))?;
    }
    if profile.listener_metadata().is_some() && profile.listener_path().is_none() {
        return Err(JobError::invalid(
            "linux.seccomp.listenerMetadata is set, but no listenerPath to send it to",
        ));
    }
    Ok(())
}

fn check_errno(
    field: &str,
    action: LinuxSeccompAction,
    errno: Option<u32>,
) -> Result<(), JobError> {
    /// What the kernel calls `MAX_ERRNO`: it answers no larger one.
    const MOST: u32 = 4095;
    let most = match action {
        LinuxSeccompAction::ScmpActErrno => MOST,
        LinuxSeccompAction::ScmpActTrace => u32::from(u16::MAX),
        _ => 0,
    };
    match errno {
        Some(errno) if most == 0 => Err(JobError::invalid(format!(
            "{field} is {errno}, but its action, {action}, answers with no error: leave it out"
        ))),
        Some(errno) if errno > most => Err(JobError::invalid(format!(
            "{field} is {errno}: {action} takes no number above {most}"
        ))),
        _ => Ok(()),
    }
}

fn flags(profile: &LinuxSeccomp) -> libc::c_ulong {
    /// Of linux/seccomp.h; libc has no name for it.
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let listener = match notifies(profile) {
        true => libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        false => 0,
    };
    let flags = profile.flags().iter().flatten();
    flags.fold(listener, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                    libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
                }
                // They are for a listener, and for none: this process has one thread.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync if listener == 0 => {
                    libc::SECCOMP_FILTER_FLAG_TSYNC
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener != 0 => {
                    WAIT_KILLABLE_RECV
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync
                | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
            }
    })
}
