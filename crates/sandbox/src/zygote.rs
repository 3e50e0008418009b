//! The process that makes processes.
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process};
use serde::{Deserialize, Serialize};

use crate::cgroup::Driver;
use crate::process::Pidfd;
use crate::rootfs::Mount;

/// The shim's end of the zygote. Jobs run side by side; replies come in the order they finish.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
    process: Pidfd,
}

/// Why the zygote could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {}

/// Why a job failed: the step, what it was about, and what the kernel answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// What kind of failure it is, for the caller's error code.
    pub kind: JobErrorKind,
    /// What was being done, to what, what the kernel answered, and what to do next.
    pub message: String,
}

/// The failures a caller answers differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobErrorKind {
    /// Something named in the request is not there: rootfs, namespace, executable.
    NotFound,
    /// The request makes no sense: a broken spec, an executable that may not be executed.
    Invalid,
    /// The kernel refused.
    Failed,
}

/// A job for the zygote.
#[derive(Debug)]
pub enum Job {
    /// Mounts the root filesystem and makes the container's init, which then waits for [`start`].
    Create(Create),
    /// Runs a further process in a container.
    Exec(Exec),
    /// Makes namespaces and pins them.
    Namespaces(Namespaces),
    /// Makes a pid namespace with a reaping init in it, and pins it.
    Holder(Holder),
    /// Changes a container's limits.
    Update(Update),
}

/// What a process's descriptors 0, 1 and 2 are; `None` is /dev/null.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Read by the process.
    pub stdin: Option<OwnedFd>,
    /// Written by the process.
    pub stdout: Option<OwnedFd>,
    /// Written by the process.
    pub stderr: Option<OwnedFd>,
}

/// Makes a container's init.
#[derive(Debug)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The shim's directory for the container. It holds `config.json`, the edited spec, whose
    /// `root.path` is absolute; libcontainer keeps its state and notify socket below it.
    pub dir: PathBuf,
    /// Where to mount `mounts`.
    pub rootfs: PathBuf,
    /// What to mount there, in order; empty when it is mounted already.
    pub mounts: Vec<Mount>,
    /// Ignored with `process.terminal`: then [`Done::console`] is the terminal's master.
    pub stdio: Stdio,
    /// Who makes the cgroup.
    pub driver: Driver,
    /// Bring `lo` up: the container's network namespace is new and its own.
    pub loopback: bool,
}

/// Runs a further process in a container.
#[derive(Debug)]
pub struct Exec {
    /// The container's init, whose namespaces, root and cgroup it joins.
    pub init: i32,
    /// What to run, as whom, where.
    pub process: Process,
    /// The container's seccomp profile: it binds further processes too.
    pub seccomp: Option<LinuxSeccomp>,
    /// Ignored with `process.terminal`.
    pub stdio: Stdio,
}

/// Makes namespaces in a short-lived process and pins each with a bind mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Namespaces to join first, such as the network namespace CNI made: kind (as in
    /// `/proc/PID/ns`) and path.
    pub join: Vec<(String, PathBuf)>,
    /// Namespaces to make: kind (as in `/proc/PID/ns`, not `pid`, not `mnt`) and pin.
    pub make: Vec<(String, PathBuf)>,
    /// The cgroup to be in when a cgroup namespace is made: it becomes that namespace's root.
    pub cgroup: Option<String>,
    /// Who makes that cgroup.
    pub driver: Driver,
    /// Host name for a new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name for a new UTS namespace.
    pub domainname: Option<String>,
    /// Sysctls to write once all are joined and made.
    pub sysctls: BTreeMap<String, String>,
    /// Clock offsets for a new time namespace: clock (`monotonic`, `boottime`) to seconds and
    /// nanoseconds.
    pub time_offsets: BTreeMap<String, (i64, u32)>,
    /// Bring `lo` up in a new network namespace.
    pub loopback: bool,
}

/// Makes a pid namespace with a reaping init in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Where to pin the pid namespace.
    pub pin: PathBuf,
    /// Namespaces the holder joins first: kind (as in `/proc/PID/ns`) and path.
    pub join: Vec<(String, PathBuf)>,
    /// The cgroup it lives in, that of the pod.
    pub cgroup: Option<String>,
    /// Who makes that cgroup.
    pub driver: Driver,
}

/// Changes a container's limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Update {
    /// The container's id.
    pub id: String,
    /// The cgroup as the spec named it.
    pub cgroups_path: String,
    /// Who made it.
    pub driver: Driver,
    /// The new limits; what is not named stays.
    pub resources: LinuxResources,
}

/// What a job made.
#[derive(Debug, Default)]
pub struct Done {
    /// The process that was made; a child of the shim by now.
    pub process: Option<Pidfd>,
    /// Create only: reads EOF once the process has executed, or the reason why it could not.
    pub started: Option<OwnedFd>,
    /// The terminal's master, with `process.terminal`.
    pub console: Option<OwnedFd>,
}

impl Zygote {
    /// Forks the zygote. The caller must be single-threaded and should be a child subreaper.
    ///
    /// # Errors
    /// More than one thread, or what socketpair(2) and fork(2) say.
    pub fn fork() -> Result<Self, ZygoteError> {
        todo!()
    }

    /// The zygote's process.
    #[must_use]
    pub fn process(&self) -> &Pidfd {
        &self.process
    }

    /// Hands a job over. `id` comes back with its result.
    ///
    /// # Errors
    /// The zygote is gone, or the request is larger than a message may be.
    pub fn send(&self, _id: u64, _job: Job) -> Result<(), ZygoteError> {
        todo!()
    }

    /// Takes the next result; `None` when there is none yet. [`AsFd`] is readable when there is.
    ///
    /// # Errors
    /// The zygote is gone.
    pub fn receive(&self) -> Result<Option<(u64, Result<Done, JobError>)>, ZygoteError> {
        todo!()
    }
}

impl AsFd for Zygote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets a created container's init execute: the other end of [`Create`].
///
/// # Errors
/// The init is gone.
pub fn start(_dir: &std::path::Path, _id: &str) -> std::io::Result<()> {
    todo!()
}
