//! Limits are in the cgroup's files when it is made, and after an update.

use std::io::ErrorKind;

use husk_sandbox::cgroup::{Cgroup, Driver, Stats};

use crate::{Scratch, eventually, path, pid, read, resources, unified};

const GIVEN: &str = r#"{"memory":{"limit":67108864,"reservation":33554432},
    "cpu":{"shares":512,"quota":50000,"period":100000},"pids":{"limit":20}}"#;

#[test]
fn limits_are_in_force_from_the_start() {
    let scratch = Scratch::new("limits", GIVEN);
    let read = |controller, file| read(&scratch.cgroup, controller, file);
    assert_eq!(read("pids", "pids.max"), "20");
    if unified(&scratch.cgroup) {
        assert_eq!(read("memory", "memory.max"), "67108864");
        assert_eq!(read("memory", "memory.low"), "33554432");
        assert_eq!(read("cpu", "cpu.max"), "50000 100000");
        assert_eq!(read("cpu", "cpu.weight"), "59");
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(read("memory", "memory.soft_limit_in_bytes"), "33554432");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("cpu", "cpu.shares"), "512");
    }
}

#[test]
fn an_update_changes_what_it_names() {
    let scratch = Scratch::new("update", GIVEN);
    let update = |json| {
        scratch
            .cgroup
            .update(Driver::Cgroupfs, &resources(json))
            .unwrap()
    };
    let read = |controller, file| read(&scratch.cgroup, controller, file);
    update(r#"{"memory":{"limit":134217728},"cpu":{"quota":20000}}"#);
    assert_eq!(read("pids", "pids.max"), "20", "not named");
    if unified(&scratch.cgroup) {
        assert_eq!(read("memory", "memory.max"), "134217728");
        assert_eq!(read("memory", "memory.low"), "33554432", "not named");
        assert_eq!(
            read("cpu", "cpu.max"),
            "20000 100000",
            "the period is not named"
        );
        update(r#"{"cpu":{"quota":-1},"memory":{"limit":-1},"unified":{"memory.high":"1048576"}}"#);
        assert_eq!(read("cpu", "cpu.max"), "max 100000");
        assert_eq!(read("memory", "memory.max"), "max");
        assert_eq!(read("memory", "memory.high"), "1048576");
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), "134217728");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "20000");
        assert_eq!(read("cpu", "cpu.cfs_period_us"), "100000", "not named");
    }
}

/// The kernel wants memory ≤ memory and swap at each step, up and down.
#[test]
fn memory_and_swap_rise_and_fall_together() {
    let scratch = Scratch::new("swap", r#"{"memory":{"limit":33554432,"swap":67108864}}"#);
    for (limit, both) in [(134_217_728, 268_435_456), (16_777_216, 16_777_216)] {
        let json = format!(r#"{{"memory":{{"limit":{limit},"swap":{both}}}}}"#);
        scratch
            .cgroup
            .update(Driver::Cgroupfs, &resources(&json))
            .unwrap();
        if unified(&scratch.cgroup) {
            let swap = read(&scratch.cgroup, "memory", "memory.swap.max");
            assert_eq!(swap, (both - limit).to_string());
        } else {
            let read = |file| read(&scratch.cgroup, "memory", file);
            assert_eq!(read("memory.limit_in_bytes"), limit.to_string());
            assert_eq!(read("memory.memsw.limit_in_bytes"), both.to_string());
        }
    }
}

fn used(scratch: &Scratch) -> u64 {
    match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => stats.memory.unwrap().usage.usage,
        Stats::V2(stats) => stats.memory.unwrap().usage,
    }
}

#[test]
fn an_update_that_would_kill_is_refused_if_asked_to() {
    let scratch = Scratch::new("check", "{}");
    let mut child = scratch.run("exec dd if=/dev/zero of=/dev/null bs=16M");
    eventually("it has memory", || used(&scratch) > 8 << 20);
    let json = r#"{"memory":{"limit":4194304,"checkBeforeUpdate":true}}"#;
    let error = scratch
        .cgroup
        .update(Driver::Cgroupfs, &resources(json))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(child.try_wait().unwrap(), None);
    scratch.cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_limit_of_processes_holds() {
    let scratch = Scratch::new("pids", r#"{"pids":{"limit":5}}"#);
    let mut child = scratch.run("while :; do sleep 60 & done");
    child.wait().unwrap();
    assert!(scratch.cgroup.pids().unwrap().len() <= 5);
}

#[test]
fn a_limit_below_a_cgroup_with_processes_says_why_not() {
    let above = Scratch::new("busy", "{}");
    if !unified(&above.cgroup) {
        return;
    }
    let mut child = above.run("exec sleep 60");
    let name = format!("{}/child", path("busy"));
    let limit = resources(r#"{"memory":{"limit":67108864}}"#);
    let error = Cgroup::make(Driver::Cgroupfs, Some(&name), "child", Some(&limit)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("processes of its own"),
        "{error}"
    );
    assert_eq!(above.cgroup.pids().unwrap(), [pid(&child)]);
    above.cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_update_of_a_cgroup_that_is_gone_is_not_found() {
    let named = Cgroup::named(Driver::Cgroupfs, Some(&path("gone")), "gone").unwrap();
    let error = named
        .update(Driver::Cgroupfs, &resources(GIVEN))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
