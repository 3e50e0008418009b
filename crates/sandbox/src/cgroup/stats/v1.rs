//! Reads the numbers of a cgroup in the v1 hierarchies.

use std::path::Path;

use super::{CpuV1, HugeTlb, IoV1, MemoryEntryV1, MemoryV1, Pids, StatsV1, counters, device};
use crate::cgroup::error::Result;
use crate::cgroup::files;

/// Reads them all; `dir` finds the cgroup in the hierarchy of a controller.
pub(in crate::cgroup) fn read<'a>(dir: impl Fn(&str) -> Option<&'a Path>) -> Result<StatsV1> {
    let mut stats = StatsV1::default();
    if let Some(dir) = dir("pids") {
        stats.pids = Some(Pids {
            current: number(dir, "pids.current")?,
            limit: number(dir, "pids.max")?,
        });
    }
    if let Some(dir) = dir("cpuacct") {
        stats.cpu = Some(cpu(dir)?);
    }
    if let Some(dir) = dir("cpu") {
        stats.throttling = counters(&files::read(&dir.join("cpu.stat"))?);
    }
    if let Some(dir) = dir("memory") {
        stats.memory = Some(memory(dir)?);
    }
    if let Some(dir) = dir("blkio") {
        stats.io_bytes = io(dir, "io_service_bytes")?;
        stats.io_operations = io(dir, "io_serviced")?;
    }
    if let Some(dir) = dir("hugetlb") {
        stats.hugetlb = hugetlb(dir)?;
    }
    Ok(stats)
}

fn number(dir: &Path, file: &str) -> Result<u64> {
    Ok(files::number(&files::read(&dir.join(file))?).unwrap_or_default())
}

fn cpu(dir: &Path) -> Result<CpuV1> {
    let per_cpu = files::read(&dir.join("cpuacct.usage_percpu"))?;
    Ok(CpuV1 {
        total: number(dir, "cpuacct.usage")?,
        user: number(dir, "cpuacct.usage_user")?,
        kernel: number(dir, "cpuacct.usage_sys")?,
        per_cpu: per_cpu
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect(),
    })
}

fn memory(dir: &Path) -> Result<MemoryV1> {
    let entry = |kind: &str| -> Result<MemoryEntryV1> {
        Ok(MemoryEntryV1 {
            usage: number(dir, &format!("memory.{kind}usage_in_bytes"))?,
            limit: number(dir, &format!("memory.{kind}limit_in_bytes"))?,
            max: number(dir, &format!("memory.{kind}max_usage_in_bytes"))?,
            failures: number(dir, &format!("memory.{kind}failcnt"))?,
        })
    };
    // The swap and kernel files depend on how the kernel was built and started.
    let optional = |kind: &str| match entry(kind) {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    };
    Ok(MemoryV1 {
        stat: counters(&files::read(&dir.join("memory.stat"))?),
        oom_control: counters(&files::read(&dir.join("memory.oom_control"))?),
        usage: entry("")?,
        swap: optional("memsw.")?,
        kernel: optional("kmem.")?,
        kernel_tcp: optional("kmem.tcp.")?,
    })
}

/// The counters with children included are there since Linux 5.2.
fn io(dir: &Path, what: &str) -> Result<Vec<IoV1>> {
    for file in [
        format!("blkio.throttle.{what}_recursive"),
        format!("blkio.throttle.{what}"),
    ] {
        if let Some(text) = files::read_if_there(&dir.join(file))? {
            return Ok(parse_io(&text));
        }
    }
    Ok(Vec::new())
}

/// Lines `MAJOR:MINOR operation value`; the last line is a sum with no device.
fn parse_io(text: &str) -> Vec<IoV1> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (major, minor) = device(fields.next()?)?;
            let operation = fields.next()?.to_owned();
            let value = fields.next()?.parse().ok()?;
            Some(IoV1 {
                major,
                minor,
                operation,
                value,
            })
        })
        .collect()
}

fn hugetlb(dir: &Path) -> Result<Vec<HugeTlb>> {
    let mut found = Vec::new();
    for page_size in files::huge_page_sizes() {
        let file = |what: &str| format!("hugetlb.{page_size}.{what}");
        if dir.join(file("usage_in_bytes")).exists() {
            found.push(HugeTlb {
                usage: number(dir, &file("usage_in_bytes"))?,
                max: number(dir, &file("max_usage_in_bytes"))?,
                failures: number(dir, &file("failcnt"))?,
                page_size,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_leaves_out_the_sum() {
        let io = parse_io("8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n");
        assert_eq!(io.len(), 2);
        assert_eq!(
            io[0],
            IoV1 {
                major: 8,
                minor: 0,
                operation: "Read".into(),
                value: 4096
            }
        );
    }

    #[test]
    fn hierarchies_that_are_not_there_are_absent() {
        assert_eq!(read(|_| None).unwrap(), StatsV1::default());
    }
}
