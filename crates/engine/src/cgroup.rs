//! The pod's cgroup: the parent of its containers' cgroups, with the pod's limits.
//!
//! In Kubernetes the kubelet makes it; here the engine does.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::manifest::{Container, Pod};

pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup that holds those of all pods.
const PARENT: &str = "husk";

/// The controllers whose limits a manifest can set.
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];

/// How long killed processes may take to leave their cgroup.
const DYING: Duration = Duration::from_secs(5);

/// How often it is tried again until then.
const POLL: Duration = Duration::from_millis(20);

/// How often a cgroup is made whose parent others take away; each time, some pod has ended just then.
const ATTEMPTS: usize = 100;

/// Microseconds, the kernel's default period of a CPU limit.
pub(crate) const PERIOD: u64 = 100_000;

/// The shortest and the longest quota that the kernel takes, microseconds.
const QUOTAS: (u64, u64) = (1000, (1 << 44) - 1);

/// The quota of a limit in thousandths of a core: the nearest that the kernel takes.
pub(crate) fn quota(limit: u64) -> u64 {
    let (shortest, longest) = QUOTAS;
    limit.saturating_mul(PERIOD / 1000).clamp(shortest, longest)
}

/// Whether the node has the unified hierarchy alone, cgroups(7).
pub(crate) fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The cgroup of a pod, as an OCI `cgroupsPath` names it.
pub(crate) fn of_pod(id: &str) -> String {
    format!("/{PARENT}/{id}")
}

/// What the containers may use together; a limit only where each has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    memory: Option<i64>,
    /// Thousandths of a core.
    cpu: Option<u64>,
}

impl Limits {
    /// The kubelet's rule: what runs side by side adds up; an init container runs beside the
    /// sidecars only.
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            memory: largest(
                pod,
                |container| container.resources.memory_limit,
                i64::saturating_add,
            ),
            cpu: largest(
                pod,
                |container| container.resources.cpu_limit,
                u64::saturating_add,
            ),
        }
    }
}

/// No sum is too large: what a manifest says may be beyond any machine.
fn largest<T: Copy + Ord + Default>(
    pod: &Pod,
    limit: impl Fn(&Container) -> Option<T>,
    add: impl Fn(T, T) -> T,
) -> Option<T> {
    let (sidecars, inits): (Vec<_>, Vec<_>) = pod
        .init_containers
        .iter()
        .partition(|container| container.sidecar);
    let sum = |sum: T, container| limit(container).map(|limit| add(sum, limit));
    let sidecars = sidecars.into_iter().try_fold(T::default(), sum)?;
    let together = pod.containers.iter().try_fold(T::default(), sum)?;
    let inits: Option<Vec<T>> = inits.into_iter().map(&limit).collect();
    inits?
        .into_iter()
        .chain([together])
        .map(|limit| add(limit, sidecars))
        .max()
}

/// Makes the cgroup with its limits.
///
/// # Errors
/// The file and what the kernel answered.
pub(crate) fn create(path: &str, limits: Limits) -> io::Result<()> {
    if is_v2() {
        let root = Path::new(ROOT);
        make(&in_hierarchy(root, path))?;
        for parent in [root.to_owned(), root.join(PARENT)] {
            let enabled = CONTROLLERS
                .map(|controller| format!("+{controller}"))
                .join(" ");
            write(&parent.join("cgroup.subtree_control"), &enabled)?;
        }
        let own = in_hierarchy(root, path);
        if let Some(memory) = limits.memory {
            write(&own.join("memory.max"), &memory.to_string())?;
        }
        if let Some(cpu) = limits.cpu {
            write(&own.join("cpu.max"), &format!("{} {PERIOD}", quota(cpu)))?;
        }
        return Ok(());
    }
    for controller in CONTROLLERS {
        make(&in_hierarchy(&Path::new(ROOT).join(controller), path))?;
    }
    let own = |controller: &str| in_hierarchy(&Path::new(ROOT).join(controller), path);
    if let Some(memory) = limits.memory {
        write(
            &own("memory").join("memory.limit_in_bytes"),
            &memory.to_string(),
        )?;
    }
    if let Some(cpu) = limits.cpu {
        write(
            &own("cpu").join("cpu.cfs_quota_us"),
            &quota(cpu).to_string(),
        )?;
    }
    Ok(())
}

/// Kills what is still in the cgroup, and removes it, those below it and its parent if that is then
/// empty from every hierarchy; no error if there is none.
///
/// # Errors
/// A cgroup that stays busy for [`DYING`].
pub(crate) async fn remove(path: &str) -> io::Result<()> {
    let deadline = Instant::now() + DYING;
    for hierarchy in hierarchies()? {
        let cgroup = in_hierarchy(&hierarchy, path);
        while let Err(error) = remove_tree(&cgroup) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline {
                return Err(error);
            }
            sleep(POLL).await;
        }
        if let Some(parent) = cgroup.parent().filter(|parent| *parent != hierarchy) {
            // Refused while others are in it.
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let root = PathBuf::from(ROOT);
    if is_v2() {
        return Ok(vec![root]);
    }
    // Runtimes make the cgroup in every hierarchy they find, and some are symbolic links; a
    // directory on which none is mounted is not one.
    let mut all: Vec<_> = fs::read_dir(root)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    all.retain(|hierarchy| hierarchy.join("cgroup.procs").exists());
    Ok(all)
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process of another pid namespace; to kill(2) it is the caller's own group.
    for pid in pids
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| *pid > 0)
    {
        // One that is gone already is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(cgroup, &error)),
        _ => Ok(()),
    }
}

pub(crate) fn in_hierarchy(hierarchy: &Path, path: &str) -> PathBuf {
    hierarchy.join(path.trim_start_matches('/'))
}

fn make(cgroup: &Path) -> io::Result<()> {
    let lost = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
        )
    };
    let mut made = fs::create_dir_all(cgroup);
    for _ in 1..ATTEMPTS {
        // The last pod before this one has just taken the parent away.
        if !made.as_ref().is_err_and(lost) {
            break;
        }
        made = fs::create_dir_all(cgroup);
    }
    made.map_err(|error| named(cgroup, &error))
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|error| named(file, &error))
}

pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;

    fn limits(spec: &str) -> Limits {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        Limits::of(&parse("pod.yaml", &text, "uid").unwrap())
    }

    #[test]
    fn a_quota_is_one_that_the_kernel_takes() {
        assert_eq!(quota(1500), 150_000);
        assert_eq!(quota(1), 1000);
        assert_eq!(quota(u64::MAX), (1 << 44) - 1);
    }

    #[test]
    fn limits_beyond_any_machine_add_up() {
        let spec = |name| format!("{{name: {name}, image: i, resources: {{limits: {{cpu: 9P}}}}}}");
        let all = ["a", "b", "c"].map(spec).join(", ");
        assert_eq!(
            limits(&format!("{{containers: [{all}]}}")).cpu,
            Some(u64::MAX)
        );
    }

    #[test]
    fn limits_add_up_where_every_container_has_one() {
        let a = "{name: a, image: i, resources: {limits: {memory: 2Mi, cpu: 1}}}";
        let b = "{name: b, image: i, resources: {limits: {memory: 1Mi}}}";
        let both = limits(&format!("{{containers: [{a}, {b}]}}"));
        assert_eq!(
            both,
            Limits {
                memory: Some(3 << 20),
                cpu: None
            }
        );
        let init = "{name: c, image: i, resources: {limits: {memory: 9Mi}}}";
        let with_init = limits(&format!(
            "{{containers: [{a}, {b}], initContainers: [{init}]}}"
        ));
        assert_eq!(with_init.memory, Some(9 << 20));
    }
}
