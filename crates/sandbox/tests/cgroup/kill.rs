//! Killing leaves no process, however they try to get away.

use std::os::unix::process::ExitStatusExt;

use crate::{Scratch, dirs, eventually};

fn is_empty(scratch: &Scratch) -> bool {
    scratch.cgroup.pids().unwrap().is_empty()
}

#[test]
fn a_tree_that_keeps_forking_dies() {
    let scratch = Scratch::new("bomb", r#"{"pids":{"limit":300}}"#);
    // A shell that cannot fork exits: the first one has forked before the limit can be reached.
    let mut child = scratch.run("bomb() { (bomb) & (bomb) & sleep 60; }; (bomb) & exec sleep 60");
    eventually("it grows", || scratch.cgroup.pids().unwrap().len() > 50);
    scratch.cgroup.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("it is empty", || is_empty(&scratch));
}

#[test]
fn frozen_processes_die() {
    let scratch = Scratch::new("frozen", "{}");
    let mut child = scratch.run("exec sleep 60");
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("it is empty", || is_empty(&scratch));
}

#[test]
fn processes_in_cgroups_below_die() {
    let scratch = Scratch::new("deep", "{}");
    let mut child = crate::held("exec sleep 60");
    for dir in dirs(&scratch.cgroup) {
        let below = dir.join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        // On v1 a new cpuset takes no process, and killing looks elsewhere.
        drop(std::fs::write(
            below.join("cgroup.procs"),
            child.id().to_string(),
        ));
    }
    crate::release(&mut child);
    assert_eq!(scratch.cgroup.pids().unwrap(), [crate::pid(&child)]);
    scratch.cgroup.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("it is empty", || is_empty(&scratch));
}

#[test]
fn a_cgroup_that_is_gone_has_none_to_kill() {
    let scratch = Scratch::new("none", "{}");
    scratch.cgroup.kill().unwrap();
    scratch.cgroup.remove().unwrap();
    scratch.cgroup.kill().unwrap();
}
