//! A report as the page docs/performance.md.
use std::fmt::Write as _;
use std::path::Path;

use crate::report::{Measured, Report};

const METHOD: &str = "\
## Method

Candidates take turns within one run (A B C A B C …), so that what disturbs the machine disturbs all
alike; compare figures of one run only, and ratios rather than milliseconds. A figure is the median
of the rounds after the warm-ups, with the least and the most.

- **wall**: from the first request to the last answer, as the client sees it.
- **CPU**: processor time, user's and system's, of everything a candidate ran, read from a cgroup
  that holds its shims, the runtimes they call and the containers, until nothing has moved for a
  while: what is put off until after the answer counts too, and so does what nobody waits for. The
  kernel's own threads, which take down network namespaces and cgroups, are not in it. Over CRI it
  is containerd's cgroup and that of the pods.
- **private**: `Private_Dirty` of all processes that stay for a pod: shim, zygote, holder, pause;
  not those of its containers. Pages that a pod's processes share with each other since they were
  forked, such as those of the relocated program, are in **PSS** only.
- **PSS**: their proportional set size: pages that several pods share are divided among them.

At the shim, containers are made over ttrpc as containerd makes them, with the Sandbox API where the
shim has it and a pause container (busybox's `sleep`) where it has not. They run busybox from a
tmpfs, in namespaces of their own, with the mounts of `runc spec` and the capabilities, masked paths
and seccomp profile of a Kubernetes container that asks for nothing. The **floor** is `husk-floor`, a
resident program that makes the same cgroups, namespaces, mounts, masks and filter and executes the
same `true`, and does nothing else: no state between Create and Start, no device rules, no change of
capabilities.
";

/// The page. `command` is what wrote it, `plot` the picture's file beside it.
pub(crate) fn page(report: &Report, command: &str, plot: Option<&Path>) -> String {
    let mut page = format!(
        "# What husk costs\n\nThis page is written by a command; do not edit it:\n\n```sh\n{command}\n```\n\n"
    );
    if let Some(plot) = plot.and_then(Path::file_name) {
        let _ = writeln!(
            page,
            "![The figures below as a plot]({})\n",
            plot.to_string_lossy()
        );
    }
    let _ = writeln!(page, "## Machine\n\n{}\n", report.machine.describe());
    page.push_str("| candidate | what it is |\n|---|---|\n");
    for candidate in &report.candidates {
        let _ = writeln!(page, "| {} | {} |", candidate.name, candidate.what);
    }
    let _ = write!(page, "\n{METHOD}\n## Figures\n");
    for measure in &report.measures {
        let _ = write!(page, "\n### {}\n\n", measure.name);
        table(&mut page, measure, &report.baseline);
    }
    page
}

fn table(page: &mut String, measure: &Measured, baseline: &str) {
    let baseline = measure.baseline(baseline);
    let quantities = measure.quantities();
    let rounds = measure
        .outcomes
        .iter()
        .flat_map(|outcome| outcome.values.values());
    let rounds = rounds.map(|spread| spread.rounds).max().unwrap_or_default();
    let _ = writeln!(page, "{}; {rounds} rounds\n", capitalized(&measure.title));
    page.push_str("| |");
    for quantity in &quantities {
        let _ = write!(
            page,
            " {} {} | min–max | ÷ {baseline} |",
            quantity.title(),
            quantity.unit()
        );
    }
    page.push_str("\n|---|");
    page.push_str(&"---:|---:|---:|".repeat(quantities.len()));
    page.push('\n');
    for outcome in &measure.outcomes {
        let _ = write!(page, "| {} |", outcome.candidate);
        for quantity in &quantities {
            let Some(spread) = outcome.values.get(quantity) else {
                page.push_str(" | | |");
                continue;
            };
            let ratio = measure.ratio(&outcome.candidate, baseline, *quantity);
            let _ = write!(
                page,
                " {} | {}–{} | {} |",
                quantity.shown(spread.median),
                quantity.shown(spread.min),
                quantity.shown(spread.max),
                ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default()
            );
        }
        page.push('\n');
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::of_life;

    #[test]
    fn the_page_says_how_it_was_made_and_shows_the_plot() {
        let report = of_life(&[("husk", 4.0), ("runc", 16.0)]);
        let page = page(
            &report,
            "tests/bench",
            Some(Path::new("docs/performance.svg")),
        );
        for part in [
            "```sh\ntests/bench\n```",
            "](performance.svg)",
            "| husk | 4.00 | 3.60–4.80 | 0.25 |",
            "A life; 20 rounds",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
    }
}
