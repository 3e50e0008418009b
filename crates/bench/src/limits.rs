//! Ratios that are kept: a stored one, and whether this run is worse by more than a margin.
//!
//! Ratios within one run, because milliseconds are the machine's: a slower machine is slower for
//! all candidates.
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::report::Report;
use crate::stats::Quantity;

/// The ratios that a file stores.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Limits {
    /// How much worse than stored is still well: 0.3 is 30 %.
    margin: f64,
    /// The version of cgroups that it was stored with, `v1` or `v2`. With the other, runtimes have
    /// other work to do: the ratios are shown there, and break nothing.
    cgroups: String,
    #[serde(rename = "limit")]
    limits: Vec<Limit>,
}

/// One ratio.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    measure: String,
    quantity: Quantity,
    /// The candidate that is kept.
    of: String,
    /// The one it is compared with.
    to: String,
    /// `of` as a multiple of `to`, when this was stored.
    ratio: f64,
}

/// What the limits say to a report.
pub(crate) struct Verdict {
    /// A line for each limit.
    pub(crate) text: String,
    /// Whether all are kept.
    pub(crate) kept: bool,
}

impl Limits {
    /// Reads a file of limits.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("{} holds no limits", file.display()))
    }

    /// Compares a report with what is stored.
    ///
    /// # Errors
    /// A limit about what was not measured: it would be kept for ever.
    pub(crate) fn judge(&self, report: &Report) -> Result<Verdict> {
        let mut verdict = Verdict {
            text: String::new(),
            kept: true,
        };
        let applies = self.cgroups == report.machine.cgroups;
        if !applies {
            // Writing to a string does not fail.
            let _ = writeln!(
                verdict.text,
                "stored with cgroup {}, measured with {}: nothing is judged",
                self.cgroups, report.machine.cgroups
            );
        }
        for limit in &self.limits {
            let Limit {
                measure, of, to, ..
            } = limit;
            let measured = report.measure(measure);
            let ratio = measured.and_then(|measured| measured.ratio(of, to, limit.quantity));
            let ratio = ratio.with_context(|| {
                let what = limit.quantity.title();
                format!("there is a limit for {what} of {of} to {to} in {measure}, which was not measured")
            })?;
            let most = limit.ratio * (1.0 + self.margin);
            let kept = ratio <= most;
            verdict.kept &= kept || !applies;
            let _ = writeln!(
                verdict.text,
                "{} {measure}: {} of {of} is {ratio:.3} of {to}'s, stored {:.3}, at most {most:.3}",
                if kept { "kept  " } else { "BROKEN" },
                limit.quantity.title(),
                limit.ratio
            );
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::of_life;

    fn limits(ratio: f64) -> Limits {
        let text = format!(
            "margin = 0.3\ncgroups = \"v1\"\n[[limit]]\nmeasure = \"life\"\nquantity = \"cpu-ms\"\nof = \"husk\"\n\
             to = \"runc\"\nratio = {ratio}\n"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn worse_by_more_than_the_margin_breaks_a_limit() {
        let mut report = of_life(&[("husk", 5.0), ("runc", 10.0)]);
        report.machine.cgroups = "v1".into();
        for (stored, kept) in [(0.5, true), (0.39, true), (0.38, false), (0.9, true)] {
            let verdict = limits(stored).judge(&report).unwrap();
            assert_eq!(verdict.kept, kept, "{}", verdict.text);
        }
        report.machine.cgroups = "v2".into();
        let verdict = limits(0.1).judge(&report).unwrap();
        assert!(
            verdict.kept && verdict.text.contains("nothing is judged"),
            "{}",
            verdict.text
        );
    }

    #[test]
    fn a_limit_that_was_not_measured_is_an_error() {
        let error = limits(0.5).judge(&of_life(&[("husk", 5.0)])).err().unwrap();
        assert!(error.to_string().contains("not measured"), "{error}");
    }
}
