//! The steps from a fork of the builder to the program that was asked for, in their order.
use std::convert::Infallible;
use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, makedev, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use oci_spec::runtime::{LinuxSeccomp, Process};

use super::{ABOUT_TO_EXECUTE, identity, limits};
use crate::cgroup::Cgroup;
use crate::console;
use crate::process::Pidfd;
use crate::workload::{self, Workload};
use crate::zygote::{Doing, Exec, JobError, Stdio};

/// A process on its way into a container.
pub(super) struct Inside {
    pub(super) job: Exec,
    pub(super) init: Pidfd,
    pub(super) namespaces: CloneFlags,
    pub(super) console: UnixDatagram,
}

impl Inside {
    /// Joins cgroups and namespaces and sets up the standard streams. All descriptors that this
    /// took are closed when it returns.
    pub(super) fn enter(mut self) -> Result<Arrived, JobError> {
        let affinity = self.job.process.exec_cpu_affinity().clone();
        let (initial, last) = affinity.as_ref().map_or((None, None), |affinity| {
            (
                affinity.initial().as_deref(),
                affinity.cpu_affinity_final().as_deref(),
            )
        });
        limits::set_affinity(initial)?;
        // Process 0 is this one, in whichever pid namespace.
        Cgroup::of(self.init.pid)?.join(0)?;
        limits::set_affinity(last)?;

        self.join_namespaces()?;
        setsid().doing(|| "start a session")?;
        self.set_up_stdio()?;
        Ok(Arrived {
            process: self.job.process,
            seccomp: self.job.seccomp,
        })
    }

    /// Joins all namespaces at once, so that the kernel sees to their order. The mount namespace
    /// brings its root directory along.
    fn join_namespaces(&self) -> Result<(), JobError> {
        if !self.namespaces.contains(CloneFlags::CLONE_NEWNS) {
            return Err(JobError::invalid(format!(
                "process {} shares its mount namespace with the node: it is no container's init",
                self.init.pid
            )));
        }
        // The pid namespace is joined already, by being forked into it.
        let flags = self.namespaces.difference(CloneFlags::CLONE_NEWPID);
        setns(&self.init.fd, flags)
            .doing(|| format!("join the namespaces of process {}", self.init.pid))?;
        if self.namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            identity::become_root()?;
        }
        Ok(())
    }

    fn set_up_stdio(&mut self) -> Result<(), JobError> {
        let process = &self.job.process;
        let user = Some(process.user().uid());
        if process.terminal().unwrap_or(false) {
            let (master, slave) = console::open_inside(process, user)?;
            console::send_fd(&self.console, &master).doing(|| "hand the terminal over")?;
            return use_as_stdio(&slave, &slave, &slave);
        }
        let stdio: Stdio = std::mem::take(&mut self.job.stdio);
        console::own_stdio(&stdio, user)?;
        let null = open_null()?;
        let or_null = |fd: Option<OwnedFd>| match fd {
            Some(fd) => Ok(fd),
            None => null.try_clone(),
        };
        let stdin = or_null(stdio.stdin).doing(|| "open /dev/null")?;
        let stdout = or_null(stdio.stdout).doing(|| "open /dev/null")?;
        let stderr = or_null(stdio.stderr).doing(|| "open /dev/null")?;
        use_as_stdio(&stdin, &stdout, &stderr)
    }
}

/// A process that is in the container, and still who it was outside.
pub(super) struct Arrived {
    process: Process,
    seccomp: Option<LinuxSeccomp>,
}

impl Arrived {
    /// Becomes the user, gives up what the spec does not grant, and executes. Comes back only on
    /// failure.
    pub(super) fn execute(
        self,
        mut workload: Workload,
        outcome: &mut PipeWriter,
    ) -> Result<Infallible, JobError> {
        let process = &self.process;
        limits::set(process)?;
        if let Some(profile) = process.apparmor_profile() {
            libcontainer::apparmor::apply_profile(profile).map_err(|error| {
                JobError::failed(format!(
                    "cannot set the AppArmor profile {profile}: {error}"
                ))
            })?;
        }
        umask(Mode::from_bits_truncate(
            process.user().umask().unwrap_or(0o022),
        ));
        let entered = chdir(process.cwd());
        if process.no_new_privileges() == Some(true) {
            nix::sys::prctl::set_no_new_privs().doing(|| "set no_new_privs")?;
        }
        identity::become_user(process)?;
        // A profile binds what comes after it: with no_new_privs it is loaded as late as can be;
        // without, loading it takes a capability that is about to go.
        let late = process.no_new_privileges() == Some(true);
        if !late {
            identity::load_seccomp(self.seccomp.as_ref())?;
        }
        identity::drop_capabilities(process)?;
        if let Err(errno) = entered {
            // Root may have been refused, by a network filesystem, where the user is not.
            chdir(process.cwd()).map_err(|_| cwd_error(process.cwd(), errno))?;
        }
        see_that_cwd_is_inside(process.cwd())?;
        workload.set_home(process.user().uid());
        workload.check()?;
        workload::reset_signals();
        outcome.write_all(&[ABOUT_TO_EXECUTE]).doing(|| "report")?;
        if late {
            identity::load_seccomp(self.seccomp.as_ref())?;
        }
        workload.execute()
    }
}

fn use_as_stdio(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), JobError> {
    dup2_stdin(stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .doing(|| "set up the standard streams")
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

fn cwd_error(cwd: &Path, errno: Errno) -> JobError {
    let message = format!(
        "cannot enter the working directory {}: {errno}",
        cwd.display()
    );
    match errno {
        Errno::ENOENT => JobError::not_found(message),
        _ => JobError::invalid(message),
    }
}

/// A working directory outside the container's root would be a way out of it (CVE-2024-21626);
/// getcwd(2) then answers a path that is not absolute.
fn see_that_cwd_is_inside(cwd: &Path) -> Result<(), JobError> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the given length into a buffer that outlives the call.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    Errno::result(length).doing(|| "read the working directory")?;
    if buffer.first() == Some(&b'/') {
        return Ok(());
    }
    Err(JobError::invalid(format!(
        "the working directory {} leads out of the container",
        cwd.display()
    )))
}
