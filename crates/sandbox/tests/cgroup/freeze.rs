//! Frozen processes do nothing until they are thawed.

use std::io::ErrorKind;
use std::time::Duration;

use husk_sandbox::cgroup::Stats;

use crate::{Scratch, eventually};

const SPIN: &str = "while :; do :; done";

/// CPU time used, in microseconds.
fn used(scratch: &Scratch) -> u64 {
    match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => stats.cpu.unwrap().total / 1000,
        Stats::V2(stats) => stats.cpu["usage_usec"],
    }
}

#[test]
fn a_frozen_process_uses_no_time() {
    let scratch = Scratch::new("freeze", "{}");
    let mut child = scratch.run(SPIN);
    eventually("it runs", || used(&scratch) > 20_000);
    scratch.cgroup.freeze().unwrap();
    let frozen = used(&scratch);
    std::thread::sleep(Duration::from_millis(300));
    // Accounting may lag by a tick.
    assert!(used(&scratch) - frozen < 15_000, "it runs while frozen");
    scratch.cgroup.thaw().unwrap();
    eventually("it runs again", || used(&scratch) > frozen + 20_000);
    scratch.cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn processes_that_fork_all_freeze() {
    let scratch = Scratch::new("forks", r#"{"pids":{"limit":100}}"#);
    let mut child = scratch.run("while :; do (:) & (:) & wait; done");
    for _ in 0..10 {
        scratch.cgroup.freeze().unwrap();
        let pids = scratch.cgroup.pids().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            scratch.cgroup.pids().unwrap(),
            pids,
            "one was forked while frozen"
        );
        scratch.cgroup.thaw().unwrap();
    }
    scratch.cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_empty_cgroup_freezes_and_is_removed_frozen() {
    let scratch = Scratch::new("empty", "{}");
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.remove().unwrap();
    assert_eq!(
        scratch.cgroup.freeze().unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        scratch.cgroup.thaw().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}
