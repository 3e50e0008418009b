//! What is mounted in a container.
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Sandbox;
use crate::manifest::{Container, Pod, Propagation};

/// A volume, ready to be bound: made, checked, and its subPath resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeBind {
    /// On the node.
    pub source: PathBuf,
    /// In the container.
    pub destination: PathBuf,
    /// It cannot be written.
    pub read_only: bool,
    /// Nor can the mounts below it.
    pub recursive_read_only: bool,
    /// Which later mounts are seen.
    pub propagation: Propagation,
}

pub(super) fn mounts(
    pod: &Pod,
    container: &Container,
    sandbox: &Sandbox,
    volumes: &[VolumeBind],
) -> Vec<Value> {
    let mut all = kernel(!container.security.privileged);
    let access = if container.security.read_only_root {
        "ro"
    } else {
        "rw"
    };
    for (destination, source) in &sandbox.files {
        all.push(bind(source, destination, &["rbind", "rprivate", access]));
    }
    let shm = if pod.host_ipc {
        Some(Path::new("/dev/shm"))
    } else {
        sandbox.shm.as_deref()
    };
    if let Some(shm) = shm {
        all.push(bind(
            shm,
            Path::new("/dev/shm"),
            &["rbind", "rprivate", "rw"],
        ));
    }
    let mut volumes: Vec<_> = volumes.iter().collect();
    // A volume inside another must be mounted after it.
    volumes.sort_by_key(|volume| volume.destination.components().count());
    all.extend(volumes.into_iter().map(volume_bind));
    without_hidden(all)
}

/// The kernel's filesystems, and the tmpfs of /dev and /dev/shm.
pub(super) fn kernel(read_only: bool) -> Vec<Value> {
    let access = if read_only { "ro" } else { "rw" };
    vec![
        json!({"type": "proc", "source": "proc", "destination": "/proc",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"type": "tmpfs", "source": "tmpfs", "destination": "/dev",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"type": "devpts", "source": "devpts", "destination": "/dev/pts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"type": "tmpfs", "source": "shm", "destination": "/dev/shm",
               "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"type": "mqueue", "source": "mqueue", "destination": "/dev/mqueue",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"type": "sysfs", "source": "sysfs", "destination": "/sys",
               "options": ["nosuid", "noexec", "nodev", access]}),
        json!({"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup",
               "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
    ]
}

fn bind(source: &Path, destination: &Path, options: &[&str]) -> Value {
    json!({"type": "bind", "source": source, "destination": destination, "options": options})
}

fn volume_bind(volume: &VolumeBind) -> Value {
    let access = match (volume.read_only, volume.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let propagation = match volume.propagation {
        Propagation::None => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    bind(
        &volume.source,
        &volume.destination,
        &["rbind", propagation, access],
    )
}

/// Of two mounts at one path only the later: the pod's author asked for it.
fn without_hidden(all: Vec<Value>) -> Vec<Value> {
    let destinations: Vec<_> = all
        .iter()
        .map(|mount| mount["destination"].clone())
        .collect();
    all.into_iter()
        .enumerate()
        .filter(|(index, mount)| {
            !destinations
                .iter()
                .skip(index + 1)
                .any(|later| *later == mount["destination"])
        })
        .map(|(_, mount)| mount)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_mount_at_a_path_stays() {
        let at = |path: &str, kind: &str| json!({"destination": path, "type": kind});
        let kept = without_hidden(vec![
            at("/dev/shm", "tmpfs"),
            at("/a", "x"),
            at("/dev/shm", "bind"),
        ]);
        assert_eq!(kept, [at("/a", "x"), at("/dev/shm", "bind")]);
    }
}
