//! The pod that would be, as its containers' specs see it.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use husk_scope::{Ids, Kind, Known, Paths, Plan, Ranges, Scope, Scopes};
use oci_spec::runtime::Spec;

/// Stands for every namespace of the node.
const NODE: &str = "/proc/self/ns";

/// Stands for the directory of what the shim makes for the pod.
const MADE: &str = "/run/husk/planned";

/// The sandbox, and the containers planned so far.
pub(super) struct View {
    sandbox: Scopes,
    hostname: String,
    users: Ranges,
    made: BTreeMap<String, Made>,
}

struct Made {
    plan: Plan,
    shm: Option<PathBuf>,
}

impl View {
    pub(super) fn new(sandbox: Scopes, hostname: String, users: Ranges) -> Self {
        Self {
            sandbox,
            hostname,
            users,
            made: BTreeMap::new(),
        }
    }

    /// Whether the pod has a network of its own: POD or NODE.
    pub(super) fn network(&self) -> Scope {
        self.sandbox[Kind::Network].clone()
    }

    /// Takes in a container, with its edited spec. What it shares with the pod the sandbox has from
    /// then on: the shim makes it before the first container that is assigned it.
    pub(super) fn add(&mut self, name: &str, plan: &Plan, spec: &Spec) {
        for (kind, planned) in plan.iter() {
            if planned.scope == Scope::Pod {
                self.sandbox[kind] = Scope::Pod;
            }
        }
        let mounts = spec.mounts().iter().flatten();
        let mut shm = mounts.filter(|mount| mount.destination() == Path::new("/dev/shm"));
        let shm = shm.next().and_then(|mount| mount.source().clone());
        let made = Made {
            plan: plan.clone(),
            shm: shm.filter(|source| source.is_absolute()),
        };
        self.made.insert(name.to_owned(), made);
    }
}

impl Known for View {
    fn is_sandbox(&self, _: Kind, path: &Path) -> bool {
        path.starts_with("/proc/0")
    }

    fn container(&self, _: Kind, _: &Path) -> Option<String> {
        // A manifest names no container's namespace.
        None
    }

    fn is_node(&self, kind: Kind, path: &Path) -> bool {
        path.starts_with("/proc/0") && self.sandbox[kind] != Scope::Pod
    }
}

impl Paths for View {
    fn namespace(&self, kind: Kind, scope: &Scope) -> Option<PathBuf> {
        let place = match scope {
            Scope::Target(name) => match &self.made.get(name)?.plan.get(kind).scope {
                Scope::Node => PathBuf::from(NODE),
                Scope::Container => Path::new(MADE).join(name),
                further => return self.namespace(kind, further),
            },
            Scope::Group(name) => Path::new(MADE).join("groups").join(name),
            _ => PathBuf::from(MADE),
        };
        Some(place.join(kind.proc_name()))
    }

    fn is_node(&self, _: Kind, path: &Path) -> bool {
        path.starts_with(NODE)
    }

    fn shm(&self, scope: &Scope) -> Option<PathBuf> {
        match scope {
            Scope::Target(name) => self.made.get(name)?.shm.clone(),
            _ => Some(Path::new(MADE).join("shm")),
        }
    }

    fn ids(&self, _: &Scope) -> Option<Ids> {
        // Which are free, only the shim that takes them knows.
        self.users.iter().next()
    }

    fn hostname(&self) -> Option<String> {
        Some(self.hostname.clone())
    }
}
