//! A cgroup's numbers as containerd wants them.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use husk_sandbox::cgroup::{
    Counters, HugeTlb, IoV1, IoV2, MemoryEntryV1, MemoryV1, MemoryV2, Pids, Pressure, Stall, Stats,
    StatsV1, StatsV2,
};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};

/// containerd knows these by name: without the host that an `Any` usually has (contract 30).
const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// The metrics of a cgroup, for `Stats` and `SandboxMetrics`.
///
/// # Errors
/// They cannot be encoded.
pub(crate) fn any(stats: &Stats) -> protobuf::Result<Any> {
    let (name, value) = match stats {
        Stats::V1(stats) => (V1, metrics_v1(stats).write_to_bytes()?),
        Stats::V2(stats) => (V2, metrics_v2(stats).write_to_bytes()?),
    };
    Ok(Any {
        type_url: name.to_owned(),
        value,
        ..Any::default()
    })
}

/// A counter this kernel does not keep is 0.
fn get(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or_default()
}

fn metrics_v2(stats: &StatsV2) -> v2::Metrics {
    let memory = stats.memory.as_ref();
    v2::Metrics {
        pids: stats.pids.map(pids_v2).into(),
        cpu: MessageField::some(cpu_v2(stats)),
        memory: memory.map(memory_v2).into(),
        memory_events: memory.map(|memory| memory_events(&memory.events)).into(),
        io: MessageField::some(v2::IOStat {
            usage: stats.io.iter().map(io_v2).collect(),
            psi: pressure(stats.io_pressure),
            ..v2::IOStat::default()
        }),
        hugetlb: stats.hugetlb.iter().map(hugetlb_v2).collect(),
        ..v2::Metrics::default()
    }
}

fn pids_v2(pids: Pids) -> v2::PidsStat {
    v2::PidsStat {
        current: pids.current,
        limit: pids.limit,
        ..v2::PidsStat::default()
    }
}

fn cpu_v2(stats: &StatsV2) -> v2::CPUStat {
    let cpu = |name| get(&stats.cpu, name);
    v2::CPUStat {
        usage_usec: cpu("usage_usec"),
        user_usec: cpu("user_usec"),
        system_usec: cpu("system_usec"),
        nr_periods: cpu("nr_periods"),
        nr_throttled: cpu("nr_throttled"),
        throttled_usec: cpu("throttled_usec"),
        nr_bursts: cpu("nr_bursts"),
        burst_usec: cpu("burst_usec"),
        psi: pressure(stats.cpu_pressure),
        ..v2::CPUStat::default()
    }
}

fn memory_v2(memory: &MemoryV2) -> v2::MemoryStat {
    let stat = |name: &str| get(&memory.stat, name);
    // Linux 5.9 split these in two.
    let split =
        |name: &str| stat(name) + stat(&format!("{name}_anon")) + stat(&format!("{name}_file"));
    v2::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: split("workingset_refault"),
        workingset_activate: split("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: memory.usage,
        usage_limit: memory.limit,
        swap_usage: memory.swap_usage.unwrap_or_default(),
        swap_limit: memory.swap_limit.unwrap_or_default(),
        max_usage: memory.peak.unwrap_or_default(),
        swap_max_usage: memory.swap_peak.unwrap_or_default(),
        psi: pressure(memory.pressure),
        ..v2::MemoryStat::default()
    }
}

/// containerd reads `oom_kill` to tell an OOM kill from any other SIGKILL (contract 29).
fn memory_events(events: &Counters) -> v2::MemoryEvents {
    v2::MemoryEvents {
        low: get(events, "low"),
        high: get(events, "high"),
        max: get(events, "max"),
        oom: get(events, "oom"),
        oom_kill: get(events, "oom_kill"),
        oom_group_kill: get(events, "oom_group_kill"),
        ..v2::MemoryEvents::default()
    }
}

fn io_v2(io: &IoV2) -> v2::IOEntry {
    v2::IOEntry {
        major: io.major,
        minor: io.minor,
        rbytes: get(&io.counters, "rbytes"),
        wbytes: get(&io.counters, "wbytes"),
        rios: get(&io.counters, "rios"),
        wios: get(&io.counters, "wios"),
        ..v2::IOEntry::default()
    }
}

fn hugetlb_v2(pages: &HugeTlb) -> v2::HugeTlbStat {
    v2::HugeTlbStat {
        current: pages.usage,
        max: pages.max,
        pagesize: pages.page_size.clone(),
        failcnt: pages.failures,
        ..v2::HugeTlbStat::default()
    }
}

fn pressure(pressure: Option<Pressure>) -> MessageField<v2::PSIStats> {
    let stall = |stall: Stall| v2::PSIData {
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
        total: stall.total,
        ..v2::PSIData::default()
    };
    let stats = pressure.map(|pressure| v2::PSIStats {
        some: MessageField::some(stall(pressure.some)),
        full: MessageField::some(stall(pressure.full)),
        ..v2::PSIStats::default()
    });
    stats.into()
}

fn metrics_v1(stats: &StatsV1) -> v1::Metrics {
    let memory = stats.memory.as_ref();
    v1::Metrics {
        hugetlb: stats.hugetlb.iter().map(hugetlb_v1).collect(),
        pids: stats.pids.map(pids_v1).into(),
        cpu: MessageField::some(cpu_v1(stats)),
        memory: memory.map(memory_v1).into(),
        memory_oom_control: memory.map(|memory| oom_control(&memory.oom_control)).into(),
        blkio: MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: stats.io_bytes.iter().map(io_v1).collect(),
            io_serviced_recursive: stats.io_operations.iter().map(io_v1).collect(),
            ..v1::BlkIOStat::default()
        }),
        ..v1::Metrics::default()
    }
}

/// In these metrics 0 means no limit.
fn pids_v1(pids: Pids) -> v1::PidsStat {
    let limit = if pids.limit == u64::MAX {
        0
    } else {
        pids.limit
    };
    v1::PidsStat {
        current: pids.current,
        limit,
        ..v1::PidsStat::default()
    }
}

fn cpu_v1(stats: &StatsV1) -> v1::CPUStat {
    let usage = stats.cpu.as_ref().map(|cpu| v1::CPUUsage {
        total: cpu.total,
        kernel: cpu.kernel,
        user: cpu.user,
        per_cpu: cpu.per_cpu.clone(),
        ..v1::CPUUsage::default()
    });
    v1::CPUStat {
        usage: usage.into(),
        throttling: MessageField::some(v1::Throttle {
            periods: get(&stats.throttling, "nr_periods"),
            throttled_periods: get(&stats.throttling, "nr_throttled"),
            throttled_time: get(&stats.throttling, "throttled_time"),
            ..v1::Throttle::default()
        }),
        ..v1::CPUStat::default()
    }
}

fn memory_v1(memory: &MemoryV1) -> v1::MemoryStat {
    let stat = |name: &str| get(&memory.stat, name);
    v1::MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: MessageField::some(memory_entry(memory.usage)),
        swap: memory.swap.map(memory_entry).into(),
        kernel: memory.kernel.map(memory_entry).into(),
        kernel_tcp: memory.kernel_tcp.map(memory_entry).into(),
        ..v1::MemoryStat::default()
    }
}

fn memory_entry(entry: MemoryEntryV1) -> v1::MemoryEntry {
    v1::MemoryEntry {
        limit: entry.limit,
        usage: entry.usage,
        max: entry.max,
        failcnt: entry.failures,
        ..v1::MemoryEntry::default()
    }
}

fn oom_control(control: &Counters) -> v1::MemoryOomControl {
    v1::MemoryOomControl {
        oom_kill_disable: get(control, "oom_kill_disable"),
        under_oom: get(control, "under_oom"),
        oom_kill: get(control, "oom_kill"),
        ..v1::MemoryOomControl::default()
    }
}

fn io_v1(io: &IoV1) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: io.operation.clone(),
        major: io.major,
        minor: io.minor,
        value: io.value,
        ..v1::BlkIOEntry::default()
    }
}

fn hugetlb_v1(pages: &HugeTlb) -> v1::HugetlbStat {
    v1::HugetlbStat {
        usage: pages.usage,
        max: pages.max,
        failcnt: pages.failures,
        pagesize: pages.page_size.clone(),
        ..v1::HugetlbStat::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn v2_says_what_cri_reads() {
        let memory = MemoryV2 {
            stat: counters(&[
                ("inactive_file", 10),
                ("anon", 20),
                ("workingset_refault_anon", 1),
                ("workingset_refault_file", 2),
            ]),
            events: counters(&[("oom_kill", 3)]),
            usage: 100,
            limit: u64::MAX,
            ..MemoryV2::default()
        };
        let stats = StatsV2 {
            cpu: counters(&[("usage_usec", 7)]),
            pids: Some(Pids {
                current: 2,
                limit: 5,
            }),
            memory: Some(memory),
            ..StatsV2::default()
        };
        let any = any(&Stats::V2(Box::new(stats))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.usage_usec, 7);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 5));
        assert_eq!(metrics.memory.usage - metrics.memory.inactive_file, 90);
        assert_eq!(metrics.memory.anon, 20);
        assert_eq!(metrics.memory.workingset_refault, 3);
        assert_eq!(metrics.memory.usage_limit, u64::MAX);
        assert_eq!(metrics.memory_events.oom_kill, 3);
        assert!(metrics.memory.psi.is_none());
    }

    #[test]
    fn v1_says_what_cri_reads() {
        let memory = MemoryV1 {
            stat: counters(&[
                ("total_inactive_file", 10),
                ("total_rss", 20),
                ("total_pgfault", 4),
            ]),
            oom_control: counters(&[("oom_kill", 1)]),
            usage: MemoryEntryV1 {
                usage: 100,
                limit: 200,
                max: 150,
                failures: 6,
            },
            ..MemoryV1::default()
        };
        let stats = StatsV1 {
            pids: Some(Pids {
                current: 2,
                limit: u64::MAX,
            }),
            memory: Some(memory),
            ..StatsV1::default()
        };
        let any = any(&Stats::V1(Box::new(stats))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.pids.limit, 0);
        assert_eq!(
            metrics.memory.usage.usage - metrics.memory.total_inactive_file,
            90
        );
        assert_eq!(
            (metrics.memory.usage.limit, metrics.memory.usage.failcnt),
            (200, 6)
        );
        assert_eq!(
            (metrics.memory.total_rss, metrics.memory.total_pg_fault),
            (20, 4)
        );
        assert!(metrics.memory.swap.is_none());
        assert_eq!(metrics.memory_oom_control.oom_kill, 1);
    }
}
