//! A pod on its node: containers side by side, and their namespaces as bands across them.
//!
//! Each kind of namespace has a line of its own through all boxes, and in it a band for each namespace,
//! across those who share it. The node is a box like the others, but outside the pod: what a container
//! takes from the node is a band that comes in from there. Where those who share one are not neighbours, the
//! band is in pieces of the same colour and the same words.
use husk_scope::Kind;

use super::bands::bands;
use super::layout::{Anchor, Layout, Rect, Role, rect};
use super::links::{CHIP, Rows, Wiring};
use super::measure::{Font, bold, plain};
use super::model::{Owner, Scene, State};
use super::order::Row;

/// The lines, from top to bottom: what mostly is the node's, a container's, the pod's.
const LINES: [Kind; 8] = [
    Kind::User,
    Kind::Time,
    Kind::Mount,
    Kind::Pid,
    Kind::Cgroup,
    Kind::Uts,
    Kind::Ipc,
    Kind::Network,
];

/// The most containers side by side.
const ABREAST: usize = 7;

pub(super) const PADDING: i32 = 16;
/// Between the node's box and the pod.
const BRIDGE: i32 = 26;
pub(super) const NODE: i32 = 104;
const COLUMN: i32 = 158;
const GAP: i32 = 18;
/// The names of frames.
const LABEL: i32 = 34;
/// The name and the state of a container.
pub(super) const HEAD: i32 = 54;
pub(super) const BAND: i32 = 24;
pub(super) const LINE: i32 = 30;
const NAME: Font = bold(14);
/// How far what is shared reaches out of a box.
pub(super) const OUT: i32 = 5;

/// Where the columns of a scene are.
pub(super) struct Places {
    /// Numbers of columns, row by row.
    pub(super) rows: Vec<Vec<usize>>,
    /// By number: row, left edge, width.
    pub(super) spots: Vec<(usize, i32, i32)>,
    /// The top of each row.
    pub(super) tops: Vec<i32>,
    /// The height of the boxes of each row.
    heights: Vec<i32>,
    pod: Rect,
}

/// What the node, and each column, has in each line: for the order of columns.
pub(super) fn signature(scene: &Scene) -> (Row, Vec<Row>) {
    let node = LINES.map(|kind| node_space(scene, kind));
    let columns = scene.columns.iter().map(|column| {
        let cells = LINES.map(|kind| column.cell(kind).map(|cell| cell.space));
        cells.to_vec()
    });
    (node.to_vec(), columns.collect())
}

pub(super) fn node_space(scene: &Scene, kind: Kind) -> Option<usize> {
    let mut spaces = scene.spaces.iter();
    spaces.position(|space| space.kind == kind && space.owner == Owner::Node)
}

/// Puts a scene together, at least so wide.
pub(super) fn layout(scene: &Scene, order: &[usize], width: i32) -> Layout {
    let mut layout = Layout::default();
    let mut wiring = Wiring::of(scene);
    let places = places(scene, order, width, &mut wiring);
    frames(scene, &places, &mut layout);
    for (row, columns) in places.rows.iter().enumerate() {
        node_box(&places, row, &mut layout);
        for column in columns {
            card(scene, &places, *column, &mut layout);
        }
        for (line, kind) in LINES.into_iter().enumerate() {
            bands(scene, &places, row, (line, kind), &mut layout);
        }
    }
    let (row, rows) = wired(&places);
    let rows = Rows { row: &row, ..rows };
    let lanes: Vec<_> = places
        .tops
        .iter()
        .zip(&places.heights)
        .map(|(top, height)| top + height)
        .collect();
    wiring.draw(&rows, &lanes, &mut layout);
    layout
}

/// The rows as the wiring wants them.
fn wired(places: &Places) -> (Vec<usize>, Rows<'static>) {
    let row = places.spots.iter().map(|spot| spot.0).collect();
    let ends = places.spots.iter().map(|(_, x, width)| x + width);
    let rows = Rows {
        row: &[],
        count: places.rows.len(),
        channel: ends.max().unwrap_or_default() + OUT,
    };
    (row, rows)
}

fn places(scene: &Scene, order: &[usize], width: i32, wiring: &mut Wiring) -> Places {
    let count = order.len().div_ceil(ABREAST).max(1);
    let rows: Vec<_> = order
        .chunks(order.len().div_ceil(count).max(1))
        .map(<[usize]>::to_vec)
        .collect();
    let left = PADDING + NODE + BRIDGE;
    let widest = rows.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let widest = i32::try_from(widest).unwrap_or(i32::MAX);
    // What is left of the wanted width goes to the columns alike.
    let wanted = (width - left - 3 * PADDING + GAP) / widest - GAP;
    let wanted = wanted.max(names(scene, widest));
    let mut spots = vec![(0, 0, 0); scene.columns.len()];
    let mut right = left + PADDING;
    for (row, columns) in rows.iter().enumerate() {
        let mut x = left + PADDING;
        for column in columns {
            let width = wanted.max(wiring.width(*column) + 16);
            if let Some(spot) = spots.get_mut(*column) {
                *spot = (row, x, width);
            }
            right = right.max(x + width);
            x += width + GAP;
        }
    }
    let mut places = Places {
        rows,
        spots,
        tops: Vec::new(),
        heights: Vec::new(),
        pod: Rect::default(),
    };
    let y = stack(&mut places, wiring);
    let channel = wiring.channel(&wired(&places).0);
    let right = right.max(left + PADDING + COLUMN) + channel;
    let top = LABEL + 8;
    places.pod = rect(left, top, right + PADDING - left, y - top);
    places
}

/// The width at which names can be read, within reason: the more there are abreast, the less.
fn names(scene: &Scene, abreast: i32) -> i32 {
    let names = scene
        .columns
        .iter()
        .map(|column| NAME.width(&column.name) + 24);
    let most = if abreast > 4 { 176 } else { 220 };
    names.max().unwrap_or_default().clamp(COLUMN, most)
}

/// Puts the rows below one another; gives where the pod ends.
fn stack(places: &mut Places, wiring: &mut Wiring) -> i32 {
    let lines = i32::try_from(LINES.len()).unwrap_or(i32::MAX);
    // The lanes depend on where the chips are from left to right, the rows on how many lanes there are.
    for (column, (_, x, width)) in places.spots.clone().into_iter().enumerate() {
        wiring.place(column, rect(x, 0, width, CHIP));
    }
    let (row, rows) = wired(places);
    let lanes = wiring.heights(&Rows { row: &row, ..rows });
    let mut y = 2 * LABEL + 8;
    for (index, columns) in places.rows.clone().into_iter().enumerate() {
        let chips = columns.iter().any(|column| wiring.is_in(*column));
        let head = HEAD + lines * LINE;
        for column in &columns {
            let Some((_, x, width)) = places.spots.get(*column) else {
                continue;
            };
            wiring.place(*column, rect(*x, y + head - 2, *width, CHIP));
        }
        let height = head + if chips { CHIP + 8 } else { 4 };
        places.tops.push(y);
        places.heights.push(height);
        y += height + lanes.get(index).copied().unwrap_or_default() + PADDING;
    }
    y
}

fn frames(scene: &Scene, places: &Places, layout: &mut Layout) {
    let pod = places.pod;
    let node = rect(0, 0, pod.right() + PADDING, pod.bottom() + PADDING);
    layout.width = node.w;
    layout.height = node.h;
    layout.block(Role::Frame, node, 14, "frame node");
    layout.block(Role::Frame, pod, 12, "frame pod");
    let room = rect(PADDING, 8, node.w - 2 * PADDING, 22);
    let used = layout.text(room, bold(13), "label", "node");
    if !scene.heading.is_empty() {
        let room = rect(room.x + used + 12, room.y, room.w - used - 12, room.h);
        layout.anchored(room, Anchor::End, bold(14), "heading", &scene.heading);
    }
    let room = rect(pod.x + PADDING, pod.y + 7, pod.w - 2 * PADDING, 22);
    let used = layout.text(room, bold(13), "label", "pod") + 6;
    let room = rect(room.x + used, room.y, room.w - used, room.h);
    layout.text(room, plain(13), "label", &scene.pod);
}

fn node_box(places: &Places, row: usize, layout: &mut Layout) {
    let (Some(top), Some(height)) = (places.tops.get(row), places.heights.get(row)) else {
        return;
    };
    let card = rect(PADDING, *top, NODE, *height);
    layout.block(Role::Card, card, 8, "card nodes");
    layout.text(
        rect(card.x + 10, card.y + 8, NODE - 20, 20),
        bold(13),
        "name",
        "node",
    );
    layout.text(
        rect(card.x + 10, card.y + 28, NODE - 20, 16),
        plain(11),
        "dim",
        "namespaces",
    );
}

fn card(scene: &Scene, places: &Places, index: usize, layout: &mut Layout) {
    let (Some(column), Some((row, x, width))) = (scene.columns.get(index), places.spots.get(index))
    else {
        return;
    };
    let (Some(top), Some(height)) = (places.tops.get(*row), places.heights.get(*row)) else {
        return;
    };
    let (class, dot) = match column.state {
        State::Running => ("card", "dot running"),
        State::Waiting => ("card", "dot waiting"),
        State::Wanted => ("card", "dot wanted"),
        State::Gone => ("card gone", "dot gone"),
        State::Refused => ("card refused", "dot refused"),
        State::Sandbox => ("card gone", "dot sandbox"),
    };
    let card = rect(*x, *top, *width, *height);
    layout
        .block(Role::Card, card, 8, class)
        .titled(&column.title);
    let room = rect(card.x + 12, card.y + 8, card.w - 24, 20);
    layout.text(room, NAME, "name", &column.name);
    layout.block(Role::Dot, rect(card.x + 12, card.y + 33, 8, 8), 4, dot);
    let room = rect(card.x + 26, card.y + 28, card.w - 38, 16);
    layout.text(room, plain(11), "dim", &column.status);
}
