//! A report for the terminal.
use crate::report::{Measured, Report};
use crate::stats::Quantity;
use husk_terminal::page::{Cell, Page, cell};

/// The report as aligned text.
pub(crate) fn text(report: &Report, colours: bool) -> String {
    let mut page = Page::new(colours);
    page.title("MACHINE", &report.machine.describe());
    let rows: Vec<_> = report
        .candidates
        .iter()
        .map(|one| vec![cell(&one.name), cell(&one.what)])
        .collect();
    page.table(&rows);
    for measure in &report.measures {
        page.title(&measure.name.to_uppercase(), &measure.title);
        // Two at a time: a line of four would be wider than a page.
        for quantities in measure.quantities().chunks(2) {
            page.table(&rows_of(measure, quantities, &report.baseline));
        }
    }
    page.done()
}

/// A line for each candidate; for each of these quantities its median, the least and the most, and the median
/// as a multiple of the baseline's.
fn rows_of(measure: &Measured, quantities: &[Quantity], baseline: &str) -> Vec<Vec<Cell>> {
    let baseline = measure.baseline(baseline);
    let mut heading = vec![cell("")];
    for quantity in quantities {
        heading.push(cell(format!("{} {}", quantity.title(), quantity.unit())).right());
        heading.push(cell("min–max").right());
        heading.push(cell(format!("/ {baseline}")).right());
    }
    let rows = measure.outcomes.iter().map(|outcome| {
        let mut row = vec![cell(&outcome.candidate)];
        for quantity in quantities {
            let Some(spread) = outcome.values.get(quantity) else {
                row.extend([cell(""), cell(""), cell("")]);
                continue;
            };
            let shown = |value| quantity.shown(value);
            let ratio = measure.ratio(&outcome.candidate, baseline, *quantity);
            row.push(cell(shown(spread.median)).right());
            row.push(cell(format!("{}–{}", shown(spread.min), shown(spread.max))).right());
            row.push(cell(ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default()).right());
        }
        row
    });
    std::iter::once(heading).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::of_life;

    #[test]
    fn a_line_has_the_median_its_range_and_the_ratio() {
        let text = text(&of_life(&[("husk", 4.0), ("runc", 16.0)]), false);
        let line = text.lines().find(|line| line.contains("husk")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["husk", "4.00", "3.60–4.80", "0.25"], "{text}");
        assert!(text.contains("/ runc"), "{text}");
    }
}
