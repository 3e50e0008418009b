//! Kills for want of memory are noticed and counted (contracts 29 and 38).

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;

use husk_sandbox::cgroup::{OomWatch, Stats};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Scratch, eventually};

/// Takes memory until there is none.
const HOG: &str = "exec tail /dev/zero";
/// Without swap, so that the limit is met whatever the machine has.
const SMALL: &str = r#"{"memory":{"limit":16777216,"swap":16777216}}"#;

fn readable(watch: &OomWatch, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(milliseconds)).unwrap() == 1
}

fn counted(scratch: &Scratch) -> u64 {
    match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => stats.memory.unwrap().oom_control["oom_kill"],
        Stats::V2(stats) => stats.memory.unwrap().events["oom_kill"],
    }
}

#[test]
fn a_kill_is_noticed_once_and_counted() {
    let scratch = Scratch::new("oom", SMALL);
    let mut watch = scratch.cgroup.watch_oom().unwrap();
    assert!(!watch.fired().unwrap());
    for round in 1..=2 {
        let mut hog = scratch.run(HOG);
        assert!(readable(&watch, 10_000), "no notice");
        eventually("the kill is noticed", || watch.fired().unwrap());
        assert_eq!(hog.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(!watch.fired().unwrap(), "noticed twice");
        assert_eq!(counted(&scratch), round);
    }
}

#[test]
fn another_kill_is_none_of_its_business() {
    let scratch = Scratch::new("sigkill", SMALL);
    let mut watch = scratch.cgroup.watch_oom().unwrap();
    let mut child = scratch.run("exec sleep 60");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!watch.fired().unwrap());
    assert_eq!(counted(&scratch), 0);
}

#[test]
fn a_cgroup_below_counts_too() {
    let scratch = Scratch::new("nested", SMALL);
    let mut watch = scratch.cgroup.watch_oom().unwrap();
    let dir = crate::dirs(&scratch.cgroup)
        .into_iter()
        .find(|dir| dir.join("memory.stat").exists())
        .unwrap();
    let below = dir.join("below");
    std::fs::create_dir(&below).unwrap();
    let mut hog = crate::held(HOG);
    std::fs::write(below.join("cgroup.procs"), hog.id().to_string()).unwrap();
    crate::release(&mut hog);
    assert_eq!(hog.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("the kill is noticed", || watch.fired().unwrap());
}

#[test]
fn a_cgroup_that_is_gone_is_said_to_be() {
    let scratch = Scratch::new("removed", "{}");
    let mut watch = scratch.cgroup.watch_oom().unwrap();
    scratch.cgroup.remove().unwrap();
    assert!(readable(&watch, 10_000));
    assert_eq!(watch.fired().unwrap_err().kind(), ErrorKind::NotFound);
}
