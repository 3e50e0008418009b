//! Sizes and durations, as the configuration writes them.
use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::{ConfigError, Value};
use crate::Offset;

/// What sizes are counted in.
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A number of bytes; `wanted` says in words which there may be.
pub(super) fn size(
    value: Value<'_>,
    valid: RangeInclusive<u64>,
    wanted: &str,
) -> Result<u64, ConfigError> {
    let text = value.string("a size in quotes, such as \"64MiB\"")?;
    let bytes = SIZES.into_iter().find_map(|(unit, size)| {
        text.strip_suffix(unit)?
            .trim_end()
            .parse::<u64>()
            .ok()?
            .checked_mul(size)
    });
    bytes.filter(|bytes| valid.contains(bytes)).ok_or_else(|| {
        value.senseless(format!(
            "`{text}` is not {wanted}: use a whole number with a unit B, KiB, MiB or GiB"
        ))
    })
}

/// A span of time; `wanted` says in a sentence which there may be.
pub(super) fn duration(
    value: Value<'_>,
    valid: RangeInclusive<Duration>,
    wanted: &str,
) -> Result<Duration, ConfigError> {
    let text = value.string("a duration in quotes, such as \"50ms\"")?;
    let offset: Offset = text
        .parse()
        .map_err(|message: String| value.senseless(message))?;
    let duration = u64::try_from(offset.secs).map(|secs| Duration::new(secs, offset.nanosecs));
    duration
        .ok()
        .filter(|duration| valid.contains(duration))
        .ok_or_else(|| value.senseless(wanted))
}
