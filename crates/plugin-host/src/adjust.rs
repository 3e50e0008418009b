//! Edits of a container's spec, as `husk:plugin/edit` offers them. Pure.
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    Capability, Linux, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxSeccomp, Mount,
    PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use serde_json::Value;

/// The period to which a CPU limit is applied, in microseconds; the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// One change to a container that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is the function of the same name in wit, documented there"
)]
pub enum Edit {
    SetEnv {
        name: String,
        value: String,
    },
    RemoveEnv {
        name: String,
    },
    AddMount {
        source: String,
        destination: String,
        kind: String,
        options: Vec<String>,
    },
    RemoveMount {
        destination: String,
    },
    SetRlimit {
        name: String,
        soft: u64,
        hard: u64,
    },
    SetSysctl {
        name: String,
        value: String,
    },
    DropCapability {
        name: String,
    },
    NoNewPrivileges,
    SeccompProfile {
        name: String,
    },
    MemoryLimit {
        bytes: u64,
    },
    CpuLimit {
        thousandths: u64,
    },
    PidsLimit {
        count: u64,
    },
    CgroupValue {
        file: String,
        value: String,
    },
    OomScoreAdj {
        value: i32,
    },
    MaskPath {
        path: String,
    },
    ReadOnlyPath {
        path: String,
    },
    SetAnnotation {
        key: String,
        value: String,
    },
    DelegateCgroup,
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A value may be a secret: the audit record names the variable only.
            Self::SetEnv { name, .. } => write!(f, "set-env {name}"),
            Self::RemoveEnv { name } => write!(f, "remove-env {name}"),
            Self::AddMount {
                source,
                destination,
                kind,
                options,
            } => {
                write!(
                    f,
                    "add-mount {kind} {source} {destination} {}",
                    options.join(",")
                )
            }
            Self::RemoveMount { destination } => write!(f, "remove-mount {destination}"),
            Self::SetRlimit { name, soft, hard } => write!(f, "set-rlimit {name} {soft} {hard}"),
            Self::SetSysctl { name, value } => write!(f, "set-sysctl {name}={value}"),
            Self::DropCapability { name } => write!(f, "drop-capability {name}"),
            Self::NoNewPrivileges => f.write_str("set-no-new-privileges"),
            Self::SeccompProfile { name } => write!(f, "set-seccomp-profile {name}"),
            Self::MemoryLimit { bytes } => write!(f, "set-memory-limit {bytes}"),
            Self::CpuLimit { thousandths } => write!(f, "set-cpu-limit {thousandths}"),
            Self::PidsLimit { count } => write!(f, "set-pids-limit {count}"),
            Self::CgroupValue { file, value } => write!(f, "set-cgroup-value {file}={value}"),
            Self::OomScoreAdj { value } => write!(f, "set-oom-score-adj {value}"),
            Self::MaskPath { path } => write!(f, "mask-path {path}"),
            Self::ReadOnlyPath { path } => write!(f, "make-path-read-only {path}"),
            Self::SetAnnotation { key, value } => write!(f, "set-annotation {key}={value}"),
            Self::DelegateCgroup => f.write_str("delegate-cgroup"),
        }
    }
}

impl Edit {
    /// The words of it that the plugin chose, which the container then keeps.
    pub(crate) fn words(&self) -> Vec<&str> {
        match self {
            Self::AddMount {
                source,
                destination,
                kind,
                options,
            } => {
                let options = options.iter().map(String::as_str);
                options
                    .chain([source, destination, kind].map(String::as_str))
                    .collect()
            }
            Self::SetEnv { name, value } | Self::SetSysctl { name, value } => vec![name, value],
            Self::CgroupValue { file, value } => vec![file, value],
            Self::SetAnnotation { key, value } => vec![key, value],
            Self::RemoveEnv { name }
            | Self::SetRlimit { name, .. }
            | Self::DropCapability { name }
            | Self::SeccompProfile { name } => vec![name],
            Self::RemoveMount { destination } => vec![destination],
            Self::MaskPath { path } | Self::ReadOnlyPath { path } => vec![path],
            Self::NoNewPrivileges
            | Self::MemoryLimit { .. }
            | Self::CpuLimit { .. }
            | Self::PidsLimit { .. }
            | Self::OomScoreAdj { .. }
            | Self::DelegateCgroup => Vec::new(),
        }
    }
}

/// Why an edit makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{edit}: {problem}")]
pub struct EditRefused {
    edit: String,
    problem: String,
}

/// Applies one edit.
///
/// # Errors
/// A name, path or value that the container could not be made with.
pub fn apply(
    spec: &mut Spec,
    edit: &Edit,
    seccomp_profiles: &BTreeMap<String, LinuxSeccomp>,
) -> Result<(), EditRefused> {
    let refused = |problem: String| EditRefused {
        edit: edit.to_string(),
        problem,
    };
    match edit {
        Edit::SetEnv { name, value } => set_env(process(spec), name, value),
        Edit::RemoveEnv { name } => {
            remove_env(process(spec), name);
            Ok(())
        }
        Edit::AddMount {
            source,
            destination,
            kind,
            options,
        } => add_mount(spec, source, destination, kind, options),
        Edit::RemoveMount { destination } => {
            let destination = Path::new(destination);
            let mounts = spec.mounts_mut().get_or_insert_default();
            mounts.retain(|mount| mount.destination() != destination);
            Ok(())
        }
        Edit::SetRlimit { name, soft, hard } => set_rlimit(process(spec), name, *soft, *hard),
        Edit::SetSysctl { name, value } => set_sysctl(spec, name, value),
        Edit::DropCapability { name } => drop_capability(process(spec), name),
        Edit::NoNewPrivileges => {
            process(spec).set_no_new_privileges(Some(true));
            Ok(())
        }
        Edit::SeccompProfile { name } => match seccomp_profiles.get(name) {
            Some(profile) => {
                linux(spec).set_seccomp(Some(profile.clone()));
                Ok(())
            }
            None => Err("the handler's configuration has no seccomp profile of this name".into()),
        },
        Edit::MemoryLimit { bytes } => set_memory_limit(spec, *bytes),
        Edit::CpuLimit { thousandths } => set_cpu_limit(spec, *thousandths),
        Edit::PidsLimit { count } => set_pids_limit(spec, *count),
        Edit::CgroupValue { file, value } => set_cgroup_value(spec, file, value),
        Edit::OomScoreAdj { value } if (-1000..=1000).contains(value) => {
            process(spec).set_oom_score_adj(Some(*value));
            Ok(())
        }
        Edit::OomScoreAdj { .. } => Err("must be from -1000 to 1000".into()),
        Edit::MaskPath { path } => {
            let path = absolute(path).map_err(refused)?;
            let linux = linux(spec);
            let mut paths = linux.masked_paths().clone().unwrap_or_default();
            paths.push(path.display().to_string());
            linux.set_masked_paths(Some(paths));
            Ok(())
        }
        Edit::ReadOnlyPath { path } => {
            let path = absolute(path).map_err(refused)?;
            let linux = linux(spec);
            let mut paths = linux.readonly_paths().clone().unwrap_or_default();
            paths.push(path.display().to_string());
            linux.set_readonly_paths(Some(paths));
            Ok(())
        }
        Edit::SetAnnotation { key, .. } if key.is_empty() => Err("the key is empty".into()),
        Edit::SetAnnotation { key, value } => {
            let annotations = spec.annotations_mut().get_or_insert_default();
            annotations.insert(key.clone(), value.clone());
            Ok(())
        }
        Edit::DelegateCgroup => delegate_cgroup(spec),
    }
    .map_err(|problem: String| refused(problem))
}

/// Whether the container may do what the node's root may: the kernel's every capability is in its
/// bounding set, and nothing filters its system calls.
#[must_use]
pub fn is_privileged(spec: &Spec) -> bool {
    let process = spec.process().as_ref();
    let capabilities = process.and_then(|process| process.capabilities().as_ref());
    let bounding = capabilities.and_then(|sets| sets.bounding().as_ref());
    let admin = bounding.is_some_and(|set| {
        [
            Capability::SysAdmin,
            Capability::SysModule,
            Capability::SysRawio,
            Capability::MacAdmin,
        ]
        .iter()
        .all(|capability| set.contains(capability))
    });
    let filtered = spec
        .linux()
        .as_ref()
        .is_some_and(|linux| linux.seccomp().is_some());
    admin && !filtered
}

/// Takes these capabilities from every set.
pub fn without_capabilities(process: &mut Process, capabilities: &[Capability]) {
    let Some(sets) = process.capabilities().clone() else {
        return;
    };
    let without = |set: &Option<oci_spec::runtime::Capabilities>| {
        set.clone().map(|set| {
            set.into_iter()
                .filter(|member| !capabilities.contains(member))
                .collect()
        })
    };
    let mut left = sets.clone();
    left.set_bounding(without(sets.bounding()));
    left.set_effective(without(sets.effective()));
    left.set_inheritable(without(sets.inheritable()));
    left.set_permitted(without(sets.permitted()));
    left.set_ambient(without(sets.ambient()));
    process.set_capabilities(Some(left));
}

/// The limits of a spec.
pub(crate) fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref())
}

fn process(spec: &mut Spec) -> &mut Process {
    spec.process_mut().get_or_insert_default()
}

fn linux(spec: &mut Spec) -> &mut Linux {
    spec.linux_mut().get_or_insert_default()
}

fn change_resources(spec: &mut Spec, change: impl FnOnce(&mut LinuxResources)) {
    let linux = linux(spec);
    let mut resources = linux.resources().clone().unwrap_or_default();
    change(&mut resources);
    linux.set_resources(Some(resources));
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = Path::new(path);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        return Ok(path.to_owned());
    }
    Err("must be an absolute path without `..`".to_owned())
}

fn remove_env(process: &mut Process, name: &str) {
    let env = process.env_mut().get_or_insert_default();
    env.retain(|entry| entry.split_once('=').map_or(entry.as_str(), |(key, _)| key) != name);
}

fn set_env(process: &mut Process, name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(
            "a name is not empty and has no `=`; neither it nor the value has a NUL".into(),
        );
    }
    remove_env(process, name);
    process
        .env_mut()
        .get_or_insert_default()
        .push(format!("{name}={value}"));
    Ok(())
}

fn add_mount(
    spec: &mut Spec,
    source: &str,
    destination: &str,
    kind: &str,
    options: &[String],
) -> Result<(), String> {
    let destination = absolute(destination)?;
    let bind = kind == "bind"
        || options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
    if bind {
        absolute(source).map_err(|problem| format!("source of a bind mount: {problem}"))?;
    }
    let mut mount = Mount::default();
    mount.set_destination(destination);
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options.to_vec()));
    spec.mounts_mut().get_or_insert_default().push(mount);
    Ok(())
}

fn set_rlimit(process: &mut Process, name: &str, soft: u64, hard: u64) -> Result<(), String> {
    if soft > hard {
        return Err("the soft limit is above the hard limit".to_owned());
    }
    let typ: PosixRlimitType = serde_json::from_value(Value::String(name.to_owned()))
        .map_err(|_| "not a resource limit, see getrlimit(2)".to_owned())?;
    let mut rlimits = process.rlimits().clone().unwrap_or_default();
    rlimits.retain(|rlimit| rlimit.typ() != typ);
    let rlimit = PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft)
        .hard(hard)
        .build();
    rlimits.push(rlimit.map_err(|error| error.to_string())?);
    process.set_rlimits(Some(rlimits));
    Ok(())
}

fn set_sysctl(spec: &mut Spec, name: &str, value: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if name.is_empty() || !name.chars().all(plain) || name.contains("..") {
        return Err("not the name of a sysctl".to_owned());
    }
    let linux = linux(spec);
    let mut sysctls = linux.sysctl().clone().unwrap_or_default();
    sysctls.insert(name.to_owned(), value.to_owned());
    linux.set_sysctl(Some(sysctls));
    Ok(())
}

fn drop_capability(process: &mut Process, name: &str) -> Result<(), String> {
    let capability: Capability = serde_json::from_value(Value::String(name.to_owned()))
        .map_err(|_| "not a capability, see capabilities(7)".to_owned())?;
    without_capabilities(process, &[capability]);
    Ok(())
}

fn set_memory_limit(spec: &mut Spec, bytes: u64) -> Result<(), String> {
    let limit = i64::try_from(bytes).map_err(|_| "more than 2^63 bytes".to_owned())?;
    change_resources(spec, |resources| {
        let mut memory: LinuxMemory = resources.memory().unwrap_or_default();
        // Swap counts memory and swap together: it may not stay below the new limit.
        if memory.swap().is_some_and(|swap| swap >= 0) {
            memory.set_swap(Some(limit));
        }
        memory.set_limit(Some(limit));
        resources.set_memory(Some(memory));
    });
    Ok(())
}

fn set_cpu_limit(spec: &mut Spec, thousandths: u64) -> Result<(), String> {
    let quota = thousandths
        .checked_mul(CPU_PERIOD / 1000)
        .and_then(|quota| i64::try_from(quota).ok());
    // The kernel refuses a quota below one millisecond.
    let Some(quota) = quota.filter(|quota| *quota >= 1000) else {
        return Err("must be at least 10 thousandths of a CPU".to_owned());
    };
    change_resources(spec, |resources| {
        let mut cpu: LinuxCpu = resources.cpu().clone().unwrap_or_default();
        cpu.set_period(Some(CPU_PERIOD));
        cpu.set_quota(Some(quota));
        resources.set_cpu(Some(cpu));
    });
    Ok(())
}

fn set_pids_limit(spec: &mut Spec, count: u64) -> Result<(), String> {
    let Some(limit) = i64::try_from(count).ok().filter(|limit| *limit > 0) else {
        return Err("must be at least 1".to_owned());
    };
    change_resources(spec, |resources| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    });
    Ok(())
}

fn set_cgroup_value(spec: &mut Spec, file: &str, value: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_');
    let known = file.split_once('.').is_some_and(|(controller, _)| {
        matches!(
            controller,
            "cpu" | "cpuset" | "hugetlb" | "io" | "memory" | "misc" | "pids" | "rdma"
        )
    });
    if !known || !file.chars().all(plain) || value.contains('\n') {
        return Err("not a file of a cgroup v2 controller, or a value of several lines".to_owned());
    }
    change_resources(spec, |resources| {
        let mut unified = resources.unified().clone().unwrap_or_default();
        unified.insert(file.to_owned(), value.to_owned());
        resources.set_unified(Some(unified));
    });
    Ok(())
}

fn delegate_cgroup(spec: &mut Spec) -> Result<(), String> {
    let mounts = spec.mounts_mut().get_or_insert_default();
    let cgroup = mounts
        .iter_mut()
        .find(|mount| mount.typ().as_deref() == Some("cgroup"));
    let Some(mount) = cgroup else {
        return Err("the container has no cgroup mount to manage its cgroups through".to_owned());
    };
    let mut options = mount.options().clone().unwrap_or_default();
    options.retain(|option| option != "ro");
    options.push("rw".to_owned());
    mount.set_options(Some(options));
    Ok(())
}
