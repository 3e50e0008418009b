//! The numbers are those of the cgroup, and outlive its processes (contract 29).

use husk_sandbox::cgroup::Stats;

use crate::{Scratch, eventually};

const GIVEN: &str = r#"{"memory":{"limit":67108864},"pids":{"limit":20},
    "cpu":{"quota":10000,"period":100000}}"#;

fn faults(scratch: &Scratch) -> u64 {
    match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => stats.memory.unwrap().stat["total_pgfault"],
        Stats::V2(stats) => stats.memory.unwrap().stat["pgfault"],
    }
}

#[test]
fn numbers_outlive_the_processes() {
    let scratch = Scratch::new("stats", GIVEN);
    let mut child = scratch.run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    child.wait().unwrap();
    // The kernel brings these up to date every 2 s.
    eventually("faults are counted", || faults(&scratch) > 0);
    match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => {
            let cpu = stats.cpu.unwrap();
            assert!(cpu.total > 10_000_000, "{cpu:?}");
            assert!(cpu.user > 0 && !cpu.per_cpu.is_empty());
            assert!(stats.throttling["nr_throttled"] > 0);
            let memory = stats.memory.unwrap();
            assert_eq!(memory.usage.limit, 67_108_864);
            assert!(memory.usage.max > 0);
            assert_eq!(stats.pids.unwrap().limit, 20);
            assert_eq!(stats.pids.unwrap().current, 0);
        }
        Stats::V2(stats) => {
            assert!(stats.cpu["usage_usec"] > 10_000);
            assert!(stats.cpu["nr_throttled"] > 0);
            let memory = stats.memory.unwrap();
            assert_eq!(memory.limit, 67_108_864);
            assert_eq!(memory.events["oom_kill"], 0);
            assert_eq!(stats.pids.unwrap().limit, 20);
            assert_eq!(stats.pids.unwrap().current, 0);
        }
    }
}

#[test]
fn no_limit_is_the_largest_number() {
    let scratch = Scratch::new("unlimited", "{}");
    match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => assert_eq!(stats.pids.unwrap().limit, u64::MAX),
        Stats::V2(stats) => {
            assert_eq!(stats.pids.unwrap().limit, u64::MAX);
            assert_eq!(stats.memory.unwrap().limit, u64::MAX);
        }
    }
}
