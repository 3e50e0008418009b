//! Processes as `/proc` shows them.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Every process there is.
#[must_use]
pub fn all() -> Vec<Pid> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// The command line with blanks between its words; empty for a process that is gone or a zombie.
#[must_use]
pub fn cmdline(pid: Pid) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// The fields of `/proc/PID/status`, by name; empty when the process is gone.
#[must_use]
pub fn status(pid: Pid) -> BTreeMap<String, String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn parent(pid: Pid) -> Option<Pid> {
    Some(Pid::from_raw(status(pid).get("PPid")?.parse().ok()?))
}

/// The processes that descend from this one, without itself.
#[must_use]
pub fn descendants(ancestor: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = all()
        .into_iter()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found.remove(&ancestor);
    found.into_iter().collect()
}

/// Takes the exit status of every child, until there is none.
pub fn reap_all() {
    while waitpid(None, None::<WaitPidFlag>).is_ok() {}
}

/// Whether the process lives: exists and is no zombie.
#[must_use]
pub fn is_alive(pid: Pid) -> bool {
    status(pid)
        .get("State")
        .is_some_and(|state| !state.starts_with('Z'))
}

/// The inode of each namespace of a process, by the names in `/proc/PID/ns`; of `time` only where
/// the kernel has such namespaces.
///
/// # Panics
/// If the process is gone.
#[must_use]
#[track_caller]
pub fn namespaces(pid: Pid) -> BTreeMap<String, String> {
    ["net", "pid", "ipc", "uts", "user", "mnt", "cgroup", "time"]
        .into_iter()
        .filter(|kind| *kind != "time" || Path::new("/proc/self/ns/time").exists())
        .map(|kind| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}"))
                .unwrap_or_else(|error| panic!("read the {kind} namespace of {pid}: {error}"));
            (kind.to_owned(), link.to_string_lossy().into_owned())
        })
        .collect()
}

/// The shims that serve any of these ids: the topmost process of each, not what it forked.
#[must_use]
pub fn shims(ids: &[String]) -> Vec<Pid> {
    let all = shim_processes(ids);
    let is_top = |pid: &Pid| parent(*pid).is_none_or(|parent| !all.contains(&parent));
    all.iter().copied().filter(is_top).collect()
}

/// The shims that serve any of these ids, with the processes they forked for themselves.
#[must_use]
pub fn shim_processes(ids: &[String]) -> Vec<Pid> {
    let is_shim = |pid: &Pid| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = exe.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("containerd-shim")
    };
    let serves = |pid: &Pid| {
        let cmdline = cmdline(*pid);
        ids.iter().any(|id| cmdline.contains(id.as_str()))
    };
    let all: Vec<Pid> = all().into_iter().filter(is_shim).collect();
    // What it forks does not say whom it serves: containers may see it.
    let is_forked =
        |pid: &Pid| parent(*pid).is_some_and(|parent| all.contains(&parent) && serves(&parent));
    let of_these = |pid: &Pid| serves(pid) || is_forked(pid);
    all.iter().copied().filter(of_these).collect()
}
