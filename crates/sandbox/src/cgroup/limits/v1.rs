//! Limits in the files of the cgroup v1 hierarchies.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};

use super::{Write, huge_pages, rdma};
use crate::cgroup::error::{Error, Result};

/// What to write.
pub(in crate::cgroup) fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    if resources
        .unified()
        .as_ref()
        .is_some_and(|unified| !unified.is_empty())
    {
        return Err(Error::Unsupported(
            "resources.unified names files of cgroup v2, and this node has v1".into(),
        ));
    }
    let mut writes = Vec::new();
    if let Some(given) = resources.memory() {
        memory(given, &mut writes);
    }
    if let Some(given) = resources.cpu() {
        cpu(given, &mut writes);
    }
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        writes.push(Write::new("pids", "pids.max", super::or_max(pids.limit())));
    }
    if let Some(given) = resources.block_io() {
        block_io(given, &mut writes);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        huge_pages(
            limit,
            "limit_in_bytes",
            &limit.limit().to_string(),
            &mut writes,
        )?;
    }
    if let Some(given) = resources.network() {
        network(given, &mut writes);
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        writes.push(Write::new("rdma", "rdma.max", rdma(device, limit)));
    }
    Ok(writes)
}

fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>) {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = set(memory.limit());
    if let Some(swap) = set(memory.swap()) {
        writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", swap));
    } else if limit.is_some_and(|limit| limit < 0) {
        // No limit of memory and one of memory and swap together exclude each other.
        writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", -1).optional_if(true));
    }
    for (file, value) in [
        ("memory.limit_in_bytes", limit),
        ("memory.soft_limit_in_bytes", set(memory.reservation())),
        ("memory.kmem.tcp.limit_in_bytes", set(memory.kernel_tcp())),
    ] {
        if let Some(value) = value {
            writes.push(Write::new("memory", file, value));
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        writes.push(Write::new("memory", "memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1));
    }
}

fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    let mut push = |controller, file, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            writes.push(Write::new(controller, file, value));
        }
    };
    let positive = |value: Option<u64>| value.filter(|value| *value != 0).map(|it| it.to_string());
    let nonzero = |value: Option<i64>| value.filter(|value| *value != 0).map(|it| it.to_string());
    push("cpu", "cpu.shares", positive(cpu.shares()));
    push("cpu", "cpu.cfs_period_us", positive(cpu.period()));
    push("cpu", "cpu.cfs_quota_us", nonzero(cpu.quota()));
    push(
        "cpu",
        "cpu.cfs_burst_us",
        cpu.burst().map(|burst| burst.to_string()),
    );
    push("cpu", "cpu.rt_period_us", positive(cpu.realtime_period()));
    push("cpu", "cpu.rt_runtime_us", nonzero(cpu.realtime_runtime()));
    push("cpu", "cpu.idle", cpu.idle().map(|idle| idle.to_string()));
    push("cpuset", "cpuset.cpus", cpu.cpus().clone());
    push("cpuset", "cpuset.mems", cpu.mems().clone());
}

fn block_io(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    let mut weigh = |kind: &str, value: String| {
        let write = Write::new("blkio", format!("blkio.bfq.{kind}"), &value);
        writes.push(write.or(&format!("blkio.{kind}"), value));
    };
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        weigh("weight", weight.to_string());
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            weigh(
                "weight_device",
                format!("{}:{} {weight}", device.major(), device.minor()),
            );
        }
    }
    throttle("read_bps_device", io.throttle_read_bps_device(), writes);
    throttle("write_bps_device", io.throttle_write_bps_device(), writes);
    throttle("read_iops_device", io.throttle_read_iops_device(), writes);
    throttle("write_iops_device", io.throttle_write_iops_device(), writes);
}

fn throttle(file: &str, devices: &Option<Vec<LinuxThrottleDevice>>, writes: &mut Vec<Write>) {
    for device in devices.iter().flatten() {
        let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
        writes.push(Write::new("blkio", format!("blkio.throttle.{file}"), value));
    }
}

fn network(network: &LinuxNetwork, writes: &mut Vec<Write>) {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        writes.push(Write::new("net_cls", "net_cls.classid", class));
    }
    for priority in network.priorities().iter().flatten() {
        let value = format!("{} {}", priority.name(), priority.priority());
        writes.push(Write::new("net_prio", "net_prio.ifpriomap", value));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pairs, values};
    use super::*;

    fn written(json: &str) -> Vec<(String, String)> {
        values(&writes(&serde_json::from_str(json).unwrap()).unwrap())
    }

    #[test]
    fn memory_and_cpu_have_their_files() {
        assert_eq!(
            written(
                r#"{"memory":{"limit":100,"swap":200},
                "cpu":{"shares":512,"quota":-1,"period":100000,"cpus":"0-1","mems":""},
                "pids":{"limit":-1}}"#
            ),
            pairs(&[
                ("memory.memsw.limit_in_bytes", "200"),
                ("memory.limit_in_bytes", "100"),
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "-1"),
                ("cpuset.cpus", "0-1"),
                ("pids.max", "max"),
            ])
        );
    }

    #[test]
    fn no_memory_limit_means_no_swap_limit() {
        assert_eq!(
            written(r#"{"memory":{"limit":-1}}"#),
            pairs(&[
                ("memory.memsw.limit_in_bytes", "-1"),
                ("memory.limit_in_bytes", "-1")
            ])
        );
    }

    #[test]
    fn what_is_not_named_is_not_written() {
        assert!(
            written(r#"{"memory":{"limit":0},"cpu":{"shares":0},"pids":{"limit":0}}"#).is_empty()
        );
    }

    #[test]
    fn files_of_v2_are_refused() {
        let resources = serde_json::from_str(r#"{"unified":{"memory.high":"1"}}"#).unwrap();
        assert!(matches!(writes(&resources), Err(Error::Unsupported(_))));
    }
}
