//! What is known of a pod: its record, compared with what `/proc` and the cgroups say now.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use husk_node::process;
use husk_scope::record::{self, Exit, Status};
use husk_scope::{Kind, Scope};
use serde::{Serialize, Serializer};

use super::cgroups::{self, Cgroup, Hierarchies, Paths};

use super::links::{self, Link};
use super::sharing::{Inodes, Member, Namespaces};

/// A pod, as `husk inspect --json` writes it.
///
/// Fields are only ever added. Sizes are bytes, times milliseconds since 1970 or seconds of age;
/// scopes are written CONTAINER, POD, NODE, TARGET(container) and GROUP(name).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// The sandbox's id.
    pub(super) id: String,
    /// The pod's name; empty if it has none.
    pub(super) name: String,
    /// The containerd namespace.
    pub(super) namespace: String,
    /// The Kubernetes namespace; empty outside Kubernetes.
    pub(super) kubernetes_namespace: String,
    /// The pod's uid in Kubernetes; empty outside.
    pub(super) uid: String,
    /// Whether the Sandbox API made it.
    pub(super) sandbox_api: bool,
    /// When the sandbox was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// How long ago that is.
    pub(super) age_seconds: u64,
    /// What is not as it should be; empty if all is well.
    pub(super) warnings: Vec<String>,
    /// The inodes of the node's namespaces.
    pub(super) node: Inodes,
    /// What the containers share, and who serves them.
    pub(super) sandbox: Sandbox,
    /// The containers, in the order they were made.
    pub(super) containers: Vec<Container>,
    /// The ports that lead from one network to another.
    pub(super) links: Vec<Link>,
}

impl Report {
    /// The containers that have a process.
    pub(super) fn live(&self) -> Vec<&Container> {
        let containers = self.containers.iter();
        containers
            .filter(|container| container.pid.is_some())
            .collect()
    }
}

/// What the pod's containers share, and the processes that serve them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Sandbox {
    /// The namespaces that are kept for the pod.
    pub(super) namespaces: Vec<Kept>,
    /// The shim, its zygote and the holders.
    pub(super) processes: Vec<Part>,
    /// The cgroup right above the containers'; null if the pod has none.
    pub(super) cgroup: Option<Cgroup>,
    /// Directories that the shim mounted for the sandbox.
    pub(super) mounts: Vec<PathBuf>,
    /// The socket that containerd talks to.
    pub(super) socket: PathBuf,
}

/// A namespace that is kept for the pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Kept {
    /// The namespace's kind.
    pub(super) kind: Kind,
    /// POD or GROUP(name).
    #[serde(serialize_with = "shown")]
    pub(super) scope: Scope,
    /// The path by which containers join it.
    pub(super) path: PathBuf,
    /// Its inode; null when the path is gone.
    pub(super) inode: Option<u64>,
    /// Whether the shim pinned it; otherwise whoever made the pod keeps it.
    pub(super) pinned: bool,
    /// The pid of the process that keeps a pid namespace alive.
    pub(super) holder: Option<i32>,
    /// The /dev/shm that belongs to an IPC namespace.
    pub(super) shm: Option<PathBuf>,
}

/// A process that serves the pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Part {
    /// `shim`, `zygote`, `holder` or `relay`.
    pub(super) role: String,
    /// Its pid.
    pub(super) pid: i32,
    /// Whether it lives.
    pub(super) alive: bool,
    /// Resident memory, shared pages included.
    pub(super) rss_bytes: Option<u64>,
    /// Memory that it alone has and has written: what it costs.
    pub(super) private_dirty_bytes: Option<u64>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Container {
    /// The id containerd gave.
    pub(super) id: String,
    /// The name in the pod.
    pub(super) name: String,
    /// Whether this container is the sandbox: the pause container of a Kubernetes pod.
    pub(super) is_sandbox: bool,
    /// Where it is in its life, as recorded.
    pub(super) status: Status,
    /// The pid of its init; null when it has none or it is gone.
    pub(super) pid: Option<i32>,
    /// How long its init has lived.
    pub(super) age_seconds: Option<u64>,
    /// How its init ended.
    pub(super) exit: Option<Exit>,
    /// Whose namespaces it uses, in the order of tables.
    pub(super) namespaces: Vec<Use>,
    /// Its cgroup; null when that is gone.
    pub(super) cgroup: Option<Cgroup>,
    /// Its processes.
    pub(super) processes: Vec<Process>,
}

/// A container's use of one kind of namespace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Use {
    /// The namespace's kind.
    pub(super) kind: Kind,
    /// What containerd asked for.
    #[serde(serialize_with = "shown")]
    pub(super) requested: Scope,
    /// What was planned.
    #[serde(serialize_with = "shown")]
    pub(super) planned: Scope,
    /// Who decided: `request`, `configuration` or `policy NAME`.
    pub(super) by: String,
    /// What it is, told from inodes; null when its init is gone or the kernel lacks the kind.
    #[serde(serialize_with = "maybe_shown")]
    pub(super) actual: Option<Scope>,
    /// The inode.
    pub(super) inode: Option<u64>,
    /// The other containers in the same namespace.
    pub(super) with: Vec<String>,
    /// False when it is not what was planned.
    pub(super) as_planned: bool,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Process {
    /// The pid on the node.
    pub(super) pid: i32,
    /// The pid in its own pid namespace.
    pub(super) inner_pid: Option<i32>,
    /// `init`, `exec ID`, or empty for what these started.
    pub(super) role: String,
    /// Resident memory.
    pub(super) rss_bytes: Option<u64>,
    /// The command line.
    pub(super) command: String,
}

fn shown<S: Serializer>(scope: &Scope, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(scope)
}

fn maybe_shown<S: Serializer>(scope: &Option<Scope>, serializer: S) -> Result<S::Ok, S::Error> {
    match scope {
        Some(scope) => serializer.collect_str(scope),
        None => serializer.serialize_none(),
    }
}

/// Looks at everything the record names.
pub(super) fn look(pod: &record::Pod) -> Report {
    let hierarchies = Hierarchies::of_node();
    let kept: Vec<_> = pod
        .namespaces
        .iter()
        .map(|namespace| kept(pod, namespace))
        .collect();
    let namespaces = namespaces(pod, &kept);
    let cgroups: Vec<_> = pod
        .containers
        .iter()
        .map(|container| container_cgroup(pod, container))
        .collect();
    let mut containers = Vec::new();
    for ((container, member), paths) in pod.containers.iter().zip(&namespaces.members).zip(&cgroups)
    {
        containers.push(Container {
            id: container.id.clone(),
            name: container.name.clone(),
            is_sandbox: member.is_sandbox,
            status: container.status,
            pid: living(container.init).map(|init| init.pid),
            age_seconds: living(container.init).and_then(|init| process::age(init).ok()),
            exit: container.exit,
            namespaces: Kind::ALL
                .map(|kind| usage(&namespaces, member, kind))
                .into(),
            cgroup: hierarchies.read(paths),
            processes: processes(container, &hierarchies.pids(paths)),
        });
    }
    let of_all: Vec<_> = cgroups.iter().collect();
    // Without a parent on record, what is above the containers belongs to others too.
    let above = if pod.cgroup_parent.is_empty() {
        Paths::new()
    } else {
        cgroups::common_parent(&of_all)
    };
    let mut report = Report {
        id: pod.id.clone(),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        kubernetes_namespace: pod.kubernetes_namespace.clone(),
        uid: pod.uid.clone(),
        sandbox_api: pod.sandbox_api,
        created_ms: pod.created_ms,
        age_seconds: now_ms().saturating_sub(pod.created_ms) / 1000,
        warnings: Vec::new(),
        node: namespaces.node.clone(),
        sandbox: Sandbox {
            namespaces: kept,
            processes: parts(pod),
            cgroup: hierarchies.read(&above),
            mounts: pod.mounts.clone(),
            socket: pod.socket.clone(),
        },
        containers,
        links: links::of(pod),
    };
    report.warnings = warnings(pod, &report, &namespaces);
    report
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn living(process: Option<record::Process>) -> Option<record::Process> {
    process.filter(|process| process::is_alive(*process))
}

fn inodes(pid: i32) -> Inodes {
    Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, process::namespace(pid, kind)?)))
        .collect()
}

fn kept(pod: &record::Pod, namespace: &record::Namespace) -> Kept {
    let observer = living(pod.shim).map_or(1, |shim| shim.pid);
    Kept {
        kind: namespace.kind,
        scope: namespace.scope.clone(),
        path: namespace.path.clone(),
        inode: process::inode_seen_by(observer, &namespace.path),
        pinned: namespace.pinned,
        holder: namespace.holder.map(|holder| holder.pid),
        shm: namespace.shm.clone(),
    }
}

/// Everyone's namespaces. The node's are the shim's: that is what NODE gives a container.
fn namespaces<'a>(pod: &'a record::Pod, kept: &[Kept]) -> Namespaces<'a> {
    let members = pod.containers.iter().map(|container| Member {
        name: &container.name,
        is_sandbox: container.id == pod.id
            && !pod.sandbox_api
            && !pod.kubernetes_namespace.is_empty(),
        plan: &container.plan,
        inodes: living(container.init)
            .map(|init| inodes(init.pid))
            .unwrap_or_default(),
    });
    let node = living(pod.shim).map_or(1, |shim| shim.pid);
    Namespaces {
        node: inodes(node),
        kept: kept
            .iter()
            .filter_map(|kept| Some((kept.kind, kept.scope.clone(), kept.inode?)))
            .collect(),
        members: members.collect(),
    }
}

fn usage(namespaces: &Namespaces<'_>, member: &Member<'_>, kind: Kind) -> Use {
    let planned = member.plan.get(kind);
    let actual = namespaces.actual(member, kind);
    Use {
        kind,
        requested: planned.requested.clone(),
        planned: planned.scope.clone(),
        by: planned.by.clone(),
        inode: actual.as_ref().map(|actual| actual.inode),
        with: actual
            .as_ref()
            .map(|actual| actual.with.clone())
            .unwrap_or_default(),
        actual: actual.map(|actual| actual.scope),
        as_planned: namespaces.difference(member, kind).is_none(),
    }
}

/// The cgroup on record, else the one its init was put in.
fn container_cgroup(pod: &record::Pod, container: &record::Container) -> Paths {
    let mut paths = container.cgroups.clone();
    if let (true, Some(init)) = (paths.is_empty(), living(container.init)) {
        // A hierarchy in which it is where the shim is, is one where it was never put anywhere.
        let shim = living(pod.shim)
            .map(|shim| cgroups::of(shim.pid))
            .unwrap_or_default();
        paths = cgroups::of(init.pid);
        paths.retain(|hierarchy, path| shim.get(hierarchy) != Some(path));
    }
    // The root is everyone's.
    paths.retain(|_, path| path.as_os_str() != "/");
    paths
}

fn processes(container: &record::Container, of_cgroup: &[i32]) -> Vec<Process> {
    let mut roles = BTreeMap::new();
    for (id, exec) in &container.execs {
        if let Some(exec) = living(*exec) {
            roles.insert(exec.pid, format!("exec {id}"));
        }
    }
    if let Some(init) = living(container.init) {
        roles.insert(init.pid, "init".to_owned());
    }
    let pids: BTreeSet<_> = of_cgroup.iter().chain(roles.keys()).copied().collect();
    pids.into_iter()
        .filter_map(|pid| {
            Some(Process {
                pid,
                inner_pid: process::inner_pid(pid),
                role: roles.get(&pid).cloned().unwrap_or_default(),
                rss_bytes: process::memory(pid).map(|memory| memory.rss),
                command: process::command(pid)?,
            })
        })
        .collect()
}

fn parts(pod: &record::Pod) -> Vec<Part> {
    let holders = pod
        .namespaces
        .iter()
        .filter_map(|namespace| namespace.holder);
    let relays = pod.relays.iter().filter_map(|relay| relay.process);
    let named = [("shim", pod.shim), ("zygote", pod.zygote)];
    let named = named
        .into_iter()
        .filter_map(|(role, process)| Some((role, process?)));
    named
        .chain(holders.map(|holder| ("holder", holder)))
        .chain(relays.map(|relay| ("relay", relay)))
        .map(|(role, process)| {
            let alive = process::is_alive(process);
            let memory = alive.then(|| process::memory(process.pid)).flatten();
            Part {
                role: role.to_owned(),
                pid: process.pid,
                alive,
                rss_bytes: memory.map(|memory| memory.rss),
                private_dirty_bytes: memory.map(|memory| memory.private_dirty),
            }
        })
        .collect()
}

fn warnings(pod: &record::Pod, report: &Report, namespaces: &Namespaces<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for part in report.sandbox.processes.iter().filter(|part| !part.alive) {
        let consequence = match part.role.as_str() {
            "shim" => "nobody watches this pod; `husk rm` or containerd cleans it up",
            "zygote" => "no container and no exec can be started",
            _ => "its pid namespace is dead: no process can be started in it",
        };
        warnings.push(format!(
            "the {} (pid {}) is gone: {consequence}",
            part.role, part.pid
        ));
    }
    for kept in report
        .sandbox
        .namespaces
        .iter()
        .filter(|kept| kept.inode.is_none())
    {
        let path = kept.path.display();
        warnings.push(format!(
            "the {} {} namespace is gone from {path}",
            kept.scope, kept.kind
        ));
    }
    for (container, seen) in pod.containers.iter().zip(&report.containers) {
        let should_live = matches!(
            container.status,
            Status::Created | Status::Running | Status::Paused
        );
        if let (true, None, Some(init)) = (should_live, seen.pid, container.init) {
            warnings.push(format!(
                "{}: recorded as {}, but its init (pid {}) is gone",
                container.name,
                status(container.status),
                init.pid
            ));
        }
        if let Some(kills) = seen
            .cgroup
            .as_ref()
            .and_then(|cgroup| cgroup.oom_kills)
            .filter(|kills| *kills > 0)
        {
            let processes = if kills == 1 { "process" } else { "processes" };
            warnings.push(format!(
                "{}: the kernel killed {kills} {processes} for want of memory; its limit may be \
                 too low",
                container.name
            ));
        }
    }
    let pairs = namespaces
        .members
        .iter()
        .flat_map(|member| Kind::ALL.map(|kind| (member, kind)));
    warnings.extend(pairs.filter_map(|(member, kind)| namespaces.difference(member, kind)));
    warnings
}

/// The word for a status.
pub(super) const fn status(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped => "stopped",
    }
}
