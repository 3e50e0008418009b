//! What a run has found, as `--json` writes it.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::{Quantity, Spread};

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Who was measured: name and description.
    pub(crate) candidates: Vec<Described>,
    /// Whom the others are compared with.
    pub(crate) baseline: String,
    /// Rounds before those that count.
    pub(crate) warmups: usize,
    /// What was measured.
    pub(crate) measures: Vec<Measured>,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    /// As in the results.
    pub(crate) name: String,
    /// Binaries and versions.
    pub(crate) what: String,
}

/// A measure, of all who take part in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Its name, such as `life`.
    pub(crate) name: String,
    /// What was done.
    pub(crate) title: String,
    /// In the order in which they took turns.
    pub(crate) outcomes: Vec<Outcome>,
}

/// How one candidate did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Who.
    pub(crate) candidate: String,
    /// What was measured of it.
    pub(crate) values: BTreeMap<Quantity, Spread>,
}

impl Report {
    /// The measure of this name.
    pub(crate) fn measure(&self, name: &str) -> Option<&Measured> {
        self.measures.iter().find(|measure| measure.name == name)
    }
}

impl Measured {
    /// The quantities that anyone has.
    pub(crate) fn quantities(&self) -> Vec<Quantity> {
        let mut all: Vec<_> = self
            .outcomes
            .iter()
            .flat_map(|one| one.values.keys())
            .collect();
        all.sort();
        all.dedup();
        all.into_iter().copied().collect()
    }

    /// What was measured of this candidate.
    pub(crate) fn of(&self, candidate: &str, quantity: Quantity) -> Option<Spread> {
        let outcome = self
            .outcomes
            .iter()
            .find(|one| one.candidate == candidate)?;
        outcome.values.get(&quantity).copied()
    }

    /// A candidate's median as a multiple of another's.
    pub(crate) fn ratio(&self, candidate: &str, other: &str, quantity: Quantity) -> Option<f64> {
        let (one, other) = (self.of(candidate, quantity)?, self.of(other, quantity)?);
        (other.median > 0.0).then(|| one.median / other.median)
    }

    /// Whom the outcomes are compared with: the report's baseline, or whoever is first where that
    /// takes no part.
    pub(crate) fn baseline<'a>(&'a self, wanted: &'a str) -> &'a str {
        let mut names = self.outcomes.iter().map(|one| one.candidate.as_str());
        match names.clone().find(|name| *name == wanted) {
            Some(found) => found,
            None => names.next().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of one measure: candidates with their processor time.
    pub(crate) fn of_life(times: &[(&str, f64)]) -> Report {
        let outcome = |(name, median): &(&str, f64)| {
            let spread = Spread {
                median: *median,
                min: median * 0.9,
                max: median * 1.2,
                rounds: 20,
            };
            Outcome {
                candidate: (*name).to_owned(),
                values: BTreeMap::from([(Quantity::CpuMs, spread)]),
            }
        };
        Report {
            machine: Machine::default(),
            candidates: Vec::new(),
            baseline: "runc".into(),
            warmups: 3,
            measures: vec![Measured {
                name: "life".into(),
                title: "a life".into(),
                outcomes: times.iter().map(outcome).collect(),
            }],
        }
    }

    #[test]
    fn a_ratio_is_of_medians() {
        let report = of_life(&[("husk", 4.0), ("runc", 16.0)]);
        let life = report.measure("life").unwrap();
        assert_eq!(life.ratio("husk", "runc", Quantity::CpuMs), Some(0.25));
        assert_eq!(life.ratio("husk", "crun", Quantity::CpuMs), None);
        assert_eq!(life.ratio("husk", "runc", Quantity::PssKib), None);
        assert_eq!(
            (life.baseline("runc"), life.baseline("crun")),
            ("runc", "husk")
        );
    }

    #[test]
    fn a_report_is_read_back() {
        let report = of_life(&[("husk", 4.0)]);
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"cpu-ms\""), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
