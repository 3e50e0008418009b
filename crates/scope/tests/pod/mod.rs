//! A pod to plan for, as a table. Its paths exist, because libcontainer stats the network's.
#![allow(dead_code, reason = "each test file uses its part")]
use std::path::{Path, PathBuf};

use husk_scope::{Assignment, Ids, Kind, Known, Paths, Scope};
use oci_spec::runtime::{LinuxNamespace, Mount, Spec};

pub(crate) const SANDBOX: &str = "/proc/self/ns/mnt";
pub(crate) const OTHER: &str = "/proc/self/ns/uts";
pub(crate) const GROUP: &str = "/proc/self/ns/ipc";
/// The network namespace of this process is what libcontainer takes for the node's.
pub(crate) const NODE: &str = "/proc/self/ns/net";
pub(crate) const POD_SHM: &str = "/run/husk/k8s.io/sandbox/shm";

/// A pod with a sandbox, a container `other`, and a group `group`.
pub(crate) struct Pod {
    /// The kinds for which the sandbox uses the node's namespace.
    pub(crate) sandbox_in_node: Vec<Kind>,
    /// The sandbox has a /dev/shm.
    pub(crate) shm: bool,
    /// The container `other` uses the node's namespaces.
    pub(crate) other_in_node: bool,
}

impl Default for Pod {
    fn default() -> Self {
        Self {
            sandbox_in_node: Vec::new(),
            shm: true,
            other_in_node: false,
        }
    }
}

fn is_pid_zero(path: &Path) -> bool {
    path.starts_with("/proc/0/ns")
}

impl Known for Pod {
    fn is_sandbox(&self, _: Kind, path: &Path) -> bool {
        path == Path::new(SANDBOX) || is_pid_zero(path)
    }

    fn container(&self, _: Kind, path: &Path) -> Option<String> {
        (path == Path::new(OTHER)).then(|| "other".to_owned())
    }

    fn is_node(&self, kind: Kind, path: &Path) -> bool {
        path == Path::new(NODE) || (is_pid_zero(path) && self.sandbox_in_node.contains(&kind))
    }
}

impl Paths for Pod {
    fn namespace(&self, kind: Kind, scope: &Scope) -> Option<PathBuf> {
        let path = match scope {
            Scope::Pod if self.sandbox_in_node.contains(&kind) => NODE,
            Scope::Pod => SANDBOX,
            Scope::Target(name) if name == "other" && self.other_in_node => NODE,
            Scope::Target(name) if name == "other" => OTHER,
            Scope::Group(name) if name == "group" => GROUP,
            _ => return None,
        };
        Some(path.into())
    }

    fn is_node(&self, _: Kind, path: &Path) -> bool {
        path == Path::new(NODE)
    }

    fn shm(&self, scope: &Scope) -> Option<PathBuf> {
        match scope {
            Scope::Pod => self.shm.then(|| POD_SHM.into()),
            Scope::Target(name) if name == "other" => Some("/run/husk/other-shm".into()),
            Scope::Group(name) if name == "group" => Some("/run/husk/group-shm".into()),
            _ => None,
        }
    }

    fn ids(&self, _: &Scope) -> Option<Ids> {
        Some(Ids {
            first: 100_000,
            count: 65_536,
        })
    }

    fn hostname(&self) -> Option<String> {
        Some("pod-host".to_owned())
    }
}

pub(crate) fn assign(kind: Kind, scope: Scope) -> Assignment {
    Assignment {
        kind,
        scope,
        by: "policy p".to_owned(),
    }
}

pub(crate) fn entry(kind: Kind, path: Option<&str>) -> LinuxNamespace {
    let mut entry = LinuxNamespace::default();
    entry.set_typ(kind.oci()).set_path(path.map(PathBuf::from));
    entry
}

pub(crate) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|&o| o.to_owned()).collect()));
    mount
}

/// The path of a kind's entry: `None` for no entry, `Some(None)` for one without a path.
pub(crate) fn path_of(spec: &Spec, kind: Kind) -> Option<Option<String>> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    let entry = namespaces.iter().find(|entry| entry.typ() == kind.oci())?;
    Some(entry.path().as_ref().map(|path| path.display().to_string()))
}
