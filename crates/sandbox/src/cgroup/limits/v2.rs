//! Limits in the files of cgroup v2.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::{PERIOD, Write, huge_pages, or_max, rdma};
use crate::cgroup::error::{Error, Result};

/// What files of the cgroup say now, for values that follow from two of which one is named.
#[derive(Debug, Default)]
pub(in crate::cgroup) struct Now {
    /// `cpu.max`, if it is there.
    cpu_max: Option<String>,
    /// `memory.max`, in bytes, if there is a limit.
    memory_max: Option<i64>,
    /// `memory.swap.max`, in bytes, if there is a limit.
    swap_max: Option<i64>,
}

impl Now {
    /// Reads what these limits need, with what reads a file of the cgroup if it is there.
    pub(in crate::cgroup) fn read(
        resources: &LinuxResources,
        file: impl Fn(&str) -> Result<Option<String>>,
    ) -> Result<Self> {
        let bytes = |name| Ok(file(name)?.and_then(|text| text.trim().parse().ok()));
        let mut now = Self::default();
        if resources.cpu().is_some() {
            now.cpu_max = file("cpu.max")?;
        }
        match resources.memory().as_ref().map(named) {
            Some((Some(_), None)) => {
                now.swap_max = bytes("memory.swap.max")?;
                if now.swap_max.is_some() {
                    now.memory_max = bytes("memory.max")?;
                }
            }
            Some((None, Some(_))) => now.memory_max = bytes("memory.max")?,
            _ => {}
        }
        Ok(now)
    }
}

/// What to write.
pub(in crate::cgroup) fn writes(resources: &LinuxResources, now: &Now) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    check_has_file(resources)?;
    if let Some(given) = resources.memory() {
        memory(given, now, &mut writes)?;
    }
    if let Some(given) = resources.cpu() {
        cpu(given, now.cpu_max.as_deref(), &mut writes);
    }
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        writes.push(Write::new("pids", "pids.max", or_max(pids.limit())));
    }
    if let Some(given) = resources.block_io() {
        block_io(given, &mut writes);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        huge_pages(limit, "max", &or_max(limit.limit()), &mut writes)?;
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        writes.push(Write::new("rdma", "rdma.max", rdma(device, limit)));
    }
    unified(resources, &mut writes)?;
    Ok(writes)
}

/// Refuses what only v1 has a file for: it would hold on one node, and be left out without a word on
/// another.
fn check_has_file(resources: &LinuxResources) -> Result<()> {
    let set = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let network = resources.network().as_ref();
    let asked = [
        ("memory.kernel", memory.is_some_and(|it| set(it.kernel()))),
        (
            "memory.kernelTCP",
            memory.is_some_and(|it| set(it.kernel_tcp())),
        ),
        (
            "memory.swappiness",
            memory.is_some_and(|it| it.swappiness().is_some()),
        ),
        (
            "memory.disableOOMKiller",
            memory.is_some_and(|it| it.disable_oom_killer() == Some(true)),
        ),
        (
            "cpu.realtimeRuntime",
            cpu.is_some_and(|it| set(it.realtime_runtime())),
        ),
        (
            "cpu.realtimePeriod",
            cpu.is_some_and(|it| it.realtime_period().is_some_and(|it| it > 0)),
        ),
        (
            "network.classID",
            network.is_some_and(|it| it.class_id().is_some_and(|it| it > 0)),
        ),
        (
            "network.priorities",
            network.is_some_and(|it| it.priorities().iter().flatten().next().is_some()),
        ),
    ];
    match asked.iter().find(|(_, is_asked)| *is_asked) {
        None => Ok(()),
        Some((field, _)) => Err(Error::Unsupported(format!(
            "resources.{field} is for cgroup v1, and nothing of cgroup v2, which this node has, does \
             the same: leave it out"
        ))),
    }
}

/// The limits of memory, and of memory and swap together.
fn named(memory: &LinuxMemory) -> (Option<i64>, Option<i64>) {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    (set(memory.limit()), set(memory.swap()))
}

fn memory(memory: &LinuxMemory, now: &Now, writes: &mut Vec<Write>) -> Result<()> {
    let (limit, both) = named(memory);
    if let Some(swap) = swap(limit, both, now)? {
        let write = Write::new("memory", "memory.swap.max", or_max(swap));
        // A kernel that cannot swap keeps to no swap, and to any, by itself.
        writes.push(write.optional_if(swap <= 0));
    }
    if let Some(limit) = limit {
        writes.push(Write::new("memory", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        writes.push(Write::new("memory", "memory.low", or_max(reservation)));
    }
    Ok(())
}

/// `memory.swap.max` is swap alone; the spec's swap is that of v1, memory and swap together. Where one of
/// the two is named, the other is what it was, as in v1, where the kernel keeps both.
fn swap(limit: Option<i64>, both: Option<i64>, now: &Now) -> Result<Option<i64>> {
    match (limit, both) {
        (Some(..0), None) | (_, Some(..0)) => Ok(Some(-1)),
        (None, None) => Ok(None),
        // Nothing can be taken off what has no end: then it is that of swap.
        (Some(..0), Some(both)) => Ok(Some(both)),
        (Some(limit), None) => match (now.memory_max, now.swap_max) {
            (Some(memory), Some(swap)) => left(limit, memory.saturating_add(swap)).map(Some),
            _ => Ok(None),
        },
        (Some(limit), Some(both)) => left(limit, both).map(Some),
        (None, Some(both)) => match now.memory_max {
            Some(limit) => left(limit, both).map(Some),
            None => Err(Error::Invalid(format!(
                "memory.swap of {both} counts memory and swap together, so it needs a memory.limit \
                 (-1 for none, and for that much swap)"
            ))),
        },
    }
}

/// What a limit of both leaves to swap.
fn left(limit: i64, both: i64) -> Result<i64> {
    if both >= limit {
        return Ok(both - limit);
    }
    Err(Error::Invalid(format!(
        "memory.swap of {both} counts memory and swap together, so it cannot be less than the \
         memory.limit of {limit}: change both"
    )))
}

fn cpu(cpu: &LinuxCpu, cpu_max: Option<&str>, writes: &mut Vec<Write>) {
    // Before the weight: an idle cgroup takes no weight.
    if let Some(idle) = cpu.idle() {
        writes.push(Write::new("cpu", "cpu.idle", idle));
    }
    let shares = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle() != Some(1));
    if let Some(shares) = shares {
        writes.push(Write::new("cpu", "cpu.weight", weight(shares)));
    }
    if let Some(value) = quota(cpu, cpu_max) {
        writes.push(Write::new("cpu", "cpu.max", value));
    }
    if let Some(burst) = cpu.burst() {
        writes.push(Write::new("cpu", "cpu.max.burst", burst));
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            writes.push(Write::new("cpuset", file, list));
        }
    }
}

/// CPU shares (2 to 262144, by default 1024) as a weight (1 to 10000, by default 100).
///
/// The curve that runc and crun have agreed on goes through both ends and both defaults; the line
/// used before gave a container with the default shares a weight of 39.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// `QUOTA PERIOD` in microseconds; the one that is not named stays.
fn quota(cpu: &LinuxCpu, cpu_max: Option<&str>) -> Option<String> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_none() && period.is_none() {
        return None;
    }
    let mut now = cpu_max.unwrap_or_default().split_whitespace();
    let quota_now = now.next().unwrap_or("max").to_owned();
    let period_now = now
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(PERIOD);
    let quota = quota.map_or(quota_now, or_max);
    Some(format!("{quota} {}", period.unwrap_or(period_now)))
}

fn block_io(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let write = Write::new("io", "io.bfq.weight", weight);
        writes.push(write.or("io.weight", io_weight(weight)));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            writes.push(Write::new("io", "io.bfq.weight", value));
        }
    }
    throttle("rbps", io.throttle_read_bps_device(), writes);
    throttle("wbps", io.throttle_write_bps_device(), writes);
    throttle("riops", io.throttle_read_iops_device(), writes);
    throttle("wiops", io.throttle_write_iops_device(), writes);
}

fn throttle(key: &str, devices: &Option<Vec<LinuxThrottleDevice>>, writes: &mut Vec<Write>) {
    for device in devices.iter().flatten() {
        // In v1, whose words the spec uses, a rate of 0 lifts the limit.
        let rate = if device.rate() == 0 {
            "max".to_owned()
        } else {
            device.rate().to_string()
        };
        let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
        writes.push(Write::new("io", "io.max", value));
    }
}

/// A weight for bfq (10 to 1000) as one for `io.weight` (1 to 10000).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

/// Files named one by one: last, so that they win over what was translated.
fn unified(resources: &LinuxResources, writes: &mut Vec<Write>) -> Result<()> {
    let mut given: Vec<_> = resources.unified().iter().flatten().collect();
    // A map has no order: give it one, so that each run does the same.
    given.sort();
    for (file, value) in given {
        let (controller, _) = file.split_once('.').unwrap_or_default();
        if controller.is_empty() || file.contains('/') {
            return Err(Error::Invalid(format!(
                "resources.unified: {file:?} is no file of a cgroup: expected one such as memory.high"
            )));
        }
        writes.push(Write::new(controller, file, value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{pairs, values};
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    fn written(json: &str) -> Vec<(String, String)> {
        values(&writes(&resources(json), &Now::default()).unwrap())
    }

    #[test]
    fn nothing_named_writes_nothing() {
        assert!(written("{}").is_empty());
        let zeros =
            r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0},"pids":{"limit":0}}"#;
        assert!(written(zeros).is_empty());
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        assert_eq!(
            written(r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#),
            pairs(&[
                ("memory.swap.max", "50"),
                ("memory.max", "100"),
                ("memory.low", "50")
            ])
        );
        assert_eq!(
            written(r#"{"memory":{"limit":100,"swap":100}}"#),
            pairs(&[("memory.swap.max", "0"), ("memory.max", "100")])
        );
        assert_eq!(
            written(r#"{"memory":{"limit":-1}}"#),
            pairs(&[("memory.swap.max", "max"), ("memory.max", "max")])
        );
        assert_eq!(
            written(r#"{"memory":{"limit":-1,"swap":50}}"#),
            pairs(&[("memory.swap.max", "50"), ("memory.max", "max")])
        );
    }

    #[test]
    fn one_of_two_is_added_to_what_there_is() {
        let files = |memory: &'static str, swap: &'static str| {
            move |name: &str| {
                Ok(match name {
                    "memory.max" => Some(format!("{memory}\n")),
                    "memory.swap.max" => Some(format!("{swap}\n")),
                    _ => None,
                })
            }
        };
        let update = |json: &str, memory, swap| {
            let resources = resources(json);
            let now = Now::read(&resources, files(memory, swap))?;
            writes(&resources, &now).map(|writes| values(&writes))
        };
        let both = |swap, memory| pairs(&[("memory.swap.max", swap), ("memory.max", memory)]);

        let limit = r#"{"memory":{"limit":120}}"#;
        assert_eq!(update(limit, "100", "50").unwrap(), both("30", "120"));
        assert!(update(limit, "60", "50").is_err());
        // Swap had no limit of its own, or memory had none.
        for (memory, swap) in [("100", "max"), ("max", "50")] {
            let written = update(limit, memory, swap).unwrap();
            assert_eq!(written, pairs(&[("memory.max", "120")]));
        }

        let swap = r#"{"memory":{"swap":120}}"#;
        let written = update(swap, "100", "max").unwrap();
        assert_eq!(written, pairs(&[("memory.swap.max", "20")]));
        assert!(update(swap, "200", "max").is_err());
        assert!(update(swap, "max", "max").is_err());
    }

    #[test]
    fn swap_that_makes_no_sense_is_refused() {
        for bad in [
            r#"{"memory":{"limit":100,"swap":50}}"#,
            r#"{"memory":{"swap":50}}"#,
        ] {
            assert!(
                matches!(
                    writes(&resources(bad), &Now::default()),
                    Err(Error::Invalid(_))
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_default_shares_are_the_default_weight() {
        assert_eq!(
            (weight(0), weight(2), weight(1024), weight(262_144)),
            (1, 1, 100, 10_000)
        );
        assert_eq!(weight(u64::MAX), 10_000);
    }

    #[test]
    fn a_quota_without_a_period_keeps_the_period() {
        let quota = |json: &str, now: Option<&str>| {
            let resources = resources(json);
            let now = Now::read(&resources, |_| Ok(now.map(str::to_owned))).unwrap();
            let writes = writes(&resources, &now).unwrap();
            writes[0].value.clone()
        };
        assert_eq!(quota(r#"{"cpu":{"quota":50000}}"#, None), "50000 100000");
        assert_eq!(
            quota(r#"{"cpu":{"quota":50000}}"#, Some("max 20000\n")),
            "50000 20000"
        );
        assert_eq!(
            quota(r#"{"cpu":{"period":20000}}"#, Some("5000 10000\n")),
            "5000 20000"
        );
        assert_eq!(
            quota(r#"{"cpu":{"quota":-1}}"#, Some("5000 10000\n")),
            "max 10000"
        );
    }

    #[test]
    fn devices_are_throttled_in_one_file() {
        assert_eq!(
            written(
                r#"{"blockIO":{"weight":500,
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#
            ),
            pairs(&[
                ("io.bfq.weight", "500"),
                ("io.max", "8:0 rbps=1000"),
                ("io.max", "8:0 wiops=max")
            ])
        );
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }

    #[test]
    fn unified_files_come_last_and_stay_in_the_cgroup() {
        assert_eq!(
            written(r#"{"unified":{"memory.high":"10","memory.max":"20"},"memory":{"limit":5}}"#),
            pairs(&[
                ("memory.max", "5"),
                ("memory.high", "10"),
                ("memory.max", "20")
            ])
        );
        for bad in [
            r#"{"unified":{"../x.y":"1"}}"#,
            r#"{"unified":{"procs":"1"}}"#,
        ] {
            assert!(writes(&resources(bad), &Now::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_only_v1_has_is_refused_by_name() {
        for (group, field, value) in [
            ("memory", "kernel", "1000"),
            ("memory", "kernelTCP", "1000"),
            ("memory", "swappiness", "10"),
            ("memory", "disableOOMKiller", "true"),
            ("cpu", "realtimeRuntime", "1000"),
            ("cpu", "realtimePeriod", "1000"),
            ("network", "classID", "7"),
            ("network", "priorities", r#"[{"name":"lo","priority":1}]"#),
        ] {
            let resources = resources(&format!(r#"{{"{group}":{{"{field}":{value}}}}}"#));
            let error = writes(&resources, &Now::default()).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            assert!(
                error.to_string().contains(&format!("{group}.{field}")),
                "{error}"
            );
        }
        // What says nothing is not asked for.
        let unset = r#"{"memory":{"kernel":-1,"kernelTCP":0,"disableOOMKiller":false},
            "cpu":{"realtimeRuntime":0},"network":{"classID":0,"priorities":[]}}"#;
        assert!(written(unset).is_empty());
    }

    #[test]
    fn a_page_size_is_no_path() {
        assert_eq!(
            written(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#),
            pairs(&[("hugetlb.2MB.max", "4"), ("hugetlb.2MB.rsvd.max", "4")])
        );
        let bad = resources(r#"{"hugepageLimits":[{"pageSize":"/../x","limit":4}]}"#);
        assert!(writes(&bad, &Now::default()).is_err());
    }

    proptest! {
        #[test]
        fn more_shares_never_weigh_less(a in 0u64..300_000, b in 0u64..300_000) {
            prop_assert!((1..=10_000).contains(&weight(a)));
            prop_assert!(weight(a.min(b)) <= weight(a.max(b)));
        }
    }
}
