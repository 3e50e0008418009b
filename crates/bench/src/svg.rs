//! A report as a plot: for each measure a panel of bars, each quantity on a scale of its own, with
//! whiskers from the least to the most.
use std::fmt::Write as _;

use crate::report::{Measured, Outcome, Report};
use crate::stats::{Quantity, Spread};

/// The picture's width, and where in it bars begin and end, pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 740.0;

/// The height of a bar, and of what is around it.
const BAR: f64 = 11.0;
const BETWEEN: f64 = 9.0;
const TITLE: f64 = 34.0;
const PANEL_GAP: f64 = 20.0;
const TOP: f64 = 62.0;

/// Colours by quantity, told apart by those who see no red or no green (Okabe and Ito).
const fn colour(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::WallMs => "#56b4e9",
        Quantity::CpuMs => "#0072b2",
        Quantity::PrivateDirtyKib => "#d55e00",
        Quantity::PssKib => "#e69f00",
        // What links cost has no bar of its own kind.
        _ => "#999999",
    }
}

/// The plot of all measures, as one SVG file that needs no other.
pub(crate) fn plot(report: &Report) -> String {
    let mut panels = String::new();
    let mut y = TOP;
    for measure in &report.measures {
        y = panel(&mut panels, measure, &report.baseline, y) + PANEL_GAP;
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {y:.0}\" width=\"{WIDTH:.0}\" \
         height=\"{y:.0}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <title>husk bench: shims side by side</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(
        &mut svg,
        16.0,
        24.0,
        "start",
        14,
        &report.machine.describe(),
    );
    legend(&mut svg);
    svg.push_str(&panels);
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut x = 16.0;
    for (quantity, what) in [
        (Quantity::WallMs, "wall time"),
        (Quantity::CpuMs, "CPU time of everything"),
        (Quantity::PrivateDirtyKib, "private memory"),
        (Quantity::PssKib, "PSS"),
    ] {
        rectangle(svg, x, 36.0, 11.0, colour(quantity));
        text(svg, x + 16.0, 46.0, "start", 12, what);
        x += 170.0;
    }
    text(
        svg,
        x,
        46.0,
        "start",
        12,
        "bar: median; line: least to most",
    );
}

/// Draws a measure from `top` on. Returns where it ends.
fn panel(svg: &mut String, measure: &Measured, baseline: &str, top: f64) -> f64 {
    let baseline = measure.baseline(baseline);
    let title = format!("{}: {}", measure.name, measure.title);
    text(svg, 16.0, top + 16.0, "start", 14, &title);
    let mut y = top + TITLE;
    for outcome in &measure.outcomes {
        let begun = y;
        for (quantity, spread) in &outcome.values {
            let scale = (RIGHT - LEFT) / end(measure, *quantity).max(f64::MIN_POSITIVE);
            bar(svg, *quantity, *spread, scale, y);
            let label = label(measure, outcome, baseline, *quantity, *spread);
            text(svg, RIGHT + 12.0, y + BAR - 1.0, "start", 11, &label);
            y += BAR + 2.0;
        }
        let middle = f64::midpoint(begun, y) + 3.0;
        text(svg, LEFT - 8.0, middle, "end", 12, &outcome.candidate);
        y += BETWEEN;
    }
    y
}

/// The end of a quantity's scale: a fifth more than its largest median, so that one round that the
/// machine disturbed makes no bars short.
fn end(measure: &Measured, quantity: Quantity) -> f64 {
    let values = measure.outcomes.iter().flat_map(|outcome| &outcome.values);
    let own = values.filter(|(other, _)| **other == quantity);
    own.map(|(_, spread)| spread.median * 1.2)
        .fold(0.0, f64::max)
}

fn bar(svg: &mut String, quantity: Quantity, spread: Spread, scale: f64, y: f64) {
    rectangle(svg, LEFT, y, spread.median * scale, colour(quantity));
    let (from, to) = (LEFT + spread.min * scale, LEFT + spread.max * scale);
    let (middle, above, below) = (y + BAR / 2.0, y + 2.0, y + BAR - 2.0);
    let begun = format!("M{from:.1} {above:.1}V{below:.1}M{from:.1} {middle:.1}");
    // A line that goes on beyond the scale has no end.
    let ended = if to > RIGHT + 0.05 {
        format!("H{RIGHT:.1}")
    } else {
        format!("H{to:.1}M{to:.1} {above:.1}V{below:.1}")
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<path d=\"{begun}{ended}\" stroke=\"#222\" fill=\"none\"/>"
    );
}

fn label(
    measure: &Measured,
    outcome: &Outcome,
    baseline: &str,
    quantity: Quantity,
    spread: Spread,
) -> String {
    let mut label = format!(
        "{} {} {}",
        quantity.title(),
        quantity.shown(spread.median),
        quantity.unit()
    );
    if let Some(ratio) = measure.ratio(&outcome.candidate, baseline, quantity)
        && outcome.candidate != baseline
    {
        let _ = write!(label, " = {ratio:.2} × {baseline}");
    }
    label
}

fn rectangle(svg: &mut String, x: f64, y: f64, width: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR:.0}\" fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u8, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::of_life;

    #[test]
    fn the_longest_line_ends_where_bars_end() {
        let svg = plot(&of_life(&[("husk", 4.0), ("a<b", 16.0)]));
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        // The most of the slowest is the end of the scale, its median 1 / 1.2 of that.
        assert!(svg.contains("H740.0"), "{svg}");
        assert!(svg.contains("width=\"491.7\""), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{svg}");
        assert!(svg.contains("CPU 16.0 ms = 4.00 × husk"), "{svg}");
    }
}
