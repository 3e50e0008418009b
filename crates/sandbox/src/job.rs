//! Jobs: what the zygote is asked to make, and what it answers.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxIdMapping, LinuxMemoryPolicy, LinuxPersonality, LinuxResources, LinuxSeccomp, Process,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Driver};
use crate::hooks::Hooks;
use crate::process::Pidfd;
use crate::rootfs::Mount;

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
    /// Show its owners by the ids of the container's user namespace, which `linux` maps: the files are
    /// those of the node's users, and new ones will be.
    pub maps_rootfs: bool,
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

/// What of a container's spec every process of it takes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inherited {
    /// The container's id, by which its session keyring is named.
    pub id: String,
    /// Where its config.json is.
    pub bundle: PathBuf,
    /// `linux.seccomp`.
    pub seccomp: Option<LinuxSeccomp>,
    /// `linux.personality`.
    pub personality: Option<LinuxPersonality>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<LinuxMemoryPolicy>,
}

/// Makes namespaces in a short-lived process and pins each with a bind mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Namespaces to join first, such as the network namespace CNI made: kind (as in
    /// `/proc/PID/ns`) and path.
    pub join: Vec<(String, PathBuf)>,
    /// Namespaces to make: kind (as in `/proc/PID/ns`, not `pid`, not `mnt`) and pin. A user
    /// namespace owns the others; with a network namespace that is joined it is the one that owns
    /// that, and is joined instead of made.
    pub make: Vec<(String, PathBuf)>,
    /// The ids of a user namespace: users, groups.
    pub id_mappings: (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>),
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
    pub(crate) fn take_stdio(&mut self) -> Stdio {
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

    pub(crate) fn give_stdio(&mut self, given: Stdio) {
        match self {
            Self::Create(Create { stdio, .. }) | Self::Exec(Exec { stdio, .. }) => *stdio = given,
            Self::Relay(relay) => relay.control = given.stdin,
            Self::Namespaces(_) | Self::Holder(_) | Self::Update(_) | Self::Hooks(_) => {}
        }
    }
}
