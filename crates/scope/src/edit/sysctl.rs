//! Sysctls: each belongs to a kind of namespace, or to the node.
use oci_spec::runtime::Linux;

use super::EditError;
use crate::plan::Plan;
use crate::{Kind, Scope};

/// The sysctls of an IPC namespace (see ipc_namespaces(7)) that libcontainer writes.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses sysctls that would reach the node: those of a kind that is NODE, and those of no kind.
/// Sysctls of a shared namespace are kept: whoever sent them meant them.
pub(super) fn check(plan: &Plan, linux: &Linux) -> Result<(), EditError> {
    let mut names: Vec<String> = linux
        .sysctl()
        .iter()
        .flat_map(|sysctls| sysctls.keys())
        .map(|name| name.replace('/', "."))
        .collect();
    names.sort_unstable();
    names.into_iter().try_for_each(|name| check_one(plan, name))
}

fn check_one(plan: &Plan, name: String) -> Result<(), EditError> {
    if name == "kernel.hostname" {
        return Err(EditError::HostnameSysctl);
    }
    let Some(kind) = kind_of(&name) else {
        return Err(EditError::UnconfinedSysctl { name });
    };
    let planned = plan.get(kind);
    if planned.scope == Scope::Node {
        return Err(EditError::NodeSysctl {
            name,
            kind,
            scope: planned.scope.clone(),
            by: planned.by.clone(),
        });
    }
    Ok(())
}

fn kind_of(name: &str) -> Option<Kind> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(Kind::Ipc)
    } else if name.starts_with("net.") {
        Some(Kind::Network)
    } else if name == "kernel.domainname" {
        Some(Kind::Uts)
    } else if name.starts_with("user.") {
        Some(Kind::User)
    } else {
        None
    }
}
