//! Where and when it was measured.
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What a figure depends on besides the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The day, UTC, as in 2026-01-31.
    pub(crate) date: String,
    /// The processor's name.
    pub(crate) processor: String,
    /// How many of them.
    pub(crate) processors: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// `v1` or `v2`.
    pub(crate) cgroups: String,
    /// The load average over a minute as it began: other work makes figures worse.
    pub(crate) load: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let meminfo = read("/proc/meminfo");
        let total = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let kib: Option<u64> = total.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            date: OffsetDateTime::now_utc().date().to_string(),
            processor: model
                .map(|model| model.trim_start_matches([' ', '\t', ':']))
                .unwrap_or(std::env::consts::ARCH)
                .to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cgroups: String::from(if unified { "v2" } else { "v1" }),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// One line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}, {} × {}, {} MiB, Linux {}, cgroup {}, load {}",
            self.date,
            self.processors,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.cgroups,
            self.load,
        )
    }
}
