//! What a pod is made of, as written to `/run/husk/NAMESPACE/SANDBOX/pod.json`.
//!
//! The shim writes it before each effect, so that whatever may exist is always on record:
//! `delete` after a `kill -9`, `husk inspect` and `husk ps` read it. Fields are only ever added.
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::links::{Joined, Network};
use crate::{Ids, Kind, Plan, Scope};

/// Where the records of all pods are: one directory per containerd namespace and sandbox.
pub const STATE_DIR: &str = "/run/husk";

/// The file in a pod's directory that holds its [`Pod`].
pub const FILE: &str = "pod.json";

/// A pod: its sandbox and its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The sandbox's id.
    pub id: String,
    /// The containerd namespace.
    pub namespace: String,
    /// The pod's name, if whoever made it said one.
    #[serde(default)]
    pub name: String,
    /// The Kubernetes namespace, empty outside Kubernetes.
    #[serde(default)]
    pub kubernetes_namespace: String,
    /// The pod's uid in Kubernetes, empty outside.
    #[serde(default)]
    pub uid: String,
    /// The shim's process.
    #[serde(default)]
    pub shim: Option<Process>,
    /// The zygote's process.
    #[serde(default)]
    pub zygote: Option<Process>,
    /// The socket containerd talks to, without `unix://`.
    #[serde(default)]
    pub socket: PathBuf,
    /// Whether the Sandbox API made this pod; otherwise its first container did.
    #[serde(default)]
    pub sandbox_api: bool,
    /// Whether the pod is gone, and its shim about to end.
    #[serde(default)]
    pub ending: bool,
    /// When the sandbox was made, in milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
    /// The cgroup that holds the containers' cgroups, as the spec names it; empty if unknown.
    #[serde(default)]
    pub cgroup_parent: String,
    /// Namespaces that the shim made and keeps, POD and GROUP.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// Directories mounted by the shim for the sandbox, such as its /dev/shm; unmounted last.
    #[serde(default)]
    pub mounts: Vec<PathBuf>,
    /// The containers, in the order they were made.
    #[serde(default)]
    pub containers: Vec<Container>,
    /// The relays that carry the pod's links.
    #[serde(default)]
    pub relays: Vec<Relay>,
}

/// A process that may still live; the start time tells it from a later one with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The pid as the node sees it.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
}

/// A namespace that the shim made and keeps for the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// The namespace's kind.
    pub kind: Kind,
    /// POD or GROUP.
    pub scope: Scope,
    /// The path by which others join it: a pin, or one that containerd gave.
    pub path: PathBuf,
    /// Whether the shim pinned it with a bind mount, and so must unpin it.
    pub pinned: bool,
    /// The holder, for a pid namespace.
    #[serde(default)]
    pub holder: Option<Process>,
    /// The /dev/shm that belongs to an IPC namespace.
    #[serde(default)]
    pub shm: Option<PathBuf>,
    /// The ids that were given to a user namespace, and are to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
}

/// A process that carries links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// What tells it from all others of the node.
    pub id: String,
    /// The process, once made.
    #[serde(default)]
    pub process: Option<Process>,
    /// Where its links lead to, and so where it lives.
    pub to: Network,
    /// Its cgroup, as a spec would name it; empty if it has none of its own.
    #[serde(default)]
    pub cgroup: String,
    /// What it carries, once made.
    #[serde(default)]
    pub links: Vec<Carried>,
}

/// A link that is carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The link.
    #[serde(flatten)]
    pub link: Joined,
    /// The container that has it; the first one, of several.
    pub container: String,
    /// Who decided.
    pub by: String,
}

/// A container of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The id containerd gave.
    pub id: String,
    /// The name in the pod, the id if it has none.
    pub name: String,
    /// The directory containerd made for it.
    pub bundle: PathBuf,
    /// The mounted root filesystem.
    pub rootfs: PathBuf,
    /// The shim's directory for it: edited spec, notify socket.
    pub dir: PathBuf,
    /// Where it is in its life.
    pub status: Status,
    /// Its init, once made.
    #[serde(default)]
    pub init: Option<Process>,
    /// Further processes by exec id.
    #[serde(default)]
    pub execs: BTreeMap<String, Option<Process>>,
    /// Its cgroup as `/proc/PID/cgroup` names it: hierarchy (empty for v2) to path.
    #[serde(default)]
    pub cgroups: BTreeMap<String, PathBuf>,
    /// The cgroup its spec asked for.
    #[serde(default)]
    pub cgroups_path: String,
    /// Whose namespaces it uses, and who decided.
    pub plan: Plan,
    /// The ids that were given to its user namespace, and are to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
    /// The exit status, once exited.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Recorded, not yet made.
    Creating,
    /// Made, waiting for start.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Its init has exited.
    Stopped,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, 128 + signal when a signal ended it (contract 36).
    pub code: u32,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assignment, Ceiling, Scopes};

    fn pod() -> Pod {
        let assigned = Assignment {
            kind: Kind::Pid,
            scope: Scope::Target("app".to_owned()),
            by: "policy p".to_owned(),
        };
        let mut requested = Scopes::all(&Scope::Container);
        requested[Kind::User] = Scope::Node;
        let container = Container {
            id: "c1".to_owned(),
            name: "sidecar".to_owned(),
            bundle: "/run/bundle".into(),
            rootfs: "/run/bundle/rootfs".into(),
            dir: "/run/husk/k8s.io/s1/c1".into(),
            status: Status::Running,
            init: Some(Process {
                pid: 7,
                start_time: 8,
            }),
            execs: BTreeMap::from([("e1".to_owned(), None)]),
            cgroups: BTreeMap::from([(String::new(), "/kubepods/c1".into())]),
            cgroups_path: "/kubepods/c1".to_owned(),
            plan: Plan::new(&requested, &[assigned], &Ceiling::default()).unwrap(),
            ids: None,
            exit: None,
        };
        Pod {
            id: "s1".to_owned(),
            namespace: "k8s.io".to_owned(),
            namespaces: vec![Namespace {
                kind: Kind::Ipc,
                scope: Scope::Group("g".to_owned()),
                path: "/run/husk/k8s.io/s1/ipc".into(),
                pinned: true,
                holder: None,
                shm: Some("/run/husk/k8s.io/s1/shm".into()),
                ids: None,
            }],
            containers: vec![container],
            ..Pod::default()
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let json = serde_json::to_string(&pod()).unwrap();
        assert_eq!(serde_json::from_str::<Pod>(&json).unwrap(), pod());
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let mut json = serde_json::to_value(pod()).unwrap();
        json["later"] = true.into();
        json["containers"][0]["later"] = true.into();
        json["containers"][0]["plan"]["later"] = true.into();
        json["containers"][0]["plan"]["pid"]["later"] = true.into();
        json["namespaces"][0]["later"] = true.into();
        assert_eq!(serde_json::from_value::<Pod>(json).unwrap(), pod());
    }

    #[test]
    fn a_plan_is_written_by_kind() {
        let json = serde_json::to_value(pod()).unwrap();
        assert_eq!(
            json["containers"][0]["plan"]["pid"],
            serde_json::json!({
                "requested": "container",
                "scope": { "target": "app" },
                "by": "policy p",
            })
        );
    }
}
