//! Sysctls that belong to a namespace.
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Doing, JobError};
use crate::procfs::Procfs;

/// The kernel keeps these of `kernel.*` in the IPC namespace; see ipc_namespaces(7).
const OF_IPC: [&str; 12] = [
    "auto_msgmni",
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
];

/// The parts of a sysctl's name, and the kind of namespace that it belongs to.
pub(crate) fn belongs_to(name: &str) -> Result<(Vec<String>, &'static str), JobError> {
    let parts = split(name)
        .ok_or_else(|| JobError::invalid(format!("{name:?} is not the name of a sysctl")))?;
    let kind = kind_of(&parts).ok_or_else(|| {
        JobError::invalid(format!(
            "the sysctl {name} belongs to no namespace: set it on the node"
        ))
    })?;
    Ok((parts, kind))
}

/// Writes a sysctl in the namespaces this process is in. `ours` are the kinds, as in
/// `/proc/PID/ns`, that are not the node's: a sysctl of any other would change the node.
pub(crate) fn write(name: &str, value: &str, ours: &[&str]) -> Result<(), JobError> {
    let (parts, kind) = belongs_to(name)?;
    if !ours.contains(&kind) {
        return Err(JobError::invalid(format!(
            "the sysctl {name} would change the node: the {kind} namespace is not the pod's own"
        )));
    }
    let path: PathBuf = Path::new("sys").join(parts.iter().collect::<PathBuf>());
    let what = || format!("set the sysctl {name} to {value:?}");
    // Whatever else is mounted there, writing to it would not set anything, or what nobody asked for
    // (CVE-2019-19921, CVE-2025-52881).
    let opened = Procfs::mounted().and_then(|procfs| procfs.open_to_write(&path));
    let mut file = opened.map_err(|errno| match errno {
        Errno::ENOENT => JobError::not_found(format!(
            "the node does not have the sysctl {name}: is it misspelt?"
        )),
        Errno::EXDEV | Errno::ELOOP => JobError::failed(format!(
            "cannot {}: the node's /proc is no procfs, or something is mounted over the sysctl",
            what()
        )),
        errno => JobError::from_errno(errno, what()),
    })?;
    file.write_all(value.as_bytes()).doing(what)
}

/// The parts of a name, whose separator is the first of `.` and `/` in it, as for sysctl(8): the
/// other may then be part of a part, as in `net.ipv4.conf.eth0/1.forwarding`.
fn split(name: &str) -> Option<Vec<String>> {
    let separator = name.chars().find(|c| matches!(c, '.' | '/'))?;
    let parts: Vec<String> = name
        .split(separator)
        .map(|part| {
            if separator == '.' {
                part.replace('/', ".")
            } else {
                part.to_owned()
            }
        })
        .collect();
    let is_plain =
        |part: &String| !matches!(part.as_str(), "" | "." | "..") && !part.contains('\0');
    parts.iter().all(is_plain).then_some(parts)
}

/// The kind of namespace a sysctl belongs to.
fn kind_of(parts: &[String]) -> Option<&'static str> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["net", ..] => Some("net"),
        ["kernel", "hostname" | "domainname"] => Some("uts"),
        ["kernel", name] if OF_IPC.contains(name) => Some("ipc"),
        ["fs", "mqueue", ..] => Some("ipc"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sysctl_does() {
        assert_eq!(
            split("net.ipv4.ip_forward").unwrap(),
            ["net", "ipv4", "ip_forward"]
        );
        assert_eq!(
            split("net/ipv4/conf/eth0.1/x").unwrap(),
            ["net", "ipv4", "conf", "eth0.1", "x"]
        );
        assert_eq!(
            split("net.conf.eth0/1.x").unwrap(),
            ["net", "conf", "eth0.1", "x"]
        );
        for wrong in ["", "net", "net..x", "net/../x", "/net/x", "net./.x"] {
            assert!(split(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_would_change_the_node_is_refused() {
        let all = ["net", "ipc", "uts"];
        for (name, ours) in [
            ("vm.swappiness", &all[..]),
            ("kernel.panic", &all),
            ("kernel.shmmax.x", &all),
            ("net.ipv4.ip_forward", &["ipc", "uts"]),
            ("kernel.shmmax", &["net"]),
            ("fs.mqueue.msg_max", &["net"]),
            ("kernel.domainname", &["net"]),
        ] {
            let error = write(name, "1", ours).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
    }
}
