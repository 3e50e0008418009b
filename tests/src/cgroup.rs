//! Cgroups, v1 and v2, as the tests read them.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Pid;

use crate::command::run;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether this machine has the unified hierarchy only.
#[must_use]
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The roots of the hierarchies: one with v2, one for each v1 controller.
fn roots() -> Vec<PathBuf> {
    if is_v2() {
        return vec![ROOT.into()];
    }
    fs::read_dir(ROOT)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

/// The cgroups of any hierarchy whose name is wanted.
#[must_use]
pub fn below_roots(wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in roots() {
        collect(&root, wanted, &mut found);
    }
    found
}

fn collect(dir: &Path, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            if wanted(&entry.file_name().to_string_lossy()) {
                found.push(path);
            } else {
                collect(&path, wanted, found);
            }
        }
    }
}

/// The cgroup of a process for a v1 controller, or its only one with v2.
///
/// # Panics
/// If the process is gone or in no such hierarchy.
#[must_use]
#[track_caller]
pub fn of(pid: Pid, controller: &str) -> PathBuf {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .unwrap_or_else(|error| panic!("read the cgroups of process {pid}: {error}"));
    for line in lines.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
        let path = path.unwrap_or_default().trim_start_matches('/');
        match controllers {
            Some("") if is_v2() => return Path::new(ROOT).join(path),
            Some(list) if list.split(',').any(|name| name == controller) => {
                return Path::new(ROOT).join(controller).join(path);
            }
            _ => {}
        }
    }
    panic!("process {pid} is in no cgroup of {controller}: {lines}");
}

/// The memory limit of a process's cgroup in bytes, as the kernel holds it.
#[must_use]
#[track_caller]
pub fn memory_limit(pid: Pid) -> String {
    let file = if is_v2() {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    read(&of(pid, "memory"), file)
}

/// The CPU quota and period of a process's cgroup in microseconds, as the kernel holds them.
#[must_use]
#[track_caller]
pub fn cpu_quota(pid: Pid) -> (String, String) {
    let dir = of(pid, "cpu");
    if is_v2() {
        let max = read(&dir, "cpu.max");
        let (quota, period) = max.split_once(' ').unwrap();
        return (quota.into(), period.into());
    }
    (
        read(&dir, "cpu.cfs_quota_us"),
        read(&dir, "cpu.cfs_period_us"),
    )
}

/// One file of a cgroup, without its last line feed.
#[must_use]
#[track_caller]
pub fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        .trim_end()
        .to_owned()
}

/// The folder of a cgroup for a v1 controller, or with v2.
#[must_use]
pub fn folder(controller: &str, path: &str) -> PathBuf {
    let root = if is_v2() {
        ROOT.into()
    } else {
        Path::new(ROOT).join(controller)
    };
    root.join(path.trim_start_matches('/'))
}

/// Makes the cgroup of a pod, as the kubelet does before it asks for the pod.
///
/// # Panics
/// If it cannot.
pub fn make(path: &str) {
    if is_v2() {
        let mut dir = PathBuf::from(ROOT);
        for name in path.trim_start_matches('/').split('/') {
            for controller in ["cpu", "io", "memory", "pids"] {
                fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).ok();
            }
            dir.push(name);
            fs::create_dir_all(&dir).unwrap();
        }
        return;
    }
    for controller in ["cpu", "memory", "pids"] {
        fs::create_dir_all(folder(controller, path)).unwrap();
    }
}

/// Makes a cgroup for a process, where its time is counted apart from everything else's.
///
/// # Panics
/// If it cannot.
pub fn count(path: &str, pid: Pid) {
    let dir = folder("cpuacct", path);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
}

/// Removes the cgroup of a pod, which fails while anything is in it.
pub fn remove(path: &str) {
    if let Some(slice) = path
        .rsplit('/')
        .next()
        .filter(|name| name.ends_with(".slice"))
    {
        run(Command::new("systemctl").args(["stop", slice]));
        return;
    }
    for root in roots() {
        fs::remove_dir(root.join(path.trim_start_matches('/'))).ok();
    }
}
