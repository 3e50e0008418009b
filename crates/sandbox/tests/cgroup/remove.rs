//! Removing takes what is below along, and waits a little for the dying.

use std::io::ErrorKind;

use crate::{Scratch, dirs};

#[test]
fn cgroups_below_go_along() {
    let scratch = Scratch::new("below", "{}");
    for dir in dirs(&scratch.cgroup) {
        std::fs::create_dir_all(dir.join("a/b/c")).unwrap();
        std::fs::create_dir_all(dir.join("d")).unwrap();
    }
    scratch.cgroup.remove().unwrap();
    assert!(!scratch.cgroup.exists());
    scratch.cgroup.remove().unwrap();
}

#[test]
fn the_killed_may_take_a_moment() {
    let scratch = Scratch::new("dying", r#"{"pids":{"limit":200}}"#);
    let mut child = scratch.run("for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait");
    crate::eventually("they run", || scratch.cgroup.pids().unwrap().len() == 10);
    scratch.cgroup.kill().unwrap();
    scratch.cgroup.remove().unwrap();
    assert!(!scratch.cgroup.exists());
    child.wait().unwrap();
}

#[test]
fn a_process_keeps_it() {
    let scratch = Scratch::new("kept", "{}");
    let mut child = scratch.run("exec sleep 60");
    assert_eq!(
        scratch.cgroup.remove().unwrap_err().kind(),
        ErrorKind::ResourceBusy
    );
    assert!(scratch.cgroup.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    scratch.cgroup.remove().unwrap();
}
