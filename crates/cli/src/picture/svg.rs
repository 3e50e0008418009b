//! A layout as the text of an SVG document: one that needs nothing else.
use std::fmt::Write as _;

use super::layout::{Anchor, Block, Layout, Line, Text};
use super::measure::harmless;

const STYLE: &str = include_str!("style.css");

/// The document. `label` says in words what it shows, for those who do not see it.
pub(super) fn write(layout: &Layout, title: &str, label: &str) -> String {
    let mut svg = String::new();
    let (width, height) = (layout.width, layout.height);
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"husk-title husk-text\">\n\
         <title id=\"husk-title\">{}</title>\n<desc id=\"husk-text\">{}</desc>\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n",
        escape(title),
        escape(label)
    );
    for shape in &layout.blocks {
        block(&mut svg, shape);
    }
    for shape in &layout.lines {
        line(&mut svg, shape);
    }
    for shape in &layout.texts {
        text(&mut svg, shape);
    }
    svg.push_str("</svg>\n");
    svg
}

/// What stands for itself between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in harmless(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn titled(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", escape(title))
    }
}

fn block(svg: &mut String, block: &Block) {
    let rect = block.rect;
    let _ = writeln!(
        svg,
        "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\">{}</rect>",
        block.class,
        rect.x,
        rect.y,
        rect.w,
        rect.h,
        block.radius,
        titled(&block.title)
    );
}

fn line(svg: &mut String, line: &Line) {
    let points = line.points.iter().map(|(x, y)| format!("{x},{y}"));
    let points: Vec<_> = points.collect();
    let _ = writeln!(
        svg,
        "<polyline class=\"{}\" points=\"{}\">{}</polyline>",
        line.class,
        points.join(" "),
        titled(&line.title)
    );
    if let (true, Some((x, y))) = (line.arrow, line.points.last()) {
        let (left, right, low) = (x - 4, x + 4, y + 8);
        let _ = writeln!(
            svg,
            "<polygon class=\"head\" points=\"{x},{y} {left},{low} {right},{low}\"/>"
        );
    }
}

fn text(svg: &mut String, text: &Text) {
    let (x, anchor) = match text.anchor {
        Anchor::Start => (text.room.x, "start"),
        Anchor::Middle => (text.room.middle(), "middle"),
        Anchor::End => (text.room.right(), "end"),
    };
    // The baseline of a text whose middle is that of its room: capitals are seven tenths high.
    let y = text.room.y + (text.room.h * 10 + text.font.size * 7) / 20;
    let weight = if text.font.bold {
        " font-weight=\"600\""
    } else {
        ""
    };
    let whole = text.whole.as_deref().unwrap_or_default();
    // Where words are shortened one may point at them; else at what they stand on.
    let cut = if whole.is_empty() { "" } else { " cut" };
    let _ = writeln!(
        svg,
        "<text class=\"{}{cut}\" x=\"{x}\" y=\"{y}\" font-size=\"{}\"{weight} text-anchor=\"{anchor}\">{}{}</text>",
        text.class,
        text.font.size,
        escape(&text.text),
        titled(whole)
    );
}
