//! The spec a container is made from, as libcontainer must find it.
use std::fs;
use std::path::Path;

use oci_spec::runtime::{LinuxCapabilities, LinuxIdMapping, LinuxNamespaceType, Process, Spec};

use crate::workload::Workload;
use crate::zygote::{Doing, JobError};

const CONFIG: &str = "config.json";

pub(crate) fn load(dir: &Path) -> Result<Spec, JobError> {
    let path = dir.join(CONFIG);
    let text = fs::read(&path).doing(|| format!("read the spec {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| {
        JobError::invalid(format!("the spec {} is broken: {error}", path.display()))
    })
}

/// The spec's `linux.cgroupsPath`.
pub(crate) fn cgroups_path(spec: &Spec) -> Option<&str> {
    spec.linux().as_ref()?.cgroups_path().as_deref()?.to_str()
}

/// The process of a spec, and what it executes.
pub(crate) fn process(spec: &Spec) -> Result<(Process, Workload), JobError> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| JobError::invalid("the spec has no process: there is nothing to execute"))?;
    Ok((process.clone(), Workload::new(process)?))
}

/// Writes the spec into `dir` so that libcontainer does what the OCI runtime specification says.
///
/// - The cgroup is there already, with its limits: libcontainer must only join it.
/// - No `capabilities` means none; libcontainer would leave all of the shim's.
/// - `noNewPrivileges: false` means the same as its absence; libcontainer would load the seccomp
///   profile after it dropped the privilege to do so.
/// - `HOME` is set, to nothing that matters: libcontainer would look it up through whatever
///   library the container's nsswitch.conf names. Our executor sets the environment itself.
pub(crate) fn write_normalized(dir: &Path, mut spec: Spec, cgroup: &Path) -> Result<(), JobError> {
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(cgroup.to_owned()));
    linux.set_resources(None);
    spec.set_linux(Some(linux));
    if let Some(process) = spec.process_mut() {
        if process.capabilities().is_none() {
            process.set_capabilities(Some(no_capabilities()));
        }
        if process.no_new_privileges() == Some(false) {
            process.set_no_new_privileges(None);
        }
        let mut env = process.env().clone().unwrap_or_default();
        env.push("HOME=/".to_owned());
        process.set_env(Some(env));
    }
    fs::create_dir_all(dir).doing(|| format!("make the directory {}", dir.display()))?;
    let path = dir.join(CONFIG);
    let text = serde_json::to_vec(&spec)
        .map_err(|error| JobError::failed(format!("cannot write the spec as JSON: {error}")))?;
    fs::write(&path, text).doing(|| format!("write the spec {}", path.display()))
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
