//! Where the shim's own process stands: its cgroup and its place in the OOM killer's order
//! (contract 8).
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The highest score there is, see proc_pid_oom_score_adj(5).
const MAX_SCORE: i32 = 1000;

/// Moves this process into the cgroup `ShimCgroup` of the handler's options, in every hierarchy
/// that has it.
///
/// # Errors
/// No hierarchy has it: it is the operator's to make.
pub(crate) fn enter_cgroup(cgroup: &str) -> Result<()> {
    let relative = cgroup.trim_start_matches('/');
    let mut entered = false;
    for mount in cgroup_mounts()? {
        let procs = mount.join(relative).join("cgroup.procs");
        if procs.exists() {
            fs::write(&procs, "0").with_context(|| format!("enter {}", procs.display()))?;
            entered = true;
        }
    }
    if !entered {
        bail!("the handler's ShimCgroup {cgroup} does not exist: create it, or drop the option");
    }
    Ok(())
}

/// The mount points of the cgroup filesystems.
fn cgroup_mounts() -> Result<Vec<PathBuf>> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    Ok(mountinfo.lines().filter_map(cgroup_mount).collect())
}

/// The mount point, if this line of proc_pid_mountinfo(5) is about a cgroup filesystem.
fn cgroup_mount(line: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let kind = filesystem.split(' ').next()?;
    (kind == "cgroup" || kind == "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

/// Makes this process one step likelier to be killed than its parent, containerd, so that
/// containerd outlives its shims.
///
/// # Errors
/// The parent is gone, or the kernel refuses: lowering takes CAP_SYS_RESOURCE.
pub(crate) fn follow_oom_score(parent: u32) -> io::Result<()> {
    let path = PathBuf::from(format!("/proc/{parent}/oom_score_adj"));
    let score: i32 = fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    let own = (score + 1).min(MAX_SCORE);
    fs::write(Path::new("/proc/self/oom_score_adj"), own.to_string())
}

/// Lets this process have as many descriptors as it may: each container's I/O takes several.
/// Call it after the zygote was forked: containers keep the limit that containerd had.
///
/// # Errors
/// What setrlimit(2) says.
pub(crate) fn raise_descriptor_limit() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_mounts_are_told_from_others() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids";
        let v2 = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let other = "32 25 0:28 / /sys rw - sysfs sysfs rw";
        assert_eq!(cgroup_mount(v1), Some(PathBuf::from("/sys/fs/cgroup/pids")));
        assert_eq!(cgroup_mount(v2), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup_mount(other), None);
    }

    #[test]
    fn a_cgroup_nobody_made_is_an_error() {
        let error = enter_cgroup("/husk-test-nobody-made-this").unwrap_err();
        assert!(error.to_string().contains("ShimCgroup"), "{error}");
    }
}
