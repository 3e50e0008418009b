//! The spec a container is made from.
use std::fs;
use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxIdMapping, LinuxNamespaceType, PosixRlimit, PosixRlimitType,
    Process, Spec,
};

use crate::error::{Doing, JobError};
use crate::lenient;
use crate::workload::Workload;

const CONFIG: &str = "config.json";

pub(crate) fn load(dir: &Path) -> Result<Spec, JobError> {
    let path = dir.join(CONFIG);
    let text = fs::read(&path).doing(|| format!("read the spec {}", path.display()))?;
    // Whoever gave the spec to this crate has read it, and told of what is left out.
    lenient::read(&text).map(|(spec, _)| spec).map_err(|error| {
        JobError::invalid(format!("the spec {} is broken: {error}", path.display()))
    })
}

/// The spec's `linux.cgroupsPath`.
pub(crate) fn cgroups_path(spec: &Spec) -> Option<&str> {
    spec.linux().as_ref()?.cgroups_path().as_deref()?.to_str()
}

/// The part of a spec that is about Linux.
pub(crate) fn linux(spec: &Spec) -> Result<&Linux, JobError> {
    spec.linux().as_ref().ok_or_else(|| {
        JobError::invalid("the spec has no linux section: it is not for a container on Linux")
    })
}

/// Whether a container has, or joins, a user namespace that is not the node's.
pub(crate) fn has_user_namespace(linux: &Linux) -> bool {
    let mut namespaces = linux.namespaces().iter().flatten();
    namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// The process of a spec, and what it executes.
pub(crate) fn process(spec: &Spec) -> Result<(Process, Workload), JobError> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| JobError::invalid("the spec has no process: there is nothing to execute"))?;
    check_process(process)?;
    Ok((process.clone(), Workload::new(process)?))
}

/// Refuses what the kernel would misunderstand, or answer with a bare EINVAL.
pub(crate) fn check_process(process: &Process) -> Result<(), JobError> {
    let user = process.user();
    let ids = [user.uid(), user.gid()];
    if ids
        .into_iter()
        .chain(user.additional_gids().iter().flatten().copied())
        .any(|id| id == u32::MAX)
    {
        // To setresuid(2) it means "as you are": root.
        return Err(JobError::invalid(format!(
            "process.user has the id {}, which is none",
            u32::MAX
        )));
    }
    if !process.cwd().is_absolute() {
        return Err(JobError::invalid(format!(
            "process.cwd {:?} is not absolute: the specification asks for it",
            process.cwd()
        )));
    }
    let limits = process.rlimits().as_deref().unwrap_or_default();
    if let Some(twice) = named_twice(limits) {
        return Err(JobError::invalid(format!(
            "process.rlimits names {twice} twice, and only one of the two could hold: keep one"
        )));
    }
    if let Some(limit) = limits.iter().find(|it| it.soft() > it.hard()) {
        return Err(JobError::invalid(format!(
            "process.rlimits: the soft limit of {}, {}, is above the hard one, {}",
            limit.typ(),
            limit.soft(),
            limit.hard()
        )));
    }
    Ok(())
}

fn named_twice(limits: &[PosixRlimit]) -> Option<PosixRlimitType> {
    let kinds = limits.iter().map(PosixRlimit::typ);
    let mut repeated = kinds.enumerate().filter(|(at, kind)| {
        let earlier = limits.iter().take(*at);
        earlier.map(PosixRlimit::typ).any(|other| other == *kind)
    });
    repeated.next().map(|(_, kind)| kind)
}

/// Refuses a spec of a version that means other things by the same words.
pub(crate) fn check_version(spec: &Spec) -> Result<(), JobError> {
    let version = spec.version();
    if version.starts_with("1.") {
        return Ok(());
    }
    Err(JobError::invalid(format!(
        "the spec's ociVersion is {version}: this runtime knows version 1 of the runtime \
         specification"
    )))
}

/// Refuses a spec that names what is not there.
pub(crate) fn check_paths(spec: &Spec) -> Result<(), JobError> {
    for namespace in linux(spec)?.namespaces().iter().flatten() {
        if let Some(path) = namespace.path() {
            fs::metadata(path).doing(|| {
                format!(
                    "find the {} namespace to join, {}",
                    namespace.typ(),
                    path.display()
                )
            })?;
        }
    }
    for mount in spec.mounts().iter().flatten() {
        let binds = |option: &String| option == "bind" || option == "rbind";
        let is_bind = mount.options().iter().flatten().any(binds);
        if let Some(source) = mount.source().as_ref().filter(|_| is_bind) {
            fs::symlink_metadata(source).doing(|| {
                format!(
                    "find what to mount at {}, {}",
                    mount.destination().display(),
                    source.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Sees that the root filesystem is where the spec says, now that it is mounted.
pub(crate) fn check_root(spec: &Spec) -> Result<(), JobError> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| JobError::invalid("the spec has no root filesystem"))?;
    let path = root.path();
    let data = fs::metadata(path).doing(|| format!("find root.path, {}", path.display()))?;
    if path.is_absolute() && data.is_dir() {
        return Ok(());
    }
    Err(JobError::invalid(format!(
        "root.path, {}, is not the absolute path of a directory",
        path.display()
    )))
}

/// Five empty sets.
pub(crate) fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(Some([].into()));
    none.set_effective(Some([].into()));
    none.set_permitted(Some([].into()));
    none.set_inheritable(Some([].into()));
    none.set_ambient(Some([].into()));
    none
}

/// The user of a process as the node sees it; `None` when a joined user namespace hides it.
pub(crate) fn host_user(spec: &Spec, process: &Process) -> Option<u32> {
    let user = process.user().uid();
    let linux = spec.linux().as_ref();
    let namespaces = linux
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    if !namespaces
        .iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::User)
    {
        return Some(user);
    }
    let mappings = linux
        .and_then(|linux| linux.uid_mappings().as_deref())
        .unwrap_or_default();
    mappings.iter().find_map(|mapping| map(mapping, user))
}

fn map(mapping: &LinuxIdMapping, user: u32) -> Option<u32> {
    let offset = user.checked_sub(mapping.container_id())?;
    (offset < mapping.size())
        .then(|| mapping.host_id().checked_add(offset))
        .flatten()
}
