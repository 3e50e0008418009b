//! The process that makes processes.
//!
//! The shim forks the zygote while it is single-threaded; the zygote forks a *builder* for every
//! job, which does the work, reports and exits. What a builder leaves behind (a container's init)
//! is then reparented to the shim, the nearest subreaper.
mod builder;
mod error;
mod protocol;
mod serve;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, fork};
use oci_spec::runtime::{LinuxResources, Process};
use serde::{Deserialize, Serialize};

pub(crate) use self::builder::Report;
pub(crate) use self::error::{Doing, Leftovers};
pub use self::error::{JobError, JobErrorKind, ZygoteError};
use crate::cgroup::{self, Driver};
use crate::hooks::Hooks;
use crate::process::Pidfd;
pub use crate::program::Inherited;
use crate::rootfs::Mount;

/// The shim's end of the zygote. Jobs run side by side; replies come in the order they finish.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
    process: Pidfd,
}

/// A job for the zygote.
#[derive(Debug, Serialize, Deserialize)]
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
    /// Has links carried, by a relay that it makes or by one that is there.
    Relay(Relay),
    /// Runs a container's hooks, of a kind that runs on the node: poststart or poststop.
    Hooks(Hooks),
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
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The directory that the container was made from, for its hooks.
    pub bundle: PathBuf,
    /// The shim's directory for the container. It holds `config.json`, the edited spec, whose
    /// `root.path` is absolute; what init waits at until its start is made there.
    pub dir: PathBuf,
    /// Where to mount `mounts`.
    pub rootfs: PathBuf,
    /// What to mount there, in order; empty when it is mounted already.
    pub mounts: Vec<Mount>,
    /// Ignored with `process.terminal`: then [`Done::console`] is the terminal's master.
    #[serde(skip)]
    pub stdio: Stdio,
    /// Who makes the cgroup.
    pub driver: Driver,
    /// Bring `lo` up: the container's network namespace is new and its own.
    pub loopback: bool,
}

/// Runs a further process in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// What binds all processes of the container.
    pub container: Box<Inherited>,
    /// The container's init, whose namespaces, root and cgroup it joins.
    pub init: i32,
    /// What to run, as whom, where.
    pub process: Process,
    /// Ignored with `process.terminal`.
    #[serde(skip)]
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
    /// The pod's cgroup; it lives below that, in [`Holder::cgroups_path`].
    pub cgroup: Option<String>,
    /// Who makes that cgroup.
    pub driver: Driver,
}

/// Has links carried that lead to one network namespace: by a new relay, or by the one whose control
/// socket it is. All of them, or none.
#[derive(Debug, Serialize, Deserialize)]
pub struct Relay {
    /// What tells this relay from all others of the node.
    pub id: String,
    /// Where the links lead to.
    pub network: NetworkNamespace,
    /// Where they lead from.
    pub listen: Vec<Listen>,
    /// The control socket of the relay that is there; `None` makes one.
    #[serde(skip)]
    pub control: Option<OwnedFd>,
    /// The pod's cgroup; a new relay lives below that, in [`Relay::cgroups_path`].
    pub cgroup: Option<String>,
    /// Who makes that cgroup.
    pub driver: Driver,
}

/// A network namespace that is not the node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNamespace {
    /// Whose it is, for errors: completes "the network namespace of …".
    pub whose: String,
    /// The path by which it is joined.
    pub path: PathBuf,
    /// Its inode: the path may lead to another by the time it is opened.
    pub inode: u64,
}

/// The ports to listen on in a network namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// Where.
    pub network: NetworkNamespace,
    /// Link by link.
    pub ports: Vec<Port>,
}

/// One link's port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Port {
    /// The link's number, by which the relay is told of it.
    pub link: u32,
    /// The port to listen on.
    pub port: u16,
    /// On every address, not on the loopback addresses alone.
    pub exposed: bool,
    /// Datagrams, not connections.
    pub datagrams: bool,
    /// The port to connect to.
    pub to_port: u16,
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
    /// Relay only: the control socket of the one that was made.
    pub control: Option<OwnedFd>,
}

/// The id of a job, and what came of it.
pub type Finished = (u64, Result<Done, JobError>);

impl Zygote {
    /// Forks the zygote, which lives as long as the thread that calls this.
    ///
    /// The caller must be single-threaded, and a child subreaper by the time of the first job: the
    /// processes that jobs make are to become its children.
    ///
    /// # Errors
    /// More than one thread, or what socketpair(2) and fork(2) say.
    pub fn fork() -> Result<Self, ZygoteError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(ZygoteError::Threads)?
            .count();
        if threads != 1 {
            return Err(ZygoteError::Threaded { threads });
        }
        let (ours, its) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| ZygoteError::Socket(errno.into()))?;
        let parent = std::process::id();
        // SAFETY: this process has one thread, so the child's memory is in no half-changed state.
        match unsafe { fork() }.map_err(|errno| ZygoteError::Fork(errno.into()))? {
            ForkResult::Child => serve::run(parent, its),
            ForkResult::Parent { child } => {
                let process = Pidfd::open(child.as_raw()).map_err(ZygoteError::Pidfd)?;
                Ok(Self {
                    socket: ours,
                    process,
                })
            }
        }
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
    pub fn send(&self, id: u64, mut job: Job) -> Result<(), ZygoteError> {
        let stdio = job.take_stdio();
        protocol::send_job(self.socket.as_raw_fd(), id, &job, &stdio).map_err(ZygoteError::Send)
    }

    /// Takes the next result; `None` when there is none yet. [`AsFd`] is readable when there is.
    ///
    /// # Errors
    /// The zygote is gone.
    pub fn receive(&self) -> Result<Option<Finished>, ZygoteError> {
        match protocol::receive_result(self.socket.as_raw_fd()) {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(ZygoteError::Receive(error)),
        }
    }
}

impl AsFd for Zygote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Holder {
    /// The cgroup the holder lives in, as a spec would name it: one of its own below the pod's, as
    /// cgroup v2 lets no process into one that hands controllers down. Whoever ends the holder
    /// removes it.
    #[must_use]
    pub fn cgroups_path(&self) -> Option<String> {
        // The name of a systemd unit is the node's: the pin tells holders of all pods apart.
        below_pod(self.cgroup.as_deref()?, "holder", &self.pin)
    }
}

impl Relay {
    /// The cgroup that a new relay lives in, as a spec would name it. Whoever ends the relay removes it.
    #[must_use]
    pub fn cgroups_path(&self) -> Option<String> {
        below_pod(self.cgroup.as_deref()?, "relay", &self.id)
    }
}

fn below_pod(pod: &str, what: &str, unique: impl Hash) -> Option<String> {
    let mut hasher = DefaultHasher::new();
    unique.hash(&mut hasher);
    let name = format!("{what}-{:016x}", hasher.finish());
    Some(cgroup::below(pod, &name))
}

impl Job {
    fn take_stdio(&mut self) -> Stdio {
        match self {
            Self::Create(Create { stdio, .. }) | Self::Exec(Exec { stdio, .. }) => {
                std::mem::take(stdio)
            }
            // The one descriptor it has travels as the first of them.
            Self::Relay(relay) => Stdio {
                stdin: relay.control.take(),
                ..Stdio::default()
            },
            Self::Namespaces(_) | Self::Holder(_) | Self::Update(_) | Self::Hooks(_) => {
                Stdio::default()
            }
        }
    }

    fn give_stdio(&mut self, given: Stdio) {
        match self {
            Self::Create(Create { stdio, .. }) | Self::Exec(Exec { stdio, .. }) => *stdio = given,
            Self::Relay(relay) => relay.control = given.stdin,
            Self::Namespaces(_) | Self::Holder(_) | Self::Update(_) | Self::Hooks(_) => {}
        }
    }
}

/// Lets a created container's init execute: the other end of [`Create`].
///
/// # Errors
/// The init is gone.
pub fn start(dir: &Path) -> io::Result<()> {
    crate::init::start(dir)
}
