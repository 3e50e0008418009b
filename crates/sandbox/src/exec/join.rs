//! Which namespaces a container's init is in that this process is not.
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sched::CloneFlags;

use crate::error::{Doing, JobError};
use crate::namespaces::CLONE_NEWTIME;

/// Names as in `/proc/PID/ns`.
const KINDS: [(&str, CloneFlags); 8] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("time", CLONE_NEWTIME),
    ("user", CloneFlags::CLONE_NEWUSER),
    ("uts", CloneFlags::CLONE_NEWUTS),
];

/// The kinds of namespaces that `init` does not share with this process.
pub(super) fn differing(init: i32) -> Result<CloneFlags, JobError> {
    let mut flags = CloneFlags::empty();
    for (kind, flag) in KINDS {
        // A kernel built without this kind has no such file.
        let Ok(ours) = fs::metadata(format!("/proc/self/ns/{kind}")) else {
            continue;
        };
        let path = format!("/proc/{init}/ns/{kind}");
        let its = fs::metadata(&path).doing(|| format!("look at the namespace {path}"))?;
        flags.set(flag, (ours.dev(), ours.ino()) != (its.dev(), its.ino()));
    }
    Ok(flags)
}
