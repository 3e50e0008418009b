//! What a container, a pod or a whole run leaves behind. Nothing, if all is well.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::command::poll;
use crate::image::hex;
use crate::{cgroup, process};

/// Waits until nothing on the machine is named after these ids: no process, mount, cgroup, file
/// of containerd's or the shim's, socket.
///
/// # Panics
/// If something is left after ten seconds, with a list of it.
#[track_caller]
pub fn assert_none(socket: &Path, namespace: &str, ids: &[String]) {
    let mut left = BTreeSet::new();
    let gone = poll(Duration::from_secs(10), || {
        left = of(socket, namespace, ids);
        left.is_empty().then_some(())
    });
    assert!(gone.is_some(), "left behind: {left:#?}");
}

/// What is named after these ids.
#[must_use]
pub fn of(socket: &Path, namespace: &str, ids: &[String]) -> BTreeSet<String> {
    let named = |text: &str| ids.iter().any(|id| text.contains(id.as_str()));
    let mut left = BTreeSet::new();
    for pid in process::all() {
        let cmdline = process::cmdline(pid);
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let is_client = cmdline.contains("/ctr ");
        if (named(&cmdline) && !is_client) || named(&cgroups) {
            let state = process::status(pid).remove("State").unwrap_or_default();
            left.insert(format!("process {pid} {state}: {cmdline}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| named(line))
            .map(|line| format!("mount {line}")),
    );
    left.extend(
        cgroup::below_roots(&|name| named(name))
            .into_iter()
            .map(|dir| format!("cgroup {}", dir.display())),
    );
    for root in ["/run/husk", "/run/containerd"] {
        walk(Path::new(root), &mut |path| {
            if named(&path.to_string_lossy()) {
                left.insert(format!("file {}", path.display()));
            }
        });
    }
    for id in ids {
        let file = shim_socket(socket, namespace, id);
        if file.exists() {
            left.insert(format!("socket {} of {id}", file.display()));
        }
    }
    left
}

/// The socket of a shim, named as containerd's own shim names it (contract 6).
#[must_use]
pub fn shim_socket(containerd: &Path, namespace: &str, id: &str) -> PathBuf {
    let name = containerd.join(namespace).join(id);
    let digest = Sha256::digest(name.to_string_lossy().as_bytes());
    Path::new("/run/containerd/s").join(hex(&digest))
}

/// Removes this run's cgroups; what still had processes or children is what a test left.
pub fn remove_cgroups(tag: &str) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    for dir in cgroup::below_roots(&|name| name.starts_with(tag)) {
        let mut children = Vec::new();
        walk(&dir, &mut |path| {
            if path.is_dir() {
                children.push(path.to_owned());
            }
        });
        for child in children.iter().rev() {
            left.insert(format!("cgroup {}", child.display()));
            fs::remove_dir(child).ok();
        }
        fs::remove_dir(&dir).ok();
    }
    left
}

/// The mounts below a folder, other than itself.
#[must_use]
pub fn mounts_below(dir: &Path) -> BTreeSet<String> {
    let prefix = format!("{}/", dir.display());
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|point| point.starts_with(&prefix))
        })
        .map(|line| format!("mount {line}"))
        .collect()
}

/// What shims and CNI left in the lab's folders of `/run`.
#[must_use]
pub fn files_in_run() -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    for root in ["/run/husk", "/run/netns", "/run/containerd/s"] {
        walk(Path::new(root), &mut |path| {
            if !path.is_dir() {
                left.insert(format!("file {}", path.display()));
            }
        });
    }
    left
}

/// Calls for everything below a folder, parents before their children.
fn walk(dir: &Path, seen: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        seen(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, seen);
        }
    }
}
