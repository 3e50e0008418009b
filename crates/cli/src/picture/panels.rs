//! What stands around the scenes: the title, a legend, the cgroups, who decided.
use super::bands::{BADGE, mark, number};
use super::layout::{Anchor, Layout, Role, rect};
use super::measure::{bold, plain};
use super::model::{Decider, Picture, Usage};

/// The height of a line of a panel.
const LINE: i32 = 24;

/// The colours and what they say, in this order.
const LEGEND: [(&[&str], &str); 4] = [
    (&["band node"], "the node’s"),
    (&["band pod"], "the pod’s"),
    (
        &["band some0", "band some1", "band some2", "band some3"],
        "shared by some containers",
    ),
    (&["band own"], "a container’s own"),
];

const BADGES: [(&str, &str); 2] = [
    ("badge", "decided, see below"),
    ("badge alarm", "not as planned"),
];

/// The pod, what is known of it, and what is wrong with it.
pub(super) fn heading(picture: &Picture, width: i32) -> Layout {
    let mut layout = Layout {
        width,
        ..Layout::default()
    };
    layout.text(rect(0, 0, width, 30), bold(22), "title", &picture.title);
    layout.text(rect(0, 32, width, 18), plain(13), "dim", &picture.facts);
    let mut y = 56;
    for warning in &picture.warnings {
        let warning = format!("! {warning}");
        layout.text(rect(0, y, width, 18), plain(13), "warning", &warning);
        y += 20;
    }
    layout.height = y + 4;
    layout
}

/// What the colours of these blocks mean.
pub(super) fn legend(drawn: &Layout, width: i32) -> Layout {
    let mut layout = Layout {
        width,
        ..Layout::default()
    };
    let mut x = 0;
    let mut y = 2;
    let mut entry = |swatch: &'static str, text: &str| {
        let wanted = 30 + plain(12).width(text);
        if x > 0 && x + wanted > width {
            x = 0;
            y += LINE;
        }
        match swatch {
            "link" => {
                layout.line("link", vec![(x, y + 12), (x + 22, y + 12)]);
            }
            "badge" => number(0, x + 6, y + 4, &mut layout),
            "badge alarm" => mark(swatch, "!", x + 6, y + 4, &mut layout),
            _ => {
                layout.block(Role::Track, rect(x, y + 6, 22, 12), 6, swatch);
            }
        }
        layout.text(rect(x + 29, y, wanted, LINE), plain(12), "dim", text);
        x += wanted + 20;
        layout.height = y + LINE + 2;
    };
    for (classes, text) in LEGEND {
        let is_there =
            |class: &&&'static str| drawn.blocks.iter().any(|block| block.class == **class);
        if let Some(class) = classes.iter().find(is_there) {
            entry(class, text);
        }
    }
    if !drawn.lines.is_empty() {
        entry("link", "a link from port to port");
    }
    for (class, text) in BADGES {
        if drawn.blocks.iter().any(|block| block.class == class) {
            entry(class, text);
        }
    }
    layout
}

/// Limits and use, as a tree.
pub(super) fn cgroups(usages: &[Usage], width: i32) -> Layout {
    let mut layout = Layout {
        width,
        ..Layout::default()
    };
    if usages.is_empty() {
        return layout;
    }
    // The name, the meter, the words: what names leave of the width is the meter's.
    let words = [156, 156, 92];
    let room = width - words.iter().sum::<i32>() - 36;
    let names = usages.iter().map(|usage| plain(12).width(&usage.name) + 34);
    let name = names.max().unwrap_or_default().max(140).min(room - 96);
    let meter = (room - name).min(300);
    layout.text(rect(0, 0, name, LINE), bold(13), "label", "cgroups");
    let mut x = name + meter + 12;
    for (head, width) in ["memory", "processor time", "processes"].iter().zip(words) {
        layout.text(rect(x, 0, width, LINE), plain(11), "dim", head);
        x += width + 12;
    }
    let mut y = LINE;
    let above = usages.first().is_some_and(|usage| usage.above);
    for usage in usages {
        let indent = if above && !usage.above { 22 } else { 0 };
        if indent > 0 {
            layout.line("tree", vec![(8, y + 12), (18, y + 12)]);
        }
        layout.text(
            rect(indent, y, name - indent - 12, LINE),
            plain(12),
            "name",
            &usage.name,
        );
        track(usage, name, meter, y, &mut layout);
        let mut x = name + meter + 12;
        for (text, width) in usage.words.iter().zip(words) {
            layout.text(rect(x, y, width, LINE), plain(11), "dim", text);
            x += width + 12;
        }
        y += LINE;
    }
    if above && usages.len() > 1 {
        layout.line("tree", vec![(8, 2 * LINE - 3), (8, y - 12)]);
    }
    layout.height = y + 4;
    layout
}

fn track(usage: &Usage, x: i32, width: i32, y: i32, layout: &mut Layout) {
    let track = rect(x, y + 7, width, 10);
    let Some(used) = usage.used else {
        layout.block(Role::Track, track, 5, "track open");
        return;
    };
    layout.block(Role::Track, track, 5, "track");
    let filled = i32::try_from(used.min(1000)).unwrap_or(1000) * width / 1000;
    // So small a use is there all the same.
    let filled = filled.max(6);
    let class = if used >= 900 { "fill high" } else { "fill" };
    layout.block(Role::Fill, rect(x, track.y, filled, 10), 5, class);
}

/// Who decided what.
pub(super) fn deciders(deciders: &[Decider], width: i32) -> Layout {
    let mut layout = Layout {
        width,
        ..Layout::default()
    };
    if deciders.is_empty() {
        return layout;
    }
    layout.text(rect(0, 0, width, LINE), bold(13), "label", "decided by");
    let mut y = LINE;
    for (index, decider) in deciders.iter().enumerate() {
        number(index, 0, y + 4, &mut layout);
        let room = rect(BADGE + 8, y, width - BADGE - 8, LINE);
        layout.text(room, bold(12), "name", &decider.name);
        y += LINE - 2;
        for line in &decider.said {
            layout.text(rect(room.x, y, room.w, 20), plain(12), "dim", line);
            y += 20;
        }
        y += 6;
    }
    layout.height = y;
    layout
}

/// What there was no room for.
pub(super) fn notes(notes: &[String], width: i32) -> Layout {
    let mut layout = Layout {
        width,
        ..Layout::default()
    };
    for note in notes {
        let room = rect(0, layout.height, width, 20);
        layout.anchored(room, Anchor::Start, plain(12), "dim", note);
        layout.height += 20;
    }
    layout
}
