//! Pods as pictures: SVG that opens from disk, in light and dark, without a script.
//!
//! From what is known to a [`Picture`](model::Picture), from there to a layout, from there to text: each
//! is a pure function, and the layout is what tests look at. Whatever a name holds, it is text: it is
//! escaped in one place, [`svg`].
use self::layout::Layout;
use self::model::Picture;

mod bands;
pub(crate) mod decided;
mod html;
mod layout;
mod links;
mod measure;
pub(crate) mod model;
mod order;
mod panels;
mod scene;
mod svg;
#[cfg(test)]
mod tests;

pub(crate) use html::page;

/// Around everything.
const MARGIN: i32 = 24;

/// Between scenes, and between panels.
const GAP: i32 = 28;

/// What is at least as wide: a title and the cgroups fit.
const NARROW: i32 = 700;

/// How wide scenes may be side by side.
const WIDE: i32 = 1700;

/// The picture as an SVG document.
pub(crate) fn svg(picture: &Picture) -> String {
    svg::write(&arrange(picture), &picture.title, &picture.facts)
}

/// Where everything is.
fn arrange(picture: &Picture) -> Layout {
    let mut scenes = scenes(picture);
    let width = scenes.width.max(NARROW);
    let mut all = Layout {
        width: width + 2 * MARGIN,
        height: MARGIN,
        ..Layout::default()
    };
    let legend = panels::legend(&scenes, width);
    scenes.width = width;
    below(&mut all, panels::heading(picture, width));
    all.height -= 8;
    below(&mut all, scenes);
    below(&mut all, legend);
    below(&mut all, details(picture, width));
    below(&mut all, panels::notes(&picture.notes, width));
    all.height += MARGIN - GAP / 2;
    all
}

/// Puts a part below the others.
fn below(all: &mut Layout, part: Layout) {
    if part.height == 0 {
        return;
    }
    let height = part.height;
    all.put(MARGIN, all.height, part);
    all.height += height + GAP / 2;
}

/// The scenes side by side where that is not too wide, else below one another.
fn scenes(picture: &Picture) -> Layout {
    let order = common_order(picture);
    let only = picture.scenes.len() < 2;
    let parts = picture.scenes.iter().map(|scene| {
        let width = if only { NARROW } else { 0 };
        scene::layout(scene, &order, width)
    });
    let parts: Vec<_> = parts.collect();
    let abreast = parts.iter().map(|part| part.width + GAP).sum::<i32>() <= WIDE;
    let mut all = Layout::default();
    for part in parts {
        let (width, height) = (part.width, part.height);
        if abreast {
            let x = if all.width > 0 { all.width + GAP } else { 0 };
            all.put(x, 0, part);
            all.width = x + width;
            all.height = all.height.max(height);
        } else {
            let y = if all.height > 0 { all.height + GAP } else { 0 };
            all.put(0, y, part);
            all.width = all.width.max(width);
            all.height = y + height;
        }
    }
    all
}

/// One order for all scenes: what changes is seen where it is.
fn common_order(picture: &Picture) -> Vec<usize> {
    let mut node = Vec::new();
    let mut columns: Vec<order::Row> = Vec::new();
    for scene in &picture.scenes {
        let (of_node, of_columns) = scene::signature(scene);
        node.extend(of_node);
        columns.resize(columns.len().max(of_columns.len()), Vec::new());
        for (column, row) in columns.iter_mut().zip(of_columns) {
            column.extend(row);
        }
    }
    order::order(&node, &columns)
}

/// Cgroups, and who decided: side by side where there is room.
fn details(picture: &Picture, width: i32) -> Layout {
    let both = !picture.cgroups.is_empty() && !picture.deciders.is_empty();
    let half = NARROW.max((width - GAP) / 2);
    let rest = width - GAP - half;
    let abreast = both && rest >= NARROW / 2;
    let (left, right) = if abreast {
        (half, rest)
    } else {
        (width, width)
    };
    let cgroups = panels::cgroups(&picture.cgroups, left);
    let deciders = panels::deciders(&picture.deciders, right);
    let mut all = Layout::default();
    if abreast {
        all.height = cgroups.height.max(deciders.height);
        all.put(0, 0, cgroups);
        all.put(half + GAP, 0, deciders);
    } else {
        let gap = if both { GAP / 2 } else { 0 };
        let y = cgroups.height + gap;
        all.height = y + deciders.height;
        all.put(0, 0, cgroups);
        all.put(0, y, deciders);
    }
    all
}
