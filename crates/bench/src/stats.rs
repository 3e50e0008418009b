//! Numbers that were measured, and what is said of them.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Quantity {
    /// From the first request to the last answer, milliseconds.
    WallMs,
    /// Processor time of everything the candidate ran, milliseconds.
    CpuMs,
    /// Memory that only the processes that stay have, and have written, KiB.
    PrivateDirtyKib,
    /// Proportional set size of the processes that stay, KiB.
    PssKib,
    /// Bytes per second of one connection, in billions.
    OneStreamGbS,
    /// Of sixteen at once.
    SixteenStreamsGbS,
    /// Processor time for each billion bytes, both ends included, seconds.
    CpuSPerGb,
    /// A round trip that half of them were quicker than, microseconds.
    P50Us,
    /// One that 99 of 100 were quicker than.
    P99Us,
    /// Connections made in a second, one after the other, with a request and an answer.
    ConnectionsPerS,
    /// Private memory of what is in between, for each idle connection, bytes.
    IdleBytes,
    /// Connections that were open at once.
    AtOnce,
}

impl Quantity {
    /// The heading of its column.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::WallMs => "wall",
            Self::CpuMs => "CPU",
            Self::PrivateDirtyKib => "private",
            Self::PssKib => "PSS",
            Self::OneStreamGbS => "1 stream",
            Self::SixteenStreamsGbS => "16 streams",
            Self::CpuSPerGb => "CPU",
            Self::P50Us => "p50",
            Self::P99Us => "p99",
            Self::ConnectionsPerS => "connections",
            Self::IdleBytes => "each",
            Self::AtOnce => "at once",
        }
    }

    /// The unit in which [`Quantity::shown`] writes.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::WallMs | Self::CpuMs => "ms",
            Self::PrivateDirtyKib | Self::PssKib => "MB",
            Self::OneStreamGbS | Self::SixteenStreamsGbS => "GB/s",
            Self::CpuSPerGb => "s/GB",
            Self::P50Us | Self::P99Us => "µs",
            Self::ConnectionsPerS => "/s",
            Self::IdleBytes => "bytes",
            Self::AtOnce => "",
        }
    }

    /// The number as people read it, in [`Quantity::unit`]; memory in millions of bytes.
    pub(crate) fn shown(self, value: f64) -> String {
        let value = match self {
            Self::PrivateDirtyKib | Self::PssKib => value * 1024.0 / 1e6,
            _ => value,
        };
        if value < 10.0 {
            format!("{value:.2}")
        } else if value < 100.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        }
    }
}

/// What one round of one measure gave.
pub(crate) type Sample = Vec<(Quantity, f64)>;

/// The rounds of a measure together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// Half of the rounds were below.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The most.
    pub(crate) max: f64,
    /// How many rounds counted.
    pub(crate) rounds: usize,
}

/// The spread of each quantity over the rounds.
pub(crate) fn spreads(samples: &[Sample]) -> BTreeMap<Quantity, Spread> {
    let mut values: BTreeMap<Quantity, Vec<f64>> = BTreeMap::new();
    for (quantity, value) in samples.iter().flatten() {
        values.entry(*quantity).or_default().push(*value);
    }
    values
        .into_iter()
        .filter_map(|(quantity, values)| Some((quantity, spread(values)?)))
        .collect()
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = values.split_at(values.len() / 2);
    let above = *upper.first()?;
    let median = match lower.last() {
        Some(below) if values.len().is_multiple_of(2) => f64::midpoint(*below, above),
        _ => above,
    };
    Some(Spread {
        median,
        min: *values.first()?,
        max: *values.last()?,
        rounds: values.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let spread = |values: &[f64]| spread(values.to_vec()).unwrap();
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        let one = spread(&[7.0]);
        assert_eq!(
            (one.median, one.min, one.max, one.rounds),
            (7.0, 7.0, 7.0, 1)
        );
        assert!(super::spread(Vec::new()).is_none());
    }

    #[test]
    fn numbers_have_three_figures() {
        let shown = [0.5, 12.34, 123.4].map(|value| Quantity::CpuMs.shown(value));
        assert_eq!(shown, ["0.50", "12.3", "123"]);
        assert_eq!(Quantity::PssKib.shown(1000.0), "1.02");
    }
}
