//! Offsets of the clocks in a time namespace, see time_namespaces(7).
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::LinuxTimeOffset;
use serde::{Deserialize, Serialize};

/// The largest offset the kernel takes, in seconds, either way: half of what a `ktime_t` of 63
/// bits of nanoseconds holds (`proc_timens_set_offset` in the kernel's `kernel/time/namespace.c`).
const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000 / 2;

/// How far the clocks of a new time namespace are from the node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// Offset of `CLOCK_MONOTONIC` and its kin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monotonic: Option<Offset>,
    /// Offset of `CLOCK_BOOTTIME` and its kin, which `/proc/uptime` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boottime: Option<Offset>,
}

/// How far one clock is from the node's: seconds, and nanoseconds towards the future.
///
/// Half a second back is `-1` s and `500_000_000` ns. An offset that would set the clock below
/// zero is refused by the kernel (`ERANGE`) when the namespace is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanosecs: u32,
}

impl Offsets {
    /// Whether no clock is offset.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.monotonic.is_none() && self.boottime.is_none()
    }

    /// The offset clocks by the names that `/proc/PID/timens_offsets` and the OCI spec use.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Offset)> {
        [("monotonic", self.monotonic), ("boottime", self.boottime)]
            .into_iter()
            .filter_map(|(clock, offset)| Some((clock, offset?)))
    }

    /// The OCI spec's `linux.timeOffsets`.
    pub(crate) fn oci(&self) -> HashMap<String, LinuxTimeOffset> {
        self.iter()
            .map(|(clock, offset)| {
                let mut oci = LinuxTimeOffset::default();
                oci.set_secs(Some(offset.secs));
                oci.set_nanosecs(Some(offset.nanosecs));
                (clock.to_owned(), oci)
            })
            .collect()
    }
}

/// What a duration is made of: unit and nanoseconds, longest match first.
const UNITS: [(&str, i128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

impl FromStr for Offset {
    type Err = String;

    /// Reads a duration: whole numbers, each with its unit (`d h m s ms us ns`), such as `90s`,
    /// `7d`, `-1h30m`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || {
            format!(
                "`{s}` is not a duration: use whole numbers with units d h m s ms us ns, such as `7d` or `-1h30m`"
            )
        };
        let (sign, mut rest) = match s.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, s),
        };
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(invalid)?;
            let (number, tail) = rest.split_at(digits);
            let (unit, nanoseconds) = UNITS
                .into_iter()
                .find(|(unit, _)| tail.starts_with(unit))
                .ok_or_else(invalid)?;
            let number = number.parse::<u64>().map_err(|_| invalid())?;
            total = total.saturating_add(i128::from(number).saturating_mul(nanoseconds));
            rest = tail.strip_prefix(unit).unwrap_or_default();
        }
        Self::from_nanoseconds(sign * total)
            .ok_or_else(|| format!("`{s}` is more than the kernel's limit of {MAX_SECONDS}s"))
    }
}

impl Offset {
    fn from_nanoseconds(total: i128) -> Option<Self> {
        let secs = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
        let nanosecs = u32::try_from(total.rem_euclid(1_000_000_000)).ok()?;
        (-MAX_SECONDS..MAX_SECONDS)
            .contains(&secs)
            .then_some(Self { secs, nanosecs })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.secs)?;
        match self.nanosecs {
            0 => Ok(()),
            nanosecs => write!(f, " + {nanosecs}ns"),
        }
    }
}
