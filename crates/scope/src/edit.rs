//! The spec, edited to do what a plan says.
mod mounts;
mod sysctl;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxIdMappingBuilder, LinuxNamespace, Spec};

use crate::plan::{Plan, Planned, who};
use crate::request::joined_path;
use crate::{Ids, Kind, Scope};

/// Where the shared things are that a plan refers to. The shim makes them first.
pub trait Paths {
    /// The namespace of this kind and scope (POD, TARGET or GROUP).
    fn namespace(&self, kind: Kind, scope: &Scope) -> Option<PathBuf>;
    /// Is it the node's own namespace? Asked about every namespace that an assignment lets a
    /// container join: a TARGET that uses the node's must not become a way around the ceiling.
    fn is_node(&self, kind: Kind, path: &Path) -> bool;
    /// The /dev/shm that goes with an IPC namespace of this scope: POD, GROUP or TARGET.
    fn shm(&self, scope: &Scope) -> Option<PathBuf>;
    /// The ids that were given to a user namespace of this scope, CONTAINER or GROUP.
    fn ids(&self, scope: &Scope) -> Option<Ids>;
    /// The sandbox's host name, with which a UTS namespace of CONTAINER scope starts: containerd
    /// names it on the sandbox only.
    fn hostname(&self) -> Option<String>;
}

/// Why a spec cannot be made to do what the plan says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The spec has no `linux` section.
    #[error("the OCI spec has no linux section: husk runs Linux containers only")]
    NotLinux,
    /// The namespace to join is not there.
    #[error(
        "{kind}: {} asked for {scope}, but there is no such namespace in the pod; is the container \
         it belongs to running?",
        who(.by)
    )]
    NoNamespace {
        /// The namespace's kind.
        kind: Kind,
        /// What was planned.
        scope: Scope,
        /// Who asked.
        by: String,
    },
    /// The namespace to join is the node's, which nobody granted.
    #[error(
        "{kind}: {} asked for {scope}, but {path} is the node's namespace; assign NODE to grant that",
        who(.by)
    )]
    NodeInDisguise {
        /// The namespace's kind.
        kind: Kind,
        /// What was planned.
        scope: Scope,
        /// Who asked.
        by: String,
        /// The path that leads to the node's namespace.
        path: PathBuf,
    },
    /// The IPC namespace to join has no /dev/shm.
    #[error("ipc: {} asked for {scope}, but no /dev/shm goes with that namespace", who(.by))]
    NoShm {
        /// What was planned.
        scope: Scope,
        /// Who asked.
        by: String,
    },
    /// A sysctl of a namespace that is the node's.
    #[error(
        "{kind}: {} asked for {scope}, so the sysctl {name} would change the node; drop the sysctl, \
         or give the container a {kind} namespace",
        who(.by)
    )]
    NodeSysctl {
        /// The sysctl's name.
        name: String,
        /// The kind of namespace it belongs to.
        kind: Kind,
        /// What was planned.
        scope: Scope,
        /// Who asked.
        by: String,
    },
    /// A sysctl that no namespace confines.
    #[error("the sysctl {name} belongs to no namespace and would change the node; drop it")]
    UnconfinedSysctl {
        /// The sysctl's name.
        name: String,
    },
    /// A host name set by sysctl.
    #[error("the sysctl kernel.hostname is not for containers; set the spec's hostname instead")]
    HostnameSysctl,
    /// Network devices to move into a namespace that is the node's.
    #[error(
        "network: {} asked for NODE, so there is nowhere to move linux.netDevices to; drop them",
        who(.by)
    )]
    NodeDevices {
        /// Who asked.
        by: String,
    },
    /// Clock offsets for a namespace that is not made for this container.
    #[error(
        "time: {} asked for {scope}, but the spec sets clock offsets, which only a time namespace \
         of CONTAINER scope can take; drop linux.timeOffsets",
        who(.by)
    )]
    Offsets {
        /// What was planned.
        scope: Scope,
        /// Who asked.
        by: String,
    },
    /// A user namespace that nobody has given ids.
    #[error("user: {} asked for {scope}, but no ids were given to it", who(.by))]
    NoIds {
        /// What was planned.
        scope: Scope,
        /// Who asked.
        by: String,
    },
    /// Id mappings without a user namespace.
    #[error(
        "user: {} asked for NODE, but the spec maps ids; drop linux.uidMappings and gidMappings",
        who(.by)
    )]
    NodeMappings {
        /// Who asked.
        by: String,
    },
}

/// See [`Plan::edit`].
pub(crate) fn edit(plan: &Plan, spec: &mut Spec, paths: &dyn Paths) -> Result<(), EditError> {
    let linux = spec.linux_mut().as_mut().ok_or(EditError::NotLinux)?;
    for (kind, planned) in plan.iter() {
        edit_namespace(kind, planned, linux, paths)?;
    }
    edit_offsets(plan, linux)?;
    let is_mapped = edit_ids(plan.get(Kind::User), linux, paths)?;
    sysctl::check(plan, linux)?;
    check_owned(plan, linux)?;
    edit_host_name(plan.get(Kind::Uts), spec, paths);
    mounts::edit_shm(plan.get(Kind::Ipc), spec, paths)?;
    mounts::edit_cgroup(plan.get(Kind::Cgroup), spec);
    if is_mapped {
        mounts::map_ids(spec);
    }
    drop_false_no_new_privileges(spec);
    Ok(())
}

fn edit_namespace(
    kind: Kind,
    planned: &Planned,
    linux: &mut Linux,
    paths: &dyn Paths,
) -> Result<(), EditError> {
    let entries = linux.namespaces_mut().get_or_insert_default();
    let path = match &planned.scope {
        Scope::Node => {
            entries.retain(|entry| entry.typ() != kind.oci());
            return Ok(());
        }
        Scope::Container => None,
        _ => Some(path_to_join(kind, planned, entries, paths)?),
    };
    let mut of_kind = entries.iter_mut().filter(|entry| entry.typ() == kind.oci());
    match of_kind.next() {
        Some(entry) => {
            entry.set_path(path);
        }
        None => {
            let mut entry = LinuxNamespace::default();
            entry.set_typ(kind.oci()).set_path(path);
            entries.push(entry);
        }
    }
    Ok(())
}

fn path_to_join(
    kind: Kind,
    planned: &Planned,
    entries: &[LinuxNamespace],
    paths: &dyn Paths,
) -> Result<PathBuf, EditError> {
    let sent = entries
        .iter()
        .find(|entry| entry.typ() == kind.oci())
        .and_then(joined_path)
        .filter(|path| !planned.is_changed() && !path.starts_with("/proc/0"));
    if let Some(path) = sent {
        return Ok(path.to_owned());
    }
    let path = paths
        .namespace(kind, &planned.scope)
        .ok_or_else(|| EditError::NoNamespace {
            kind,
            scope: planned.scope.clone(),
            by: planned.by.clone(),
        })?;
    if paths.is_node(kind, &path) {
        return Err(EditError::NodeInDisguise {
            kind,
            scope: planned.scope.clone(),
            by: planned.by.clone(),
            path,
        });
    }
    Ok(path)
}

/// Gives an assigned user namespace its ids; whether it did.
fn edit_ids(planned: &Planned, linux: &mut Linux, paths: &dyn Paths) -> Result<bool, EditError> {
    if !planned.is_changed() {
        return Ok(false);
    }
    let ids = paths.ids(&planned.scope).ok_or_else(|| EditError::NoIds {
        scope: planned.scope.clone(),
        by: planned.by.clone(),
    })?;
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(0u32)
        .host_id(ids.first)
        .size(ids.count)
        .build();
    // Nothing that has to be said is left out.
    let mappings: Vec<_> = mapping.into_iter().collect();
    linux
        .set_uid_mappings(Some(mappings.clone()))
        .set_gid_mappings(Some(mappings));
    Ok(true)
}

/// Offsets can be written to a time namespace only before its first process (see
/// time_namespaces(7)), so only to one that is made for this container.
fn edit_offsets(plan: &Plan, linux: &mut Linux) -> Result<(), EditError> {
    let planned = plan.get(Kind::Time);
    if planned.scope == Scope::Container {
        if planned.is_assigned() && !plan.offsets().is_empty() {
            linux.set_time_offsets(Some(plan.offsets().oci()));
        }
        return Ok(());
    }
    match linux.time_offsets() {
        Some(offsets) if !offsets.is_empty() => Err(EditError::Offsets {
            scope: planned.scope.clone(),
            by: planned.by.clone(),
        }),
        _ => {
            linux.set_time_offsets(None);
            Ok(())
        }
    }
}

/// Refuses what needs a namespace of a kind that is the node's.
fn check_owned(plan: &Plan, linux: &Linux) -> Result<(), EditError> {
    let network = plan.get(Kind::Network);
    if network.scope == Scope::Node && linux.net_devices().is_some() {
        return Err(EditError::NodeDevices {
            by: network.by.clone(),
        });
    }
    let user = plan.get(Kind::User);
    let maps = |mappings: &Option<Vec<_>>| mappings.as_ref().is_some_and(|all| !all.is_empty());
    if user.scope == Scope::Node && (maps(linux.uid_mappings()) || maps(linux.gid_mappings())) {
        return Err(EditError::NodeMappings {
            by: user.by.clone(),
        });
    }
    Ok(())
}

/// Only a UTS namespace that is made for this container is given names here; of a shared one they
/// are the sandbox's business.
fn edit_host_name(planned: &Planned, spec: &mut Spec, paths: &dyn Paths) {
    // What was asked for as it is stays: a name for the node's namespace is refused later, as other
    // runtimes do.
    if planned.is_changed() && (planned.scope == Scope::Node || planned.scope.is_joined()) {
        spec.set_hostname(None).set_domainname(None);
    }
    let own = planned.is_changed() && planned.scope == Scope::Container;
    if own && spec.hostname().is_none() {
        spec.set_hostname(paths.hostname());
    }
}

fn drop_false_no_new_privileges(spec: &mut Spec) {
    if let Some(process) = spec.process_mut()
        && process.no_new_privileges() == Some(false)
    {
        process.set_no_new_privileges(None);
    }
}
