//! Namespaces as bands: one for each, across the boxes of those who share it.
use husk_scope::Kind;

use super::layout::{Anchor, Layout, Rect, Role, rect};
use super::measure::{bold, plain};
use super::model::{Cell, Owner, Scene, Space};
use super::scene::{BAND, HEAD, LINE, NODE, OUT, PADDING, Places, node_space};

/// Who decided, and what is wrong: a round mark.
pub(super) const BADGE: i32 = 16;

/// Colours of what some containers share.
const SOME: [&str; 4] = ["band some0", "band some1", "band some2", "band some3"];

/// The bands of one kind of namespace in a row of columns.
pub(super) fn bands(
    scene: &Scene,
    places: &Places,
    row: usize,
    (line, kind): (usize, Kind),
    layout: &mut Layout,
) {
    let (Some(columns), Some(top)) = (places.rows.get(row), places.tops.get(row)) else {
        return;
    };
    let y = top + HEAD + i32::try_from(line).unwrap_or(i32::MAX) * LINE;
    let node = node_space(scene, kind);
    let mut pieces = vec![Piece {
        space: node,
        cells: Vec::new(),
        is_node: true,
    }];
    for index in columns {
        let column = scene.columns.get(*index);
        let spot = places.spots.get(*index);
        let (Some(column), Some((_, x, width))) = (column, spot) else {
            continue;
        };
        let Some(cell) = column.cell(kind) else {
            // A gap: what comes after it is no neighbour of what is before.
            pieces.push(Piece::default());
            continue;
        };
        let here = (cell, rect(*x, y, *width, BAND));
        match pieces.last_mut() {
            Some(piece) if piece.space == Some(cell.space) => piece.cells.push(here),
            _ => pieces.push(Piece {
                space: Some(cell.space),
                cells: vec![here],
                is_node: false,
            }),
        }
    }
    for piece in pieces {
        piece.draw(scene, kind, y, layout);
    }
}

/// A part of a band without a break.
#[derive(Default)]
struct Piece {
    space: Option<usize>,
    cells: Vec<(Cell, Rect)>,
    /// It begins in the node's box.
    is_node: bool,
}

impl Piece {
    fn draw(&self, scene: &Scene, kind: Kind, y: i32, layout: &mut Layout) {
        let space = self.space.and_then(|space| scene.spaces.get(space));
        let first = self.cells.first().map(|(_, cell)| *cell);
        let last = self.cells.last().map(|(_, cell)| *cell);
        let own = space.is_some_and(|space| space.owner == Owner::Own);
        let out = if own { -8 } else { OUT };
        let start = if self.is_node {
            Some(PADDING + 8)
        } else {
            first.map(|cell| cell.x - out)
        };
        let end = last.map(|cell| cell.right() + out);
        let Some(start) = start else { return };
        let end = end.unwrap_or(PADDING + NODE - 8);
        let class = class(scene, space, self.is_node);
        let title = space.map_or_else(
            || format!("the node's {kind} namespace"),
            |space| space.title.clone(),
        );
        layout
            .block(
                Role::Band,
                rect(start, y, end - start, BAND),
                BAND / 2,
                class,
            )
            .titled(&title);
        for (cell, room) in &self.cells {
            badges(*cell, *room, layout);
        }
        let mut room = rect(start + 12, y, 0, BAND);
        // Words stand in the first box, before its badge.
        room.w = match (self.is_node, first) {
            (true, _) => PADDING + NODE - 10 - room.x,
            (false, Some(cell)) => cell.right() - 10 - room.x - self.badges(),
            (false, None) => return,
        };
        words(space, kind, self.is_node, room, layout);
    }

    /// The room that the first box's badges take.
    fn badges(&self) -> i32 {
        let Some((first, _)) = self.cells.first() else {
            return 0;
        };
        let shown = [first.by.is_some(), first.wrong].into_iter();
        shown.map(|shown| if shown { BADGE + 4 } else { 0 }).sum()
    }
}

fn class(scene: &Scene, space: Option<&Space>, is_node: bool) -> &'static str {
    match space.map(|space| &space.owner) {
        Some(Owner::Node) | None => "band node",
        _ if is_node => "band node",
        Some(Owner::Pod) => "band pod",
        Some(Owner::Own) => "band own",
        Some(Owner::Some(name)) => {
            let mut names = Vec::new();
            for space in &scene.spaces {
                match &space.owner {
                    Owner::Some(name) if !names.contains(&name) => names.push(name),
                    _ => {}
                }
            }
            let at = names.iter().position(|other| *other == name);
            let mut classes = SOME.iter().cycle();
            classes.nth(at.unwrap_or_default()).unwrap_or(&"band some0")
        }
    }
}

/// The kind, and whose it is where the colour alone does not say it.
fn words(space: Option<&Space>, kind: Kind, is_node: bool, room: Rect, layout: &mut Layout) {
    let used = layout.text(room, bold(12), "kind", kind.name()) + 6;
    let whose = match space.map(|space| &space.owner) {
        _ if is_node => return,
        None | Some(Owner::Own) => return,
        Some(Owner::Node) => "node",
        Some(Owner::Pod) => "pod",
        Some(Owner::Some(name)) => name,
    };
    let room = rect(room.x + used, room.y, room.w - used, room.h);
    layout.text(room, plain(11), "whose", whose);
}

/// At the end of a cell: who decided, and whether it came otherwise.
fn badges(cell: Cell, room: Rect, layout: &mut Layout) {
    let mut x = room.right() - 12 - BADGE;
    let y = room.y + (BAND - BADGE) / 2;
    if let Some(by) = cell.by {
        number(by, x, y, layout);
        x -= BADGE + 4;
    }
    if cell.wrong {
        mark("badge alarm", "!", x, y, layout);
    }
}

/// The number of who decided.
pub(super) fn number(by: usize, x: i32, y: i32, layout: &mut Layout) {
    mark("badge", &(by + 1).to_string(), x, y, layout);
}

pub(super) fn mark(class: &'static str, text: &str, x: i32, y: i32, layout: &mut Layout) {
    let at = rect(x, y, BADGE, BADGE);
    layout.block(Role::Badge, at, BADGE / 2, class);
    let size = if text.len() < 2 { 10 } else { 8 };
    layout.anchored(at, Anchor::Middle, bold(size), "number", text);
}
