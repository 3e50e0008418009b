//! Reads the numbers of a v2 cgroup.

use std::path::Path;

use super::{Counters, HugeTlb, IoV2, MemoryV2, Pids, Pressure, Stall, StatsV2, counters, device};
use crate::cgroup::error::Result;
use crate::cgroup::files;

/// Reads them all.
pub(in crate::cgroup) fn read(dir: &Path) -> Result<StatsV2> {
    // Every cgroup has a cpu.stat: that it is missing means that the cgroup is gone.
    let cpu = counters(&files::read(&dir.join("cpu.stat"))?);
    Ok(StatsV2 {
        pids: pids(dir)?,
        cpu,
        cpu_pressure: pressure(dir, "cpu.pressure"),
        memory: memory(dir)?,
        io: text(dir, "io.stat")?
            .as_deref()
            .map(parse_io)
            .unwrap_or_default(),
        io_pressure: pressure(dir, "io.pressure"),
        hugetlb: hugetlb(dir)?,
    })
}

fn text(dir: &Path, file: &str) -> Result<Option<String>> {
    files::read_if_there(&dir.join(file))
}

fn number(dir: &Path, file: &str) -> Result<Option<u64>> {
    Ok(text(dir, file)?.as_deref().and_then(files::number))
}

fn keyed(dir: &Path, file: &str) -> Result<Counters> {
    Ok(text(dir, file)?
        .as_deref()
        .map(counters)
        .unwrap_or_default())
}

fn pids(dir: &Path) -> Result<Option<Pids>> {
    let limit = number(dir, "pids.max")?.unwrap_or(u64::MAX);
    Ok(number(dir, "pids.current")?.map(|current| Pids { current, limit }))
}

fn memory(dir: &Path) -> Result<Option<MemoryV2>> {
    let Some(usage) = number(dir, "memory.current")? else {
        return Ok(None);
    };
    Ok(Some(MemoryV2 {
        stat: keyed(dir, "memory.stat")?,
        events: keyed(dir, "memory.events")?,
        usage,
        limit: number(dir, "memory.max")?.unwrap_or(u64::MAX),
        peak: number(dir, "memory.peak")?,
        swap_usage: number(dir, "memory.swap.current")?,
        swap_limit: number(dir, "memory.swap.max")?,
        swap_peak: number(dir, "memory.swap.peak")?,
        pressure: pressure(dir, "memory.pressure"),
    }))
}

fn hugetlb(dir: &Path) -> Result<Vec<HugeTlb>> {
    let mut found = Vec::new();
    for page_size in files::huge_page_sizes() {
        let Some(usage) = number(dir, &format!("hugetlb.{page_size}.current"))? else {
            continue;
        };
        let events = keyed(dir, &format!("hugetlb.{page_size}.events"))?;
        found.push(HugeTlb {
            usage,
            max: number(dir, &format!("hugetlb.{page_size}.max"))?.unwrap_or(u64::MAX),
            failures: events.get("max").copied().unwrap_or_default(),
            page_size,
        });
    }
    Ok(found)
}

/// A kernel started with `psi=0` has the files but answers EOPNOTSUPP: that is none, too.
fn pressure(dir: &Path, file: &str) -> Option<Pressure> {
    text(dir, file)
        .ok()
        .flatten()
        .map(|text| parse_pressure(&text))
}

fn parse_pressure(text: &str) -> Pressure {
    let stall = |name| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(parse_stall)
            .unwrap_or_default()
    };
    Pressure {
        some: stall("some "),
        full: stall("full "),
    }
}

fn parse_stall(line: &str) -> Stall {
    let value = |key| {
        line.split(' ')
            .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key))
    };
    let average = |key| {
        value(key)
            .and_then(|(_, text)| text.parse().ok())
            .unwrap_or_default()
    };
    Stall {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total: value("total")
            .and_then(|(_, text)| text.trim().parse().ok())
            .unwrap_or_default(),
    }
}

/// Lines `MAJOR:MINOR key=value ...`.
fn parse_io(text: &str) -> Vec<IoV2> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (major, minor) = device(fields.next()?)?;
            let counters: Counters = fields
                .filter_map(|field| {
                    let (key, value) = field.split_once('=')?;
                    Some((key.to_owned(), value.parse().ok()?))
                })
                .collect();
            Some(IoV2 {
                major,
                minor,
                counters,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_read_for_each_device() {
        let io = parse_io("8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353\n253:0 \n");
        assert_eq!(io.len(), 2);
        assert_eq!((io[0].major, io[0].minor), (8, 16));
        assert_eq!(io[0].counters["wios"], 353);
        assert!(io[1].counters.is_empty());
    }

    #[test]
    fn pressure_may_lack_the_line_full() {
        let text = "some avg10=1.25 avg60=0.50 avg300=0.00 total=12345\n";
        let pressure = parse_pressure(text);
        assert_eq!(
            pressure.some,
            Stall {
                avg10: 1.25,
                avg60: 0.5,
                avg300: 0.0,
                total: 12345
            }
        );
        assert_eq!(pressure.full, Stall::default());
    }

    #[test]
    fn a_cgroup_that_is_gone_is_not_found() {
        let error = read(Path::new("/sys/fs/cgroup/husk-no-such")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
