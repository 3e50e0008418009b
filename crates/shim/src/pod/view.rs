//! Whose a namespace is: the node's, the pod's, or a container's.
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use husk_scope::record::Namespace;
use husk_scope::{Ids, Kind, Known, Paths, Scope};

use super::Pod;
use super::container::Container;
use crate::sync::lock;

/// The pod's namespaces, as one container sees them.
pub(super) struct View<'a> {
    pub(super) pod: &'a Pod,
    /// The container is the pod's first and so, where it joins a namespace of nobody in the pod,
    /// what it joins is the sandbox's: the pause container, and a pod of one.
    pub(super) is_first: bool,
    /// Those of a user namespace of the container's own.
    pub(super) ids: Option<Ids>,
}

/// A namespace by device and inode.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn of_process(pid: i32, kind: Kind) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{}", kind.proc_name()))
}

/// Whether CRI wrote this path for a sandbox without a process (contract 14).
fn is_of_pid_0(path: &Path) -> bool {
    path.starts_with("/proc/0")
}

impl Known for View<'_> {
    fn is_sandbox(&self, kind: Kind, path: &Path) -> bool {
        if is_of_pid_0(path) {
            return true;
        }
        let Some(asked) = identity(path) else {
            return false;
        };
        self.is_first
            || self
                .pod
                .shared(kind, &Scope::Pod)
                .as_deref()
                .and_then(identity)
                == Some(asked)
    }

    fn container(&self, kind: Kind, path: &Path) -> Option<String> {
        let asked = identity(path)?;
        let containers = lock(&self.pod.containers);
        containers.values().find_map(|container| {
            let own = identity(&of_process(container.pid()?, kind))?;
            (own == asked).then(|| container.known.get().map(|known| known.name.clone()))?
        })
    }

    fn is_node(&self, kind: Kind, path: &Path) -> bool {
        if is_of_pid_0(path) {
            return self.pod.shared(kind, &Scope::Pod).is_none();
        }
        is_node(kind, path)
    }
}

fn is_node(kind: Kind, path: &Path) -> bool {
    let own = PathBuf::from("/proc/self/ns").join(kind.proc_name());
    identity(path).is_some_and(|asked| identity(&own) == Some(asked))
}

impl Paths for View<'_> {
    fn namespace(&self, kind: Kind, scope: &Scope) -> Option<PathBuf> {
        match scope {
            Scope::Target(name) => {
                let pid = self.pod.named(name)?.pid()?;
                Some(of_process(pid, kind))
            }
            scope => self.pod.shared(kind, scope),
        }
    }

    fn is_node(&self, kind: Kind, path: &Path) -> bool {
        is_node(kind, path)
    }

    fn shm(&self, scope: &Scope) -> Option<PathBuf> {
        match scope {
            Scope::Target(name) => self.pod.named(name)?.known.get()?.shm.clone(),
            scope => self.pod.shared_shm(scope),
        }
    }

    fn ids(&self, scope: &Scope) -> Option<Ids> {
        if *scope == Scope::Container {
            return self.ids;
        }
        let record = lock(&self.pod.record);
        let mut namespaces = record.namespaces.iter();
        let is = |found: &&Namespace| found.kind == Kind::User && found.scope == *scope;
        namespaces.find(is)?.ids
    }

    fn hostname(&self) -> Option<String> {
        lock(&self.pod.sandbox).hostname.clone()
    }
}

impl Pod {
    /// The container of this name that was made.
    fn named(&self, name: &str) -> Option<Arc<Container>> {
        let containers = lock(&self.containers);
        let is = |container: &&Arc<Container>| {
            container
                .known
                .get()
                .is_some_and(|known| known.name == name)
        };
        containers.values().find(is).cloned()
    }

    /// The pause container, made.
    pub(super) fn pause(&self) -> Option<Arc<Container>> {
        let id = lock(&self.sandbox).container.clone()?;
        self.container(&id)
    }

    /// A namespace that the pod shares: one on record, or the pause container's.
    ///
    /// The pause container's cgroup namespace shows its own cgroup, so it is not the pod's.
    pub(super) fn shared(&self, kind: Kind, scope: &Scope) -> Option<PathBuf> {
        let recorded = lock(&self.record)
            .namespaces
            .iter()
            .find(|namespace| namespace.kind == kind && namespace.scope == *scope)
            .map(|namespace| namespace.path.clone());
        if recorded.is_some() || *scope != Scope::Pod || kind == Kind::Cgroup {
            return recorded;
        }
        let pause = self.pause()?;
        let planned = pause.known.get()?.plan.get(kind);
        (planned.scope != Scope::Node).then_some(())?;
        Some(of_process(pause.pid()?, kind))
    }

    fn shared_shm(&self, scope: &Scope) -> Option<PathBuf> {
        let recorded = lock(&self.record)
            .namespaces
            .iter()
            .find(|namespace| namespace.kind == Kind::Ipc && namespace.scope == *scope)
            .map(|namespace| namespace.shm.clone());
        match recorded {
            Some(shm) => shm,
            None if *scope == Scope::Pod => self.pause()?.known.get()?.shm.clone(),
            None => None,
        }
    }
}
