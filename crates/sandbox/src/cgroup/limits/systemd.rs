//! Limits as properties of a systemd unit; see systemd.resource-control(5).
//!
//! systemd writes its own idea of a unit's limits whenever it is reloaded, so it has to know them.

use super::{PERIOD, Write};
use crate::cgroup::dbus::Value;
use crate::cgroup::error::{Error, Result};

/// systemd for "no limit".
const INFINITY: u64 = u64::MAX;

/// The properties that say what these writes say; a file systemd has no property for is left out,
/// as it does not touch that either.
pub(in crate::cgroup) fn properties(writes: &[Write]) -> Result<Vec<(&'static str, Value)>> {
    let mut properties = Vec::new();
    for write in writes {
        for (name, value) in translate(&write.file, write.value.trim())? {
            properties.retain(|(known, _)| *known != name);
            properties.push((name, value));
        }
    }
    Ok(properties)
}

fn translate(file: &str, value: &str) -> Result<Vec<(&'static str, Value)>> {
    let number = |name| Ok(vec![(name, Value::U64(number(file, value)?))]);
    match file {
        "memory.min" => number("MemoryMin"),
        "memory.low" => number("MemoryLow"),
        "memory.high" => number("MemoryHigh"),
        "memory.max" => number("MemoryMax"),
        "memory.swap.max" => number("MemorySwapMax"),
        "pids.max" => number("TasksMax"),
        "cpu.weight" => number("CPUWeight"),
        "cpu.max" => quota(value),
        "cpuset.cpus" => Ok(vec![("AllowedCPUs", Value::Bytes(mask(file, value)?))]),
        "cpuset.mems" => Ok(vec![(
            "AllowedMemoryNodes",
            Value::Bytes(mask(file, value)?),
        )]),
        _ => Ok(Vec::new()),
    }
}

fn invalid(file: &str, value: &str) -> Error {
    Error::Invalid(format!("{value:?} is no value for {file}"))
}

fn number(file: &str, value: &str) -> Result<u64> {
    match value {
        "max" => Ok(INFINITY),
        digits => digits.parse().map_err(|_| invalid(file, value)),
    }
}

/// systemd takes the quota of one second, in steps of a percent: it is rounded up, as a quota
/// below what was asked would throttle.
fn quota(value: &str) -> Result<Vec<(&'static str, Value)>> {
    const SECOND: u64 = 1_000_000;
    const PERCENT: u64 = SECOND / 100;
    let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
    let period = if period.is_empty() {
        PERIOD
    } else {
        number("cpu.max", period)?.max(1)
    };
    let per_second = match number("cpu.max", quota)? {
        INFINITY => INFINITY,
        quota => {
            let exact = quota.saturating_mul(SECOND).div_ceil(period);
            exact.div_ceil(PERCENT).saturating_mul(PERCENT)
        }
    };
    Ok(vec![
        ("CPUQuotaPeriodUSec", Value::U64(period)),
        ("CPUQuotaPerSecUSec", Value::U64(per_second)),
    ])
}

/// A list such as `0-3,6` as bits, lowest first.
fn mask(file: &str, list: &str) -> Result<Vec<u8>> {
    // More CPUs than any machine has: a bound on what a number may cost.
    const MOST: usize = 65_536;
    let mut mask = Vec::new();
    for range in list
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |text: &str| {
            text.trim()
                .parse()
                .ok()
                .filter(|number: &usize| *number < MOST)
        };
        let (Some(first), Some(last)) = (parse(first), parse(last)) else {
            return Err(invalid(file, list));
        };
        for bit in first..=last {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            if let Some(byte) = mask.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(file: &str, value: &str) -> Vec<(&'static str, Value)> {
        properties(&[Write::new("x", file, value)]).unwrap()
    }

    #[test]
    fn limits_become_numbers() {
        assert_eq!(one("memory.max", "4096"), [("MemoryMax", Value::U64(4096))]);
        assert_eq!(
            one("memory.swap.max", "max"),
            [("MemorySwapMax", Value::U64(u64::MAX))]
        );
        assert_eq!(one("pids.max", "7\n"), [("TasksMax", Value::U64(7))]);
        assert_eq!(one("cpu.max.burst", "7"), []);
    }

    #[test]
    fn a_quota_is_rounded_up_to_a_percent() {
        let quota = |value| match one("cpu.max", value).as_slice() {
            [(_, Value::U64(period)), (_, Value::U64(quota))] => (*period, *quota),
            other => panic!("{other:?}"),
        };
        assert_eq!(quota("50000 100000"), (100_000, 500_000));
        assert_eq!(quota("12345 100000"), (100_000, 130_000));
        assert_eq!(quota("max 20000"), (20_000, u64::MAX));
        assert_eq!(quota("5000"), (100_000, 50_000));
    }

    #[test]
    fn lists_become_masks() {
        assert_eq!(
            one("cpuset.cpus", "0-3,8"),
            [("AllowedCPUs", Value::Bytes(vec![0x0f, 1]))]
        );
        assert!(properties(&[Write::new("x", "cpuset.cpus", "1-x")]).is_err());
        assert!(properties(&[Write::new("x", "cpuset.mems", "99999999")]).is_err());
    }

    #[test]
    fn the_last_word_counts() {
        let writes = [
            Write::new("x", "memory.max", 1),
            Write::new("x", "memory.max", 2),
        ];
        assert_eq!(properties(&writes).unwrap(), [("MemoryMax", Value::U64(2))]);
    }
}
