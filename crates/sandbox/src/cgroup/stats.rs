//! The numbers the kernel keeps about a cgroup.
//!
//! Counters keep the kernel's names and units; see cgroup-v2.rst and the files of cgroup-v1 in the
//! kernel's documentation. What this kernel does not keep, or the cgroup has no controller for, is
//! absent. They can be read as long as the cgroup exists, after its last process too (contract 29).

use std::collections::BTreeMap;

mod v1;
mod v2;

pub(super) use v1::read as read_v1;
pub(super) use v2::read as read_v2;

/// Counters by the kernel's names, as in `memory.stat`.
pub type Counters = BTreeMap<String, u64>;

/// The numbers of a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub enum Stats {
    /// Of the v1 hierarchies.
    V1(Box<StatsV1>),
    /// Of the v2 hierarchy.
    V2(Box<StatsV2>),
}

/// The numbers of a v2 cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsV2 {
    /// `pids.*`.
    pub pids: Option<Pids>,
    /// `cpu.stat`: times in microseconds.
    pub cpu: Counters,
    /// `cpu.pressure`.
    pub cpu_pressure: Option<Pressure>,
    /// `memory.*`.
    pub memory: Option<MemoryV2>,
    /// `io.stat`, one for each device.
    pub io: Vec<IoV2>,
    /// `io.pressure`.
    pub io_pressure: Option<Pressure>,
    /// `hugetlb.*`, one for each page size.
    pub hugetlb: Vec<HugeTlb>,
}

/// The memory of a v2 cgroup, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryV2 {
    /// `memory.stat`.
    pub stat: Counters,
    /// `memory.events`: how often limits were hit, and processes killed.
    pub events: Counters,
    /// `memory.current`.
    pub usage: u64,
    /// `memory.max`; `u64::MAX` for none.
    pub limit: u64,
    /// `memory.peak`.
    pub peak: Option<u64>,
    /// `memory.swap.current`.
    pub swap_usage: Option<u64>,
    /// `memory.swap.max`; `u64::MAX` for none.
    pub swap_limit: Option<u64>,
    /// `memory.swap.peak`.
    pub swap_peak: Option<u64>,
    /// `memory.pressure`.
    pub pressure: Option<Pressure>,
}

/// How many processes and threads there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// `pids.current`.
    pub current: u64,
    /// `pids.max`; `u64::MAX` for none.
    pub limit: u64,
}

/// What was read from and written to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoV2 {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `rbytes`, `wbytes`, `rios`, `wios`, and more.
    pub counters: Counters,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugeTlb {
    /// The size, as in the file names: `2MB`.
    pub page_size: String,
    /// In use now.
    pub usage: u64,
    /// v2: the limit; v1: the most that was in use.
    pub max: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Time lost waiting for a resource; see psi.rst in the kernel's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one process was waiting.
    pub some: Stall,
    /// All were.
    pub full: Stall,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Percentage of the last 10 s.
    pub avg10: f64,
    /// Percentage of the last 60 s.
    pub avg60: f64,
    /// Percentage of the last 300 s.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

/// The numbers of a cgroup in the v1 hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsV1 {
    /// `pids.*`.
    pub pids: Option<Pids>,
    /// `cpuacct.*`.
    pub cpu: Option<CpuV1>,
    /// `cpu.stat`: times in nanoseconds.
    pub throttling: Counters,
    /// `memory.*`.
    pub memory: Option<MemoryV1>,
    /// `blkio.throttle.io_service_bytes_recursive`.
    pub io_bytes: Vec<IoV1>,
    /// `blkio.throttle.io_serviced_recursive`.
    pub io_operations: Vec<IoV1>,
    /// `hugetlb.*`, one for each page size.
    pub hugetlb: Vec<HugeTlb>,
}

/// CPU time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuV1 {
    /// `cpuacct.usage`.
    pub total: u64,
    /// `cpuacct.usage_user`.
    pub user: u64,
    /// `cpuacct.usage_sys`.
    pub kernel: u64,
    /// `cpuacct.usage_percpu`.
    pub per_cpu: Vec<u64>,
}

/// The memory of a cgroup in the v1 hierarchy, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryV1 {
    /// `memory.stat`.
    pub stat: Counters,
    /// `memory.oom_control`.
    pub oom_control: Counters,
    /// `memory.*_in_bytes`.
    pub usage: MemoryEntryV1,
    /// `memory.memsw.*`: memory and swap together.
    pub swap: Option<MemoryEntryV1>,
    /// `memory.kmem.*`.
    pub kernel: Option<MemoryEntryV1>,
    /// `memory.kmem.tcp.*`.
    pub kernel_tcp: Option<MemoryEntryV1>,
}

/// One kind of memory in the v1 hierarchy, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEntryV1 {
    /// `usage_in_bytes`.
    pub usage: u64,
    /// `limit_in_bytes`.
    pub limit: u64,
    /// `max_usage_in_bytes`.
    pub max: u64,
    /// `failcnt`: how often the limit was hit.
    pub failures: u64,
}

/// What was read from and written to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoV1 {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`.
    pub operation: String,
    /// Bytes, or how many operations.
    pub value: u64,
}

/// Parses lines `key value`; a line of another form is left out.
fn counters(text: &str) -> Counters {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// `MAJOR:MINOR`.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
