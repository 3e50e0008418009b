//! A Pod as the engine runs it: typed, with nothing left to parse.
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::network::Published;

/// A pod to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, `default` if unset.
    pub namespace: String,
    /// `metadata.uid`, or the one that was made up.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.hostname`, the pod's name if unset.
    pub hostname: String,
    /// The node's network namespace; otherwise one of the pod's own.
    pub host_network: bool,
    /// Ports of the node that are to lead to the pod: `hostPort` and `hostIP` of its containers.
    pub host_ports: Vec<Published>,
    /// The node's pid namespace.
    pub host_pid: bool,
    /// The node's ipc namespace.
    pub host_ipc: bool,
    /// One pid namespace for all containers.
    pub share_process_namespace: bool,
    /// Further lines of /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// How names are resolved.
    pub dns: Dns,
    /// What happens when a container exits.
    pub restart_policy: RestartPolicy,
    /// How long a container may take to end after its stop signal.
    pub grace: Duration,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// `spec.securityContext.fsGroup`: the group that owns the pod's emptyDir volumes.
    pub fs_group: Option<u32>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Containers that run one after the other before the others.
    pub init_containers: Vec<Container>,
    /// Containers that run side by side.
    pub containers: Vec<Container>,
    /// What the file says that is left aside, in words.
    pub left_aside: Vec<String>,
}

/// A line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Whether the node's resolv.conf comes first; not with `dnsPolicy: None`.
    pub from_node: bool,
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains to search.
    pub searches: Vec<String>,
    /// Options as resolv.conf has them, such as `ndots:5`.
    pub options: Vec<String>,
}

/// What happens when a container exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// It is started again.
    Always,
    /// It is started again if it failed.
    OnFailure,
    /// It stays as it is.
    Never,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// An empty directory that lives as long as the pod.
    EmptyDir(EmptyDir),
    /// A file or directory of the node.
    HostPath {
        /// Its absolute path.
        path: PathBuf,
        /// What it must be.
        kind: HostPathType,
    },
    /// Files of a ConfigMap or a Secret; they cannot be written.
    Files {
        /// By their paths in the volume.
        files: BTreeMap<PathBuf, VolumeFile>,
        /// Whether they must not be on a disk.
        secret: bool,
    },
}

/// A file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// What it holds.
    pub content: Vec<u8>,
    /// The bits of chmod(2).
    pub mode: u32,
}

/// Not what it holds: it may be secret.
impl fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, mode {:o}", self.content.len(), self.mode)
    }
}

/// An empty directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyDir {
    /// On the node's disk.
    Disk,
    /// A tmpfs, whose pages count as memory of the container that wrote them.
    Memory {
        /// The most it may hold, in bytes; the kernel's default (half of the memory) if `None`.
        size: Option<u64>,
    },
}

/// What a hostPath must be before the pod starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathType {
    /// Anything.
    Unset,
    /// A directory, made if missing.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// A file, made if missing.
    FileOrCreate,
    /// A file.
    File,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A container to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// Where its root comes from.
    pub image: String,
    /// When the image is fetched.
    pub pull_policy: PullPolicy,
    /// Replaces the image's entrypoint; `$(NAME)` is expanded.
    pub command: Vec<String>,
    /// Replaces the image's arguments; `$(NAME)` is expanded.
    pub args: Vec<String>,
    /// Environment, in order, expanded.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<PathBuf>,
    /// Its share of the node.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// Where volumes appear in it.
    pub mounts: Vec<VolumeMount>,
    /// Whether it is an init container that keeps running beside the others.
    pub sidecar: bool,
    /// Whether its input stays open; otherwise there is none.
    pub stdin: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Done once it has been started; if it fails, the container ends.
    pub post_start: Option<Action>,
    /// Done before it is asked to end.
    pub pre_stop: Option<Action>,
    /// While this fails, the others are not asked; when it fails for good, the container ends.
    pub startup: Option<Probe>,
    /// When this fails, the container ends.
    pub liveness: Option<Probe>,
    /// Whether the container is ready.
    pub readiness: Option<Probe>,
}

/// What a hook does, or a probe tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a command in the container.
    Exec(Vec<String>),
    /// Asks for a page; a status from 200 to 399 is success.
    Http {
        /// Whom; the pod itself if `None`.
        host: Option<String>,
        /// At which port.
        port: u16,
        /// For what.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// Connects.
    Tcp {
        /// To whom; the pod itself if `None`.
        host: Option<String>,
        /// To which port.
        port: u16,
    },
    /// Waits.
    Sleep(Duration),
}

/// How a container is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is tried.
    pub action: Action,
    /// How long to wait before the first time.
    pub delay: Duration,
    /// How long between two times.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// After so many failures in a row it has failed.
    pub failures: u32,
    /// After so many successes in a row it has succeeded.
    pub successes: u32,
    /// How long the container may take to end, if not as long as the pod says.
    pub grace: Option<Duration>,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time.
    Always,
    /// When the store does not have it.
    IfNotPresent,
    /// Never: the store must have it.
    Never,
}

/// A container's share of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Requested CPU, thousandths of a core.
    pub cpu_request: Option<u64>,
    /// The most CPU, thousandths of a core.
    pub cpu_limit: Option<u64>,
    /// The most memory, bytes.
    pub memory_limit: Option<i64>,
}

/// What a container may do: its securityContext over the pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// The user; the image's if `None`.
    pub user: Option<u32>,
    /// The group; that of the user if `None`.
    pub group: Option<u32>,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Refuse to run as uid 0.
    pub non_root: bool,
    /// The root filesystem cannot be written.
    pub read_only_root: bool,
    /// Everything the node's root may do.
    pub privileged: bool,
    /// Changes to the default capabilities.
    pub capabilities: Capabilities,
    /// Whether executing a set-uid file may grant more than the container has.
    pub privilege_escalation: bool,
    /// The system call filter.
    pub seccomp: SeccompProfile,
    /// What of /proc is hidden.
    pub proc_mount: ProcMount,
}

/// Changes to the default capabilities, without the `CAP_` prefix; `ALL` is every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Dropped.
    pub drop: Vec<String>,
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeccompProfile {
    /// The default filter. Kubernetes calls this `seccompDefault` of the kubelet.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A file in the OCI runtime spec's `linux.seccomp` form.
    Localhost(PathBuf),
}

/// What of /proc is hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcMount {
    /// The paths that tell about or change the node.
    #[default]
    Default,
    /// Nothing.
    Unmasked,
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume's name.
    pub volume: String,
    /// Where in the container.
    pub path: PathBuf,
    /// A relative path in the volume.
    pub sub_path: Option<PathBuf>,
    /// It cannot be written.
    pub read_only: bool,
    /// Nor can the mounts below it.
    pub recursive_read_only: bool,
    /// Which later mounts are seen.
    pub propagation: Propagation,
}

/// Which later mounts are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// None.
    #[default]
    None,
    /// The container sees the node's.
    HostToContainer,
    /// Each sees the other's.
    Bidirectional,
}
