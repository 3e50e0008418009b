//! The spec a container is made from, as libcontainer must find it.
use std::fs;
use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxIdMapping, LinuxNamespaceType, LinuxSeccomp, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, Process, Spec,
};

use crate::cgroup;
use crate::lenient;
use crate::workload::Workload;
use crate::zygote::{Doing, JobError};

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
    if let Some(limit) = process
        .rlimits()
        .iter()
        .flatten()
        .find(|it| it.soft() > it.hard())
    {
        return Err(JobError::invalid(format!(
            "process.rlimits: the soft limit of {}, {}, is above the hard one, {}",
            limit.typ(),
            limit.soft(),
            limit.hard()
        )));
    }
    Ok(())
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

/// Writes the spec into `dir` so that libcontainer does what the OCI runtime specification says.
///
/// - The cgroup is there already, with its limits: libcontainer must only join it.
/// - No `capabilities` means none; libcontainer would leave all of the shim's.
/// - `noNewPrivileges: false` means the same as its absence; libcontainer would load the seccomp
///   profile after it dropped the privilege to do so.
/// - `rshared` and its kin are said without the `r`, which libcontainer does not know and means
///   anyway.
/// - Where the cgroup mount is read-only, the hierarchies of v1 become read-only paths:
///   libcontainer binds them writable.
/// - Mask and value of `SCMP_CMP_MASKED_EQ` change places: libcontainer 0.7 takes one for the other.
/// - `HOME` is set, to nothing that matters: libcontainer would look it up through whatever
///   library the container's nsswitch.conf names. Our executor sets the environment itself.
pub(crate) fn write_normalized(dir: &Path, mut spec: Spec, cgroup: &Path) -> Result<(), JobError> {
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(cgroup.to_owned()));
    linux.set_resources(None);
    if let Some(propagation) = linux.rootfs_propagation().as_deref() {
        let known = propagation.strip_prefix('r').unwrap_or(propagation);
        linux.set_rootfs_propagation(Some(known.to_owned()));
    }
    let mut closed = linux.readonly_paths().clone().unwrap_or_default();
    closed.extend(hierarchies_to_close(&spec)?);
    linux.set_readonly_paths(Some(closed));
    if let Some(seccomp) = linux.seccomp_mut() {
        exchange_masks(seccomp)?;
    }
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

fn exchange_masks(seccomp: &mut LinuxSeccomp) -> Result<(), JobError> {
    let mut rules = seccomp.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        let args = rule.args().iter().flatten().map(with_mask_exchanged);
        let args = args.collect::<Result<Vec<_>, _>>().map_err(|error| {
            JobError::invalid(format!(
                "linux.seccomp has a condition that is none: {error}"
            ))
        })?;
        rule.set_args((!args.is_empty()).then_some(args));
    }
    seccomp.set_syscalls(Some(rules));
    Ok(())
}

fn with_mask_exchanged(arg: &LinuxSeccompArg) -> Result<LinuxSeccompArg, OciSpecError> {
    if arg.op() != LinuxSeccompOperator::ScmpCmpMaskedEq {
        return Ok(*arg);
    }
    LinuxSeccompArgBuilder::default()
        .index(arg.index())
        .value(arg.value_two().unwrap_or(0))
        .value_two(arg.value())
        .op(arg.op())
        .build()
}

/// Where the v1 hierarchies will be in the container, below a cgroup mount that is read-only.
fn hierarchies_to_close(spec: &Spec) -> Result<Vec<String>, JobError> {
    let mut closed = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let mut options = mount.options().iter().flatten();
        if mount.typ().as_deref() != Some("cgroup") || !options.any(|option| option == "ro") {
            continue;
        }
        for point in cgroup::v1_mount_points()? {
            let path = point.file_name().map(|name| mount.destination().join(name));
            closed.extend(path.and_then(|path| path.to_str().map(str::to_owned)));
        }
    }
    Ok(closed)
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
