//! Where everything is, before it is written as SVG. Pixels are whole numbers.
use super::measure::{Font, harmless};

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) w: i32,
    pub(super) h: i32,
}

/// A rectangle at a place, of a size.
pub(super) const fn rect(x: i32, y: i32, w: i32, h: i32) -> Rect {
    Rect { x, y, w, h }
}

impl Rect {
    pub(super) const fn right(self) -> i32 {
        self.x + self.w
    }

    pub(super) const fn bottom(self) -> i32 {
        self.y + self.h
    }

    pub(super) const fn middle(self) -> i32 {
        self.x + self.w / 2
    }

    const fn moved(self, x: i32, y: i32) -> Self {
        rect(self.x + x, self.y + y, self.w, self.h)
    }

    /// Smaller by this much on each side.
    pub(super) const fn inset(self, x: i32, y: i32) -> Self {
        rect(self.x + x, self.y + y, self.w - 2 * x, self.h - 2 * y)
    }
}

/// What a box stands for. Those of one role never overlap, but for frames and fills, which lie in one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The node, or a pod.
    Frame,
    /// A container, or the list of the node's namespaces.
    Card,
    /// A namespace, as far as its members are side by side.
    Band,
    /// A port.
    Chip,
    /// Who decided.
    Badge,
    /// The state of a container.
    Dot,
    /// The whole of what may be used, and a patch of colour in a legend.
    Track,
    /// What of a track is used.
    Fill,
}

/// A box.
#[derive(Clone, Debug)]
pub(super) struct Block {
    #[cfg_attr(not(test), expect(dead_code, reason = "which boxes must not overlap"))]
    pub(super) role: Role,
    pub(super) rect: Rect,
    pub(super) radius: i32,
    /// Its classes in the style sheet.
    pub(super) class: &'static str,
    /// What is said of it when one points at it; empty for nothing.
    pub(super) title: String,
}

/// Where a text stands in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// What it may fill.
    pub(super) room: Rect,
    pub(super) anchor: Anchor,
    pub(super) font: Font,
    pub(super) class: &'static str,
    pub(super) text: String,
    /// All of it, where it had to be shortened.
    pub(super) whole: Option<String>,
}

/// A line with corners.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) points: Vec<(i32, i32)>,
    pub(super) class: &'static str,
    pub(super) title: String,
    /// Whether it ends in an arrow, pointing up.
    pub(super) arrow: bool,
}

/// Everything that is drawn, in the order of its kinds: blocks, lines, texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) blocks: Vec<Block>,
    pub(super) lines: Vec<Line>,
    pub(super) texts: Vec<Text>,
}

impl Layout {
    pub(super) fn block(
        &mut self,
        role: Role,
        rect: Rect,
        radius: i32,
        class: &'static str,
    ) -> &mut Block {
        self.blocks.push(Block {
            role,
            rect,
            radius,
            class,
            title: String::new(),
        });
        let last = self.blocks.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was pushed a line above")]
        &mut self.blocks[last]
    }

    /// A text at the beginning of a room; gives the pixels that it takes.
    pub(super) fn text(&mut self, room: Rect, font: Font, class: &'static str, text: &str) -> i32 {
        self.anchored(room, Anchor::Start, font, class, text)
    }

    pub(super) fn anchored(
        &mut self,
        room: Rect,
        anchor: Anchor,
        font: Font,
        class: &'static str,
        text: &str,
    ) -> i32 {
        // Blanks at the ends are not drawn.
        let (text, whole) = font.fit(text.trim(), room.w);
        let width = font.width(&text);
        if !text.is_empty() && room.w >= width {
            self.texts.push(Text {
                room,
                anchor,
                font,
                class,
                text,
                whole,
            });
        }
        width
    }

    pub(super) fn line(&mut self, class: &'static str, points: Vec<(i32, i32)>) -> &mut Line {
        self.lines.push(Line {
            points,
            class,
            title: String::new(),
            arrow: false,
        });
        let last = self.lines.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was pushed a line above")]
        &mut self.lines[last]
    }

    /// Takes in another one, moved.
    pub(super) fn put(&mut self, x: i32, y: i32, other: Self) {
        self.blocks
            .extend(other.blocks.into_iter().map(|mut block| {
                block.rect = block.rect.moved(x, y);
                block
            }));
        self.texts.extend(other.texts.into_iter().map(|mut text| {
            text.room = text.room.moved(x, y);
            text
        }));
        self.lines.extend(other.lines.into_iter().map(|mut line| {
            for point in &mut line.points {
                *point = (point.0 + x, point.1 + y);
            }
            line
        }));
    }
}

impl Block {
    pub(super) fn titled(&mut self, title: &str) {
        self.title = harmless(title);
    }
}

impl Line {
    pub(super) fn titled(&mut self, title: &str) {
        self.title = harmless(title);
    }
}
