//! Links: a chip for each port, and lines below the containers from chip to chip.
//!
//! Lines run where nothing else is: down from a chip, along a lane below its row of containers, and from
//! row to row through a channel at the right. They cross one another, but no box and no text.
use super::layout::{Anchor, Layout, Rect, Role, rect};
use super::measure::{Font, plain};
use super::model::{End, Scene};

/// The height of a chip.
pub(super) const CHIP: i32 = 18;

/// Between lanes, and between the lines of the channel.
const LANE: i32 = 9;

/// The chips that every column has room for.
const ABREAST: usize = 2;

/// Between chips.
const GAP: i32 = 6;

const FONT: Font = plain(11);

/// A port, in the box of one of the containers whose network it is in.
#[derive(Clone, Debug)]
struct Chip {
    end: End,
    column: usize,
    /// The chip that a link leads to from here: one that leads elsewhere has a chip of its own. None where
    /// links lead here.
    leads_to: Option<usize>,
    rect: Rect,
    title: String,
}

/// The links that lead to one port: lines that come together.
#[derive(Clone, Debug)]
struct Bus {
    /// Its chips, the one that is led to first.
    chips: Vec<usize>,
    title: String,
}

/// The chips of a scene and what joins them.
#[derive(Clone, Debug, Default)]
pub(super) struct Wiring {
    chips: Vec<Chip>,
    buses: Vec<Bus>,
}

/// Where columns are: the row that each is in, and the channel's left edge.
pub(super) struct Rows<'a> {
    /// By column.
    pub(super) row: &'a [usize],
    /// How many rows there are.
    pub(super) count: usize,
    pub(super) channel: i32,
}

/// A stretch of a bus on a lane.
struct Stretch {
    bus: usize,
    row: usize,
    from: i32,
    to: i32,
    lane: i32,
}

impl Wiring {
    pub(super) fn of(scene: &Scene) -> Self {
        let mut wiring = Self::default();
        for link in &scene.links {
            let Some(to) = wiring.chip(&link.to, None, &link.title) else {
                continue;
            };
            let Some(from) = wiring.chip(&link.from, Some(to), &link.title) else {
                continue;
            };
            let same = |bus: &&mut Bus| bus.chips.first() == Some(&to);
            match wiring.buses.iter_mut().find(same) {
                Some(bus) => {
                    if !bus.chips.contains(&from) {
                        bus.chips.push(from);
                    }
                    bus.title.push_str("; ");
                    bus.title.push_str(&link.title);
                }
                None => wiring.buses.push(Bus {
                    chips: vec![to, from],
                    title: link.title.clone(),
                }),
            }
        }
        wiring
    }

    /// The chip of an end, made if it is not there: in the first column that has room for it beside others
    /// without being widened.
    fn chip(&mut self, end: &End, leads_to: Option<usize>, title: &str) -> Option<usize> {
        let mut chips = self.chips.iter_mut().enumerate();
        if let Some((at, chip)) =
            chips.find(|(_, chip)| chip.end == *end && chip.leads_to == leads_to)
        {
            chip.title.push_str("; ");
            chip.title.push_str(title);
            return Some(at);
        }
        let load = |column: &usize| {
            let chips = self.chips.iter();
            chips.filter(|chip| chip.column == *column).count() / ABREAST
        };
        let column = *end.columns.iter().min_by_key(|column| load(column))?;
        self.chips.push(Chip {
            end: end.clone(),
            column,
            leads_to,
            rect: rect(0, 0, FONT.width(&end.port) + 12, CHIP),
            title: title.to_owned(),
        });
        Some(self.chips.len() - 1)
    }

    /// The room that a column's chips need beside one another.
    pub(super) fn width(&self, column: usize) -> i32 {
        let chips = self.chips.iter().filter(|chip| chip.column == column);
        chips.map(|chip| chip.rect.w + GAP).sum()
    }

    pub(super) fn is_in(&self, column: usize) -> bool {
        self.chips.iter().any(|chip| chip.column == column)
    }

    /// Puts a column's chips side by side in the middle of a room.
    pub(super) fn place(&mut self, column: usize, room: Rect) {
        let mut x = room.middle() - (self.width(column) - GAP) / 2;
        for chip in self.chips.iter_mut().filter(|chip| chip.column == column) {
            chip.rect.x = x;
            chip.rect.y = room.y;
            x += chip.rect.w + GAP;
        }
    }

    /// The width of the channel.
    pub(super) fn channel(&self, row: &[usize]) -> i32 {
        let crossing = self.buses.iter().filter(|bus| self.crosses(bus, row));
        match i32::try_from(crossing.count()).unwrap_or(i32::MAX) {
            0 => 0,
            count => count * LANE + LANE,
        }
    }

    fn rows_of(&self, bus: &Bus, row: &[usize]) -> Vec<usize> {
        let chips = bus.chips.iter().filter_map(|chip| self.chips.get(*chip));
        let mut rows: Vec<_> = chips
            .filter_map(|chip| row.get(chip.column).copied())
            .collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn crosses(&self, bus: &Bus, row: &[usize]) -> bool {
        self.rows_of(bus, row).len() > 1
    }

    /// What a bus occupies of each row, and its line in the channel.
    fn stretches(&self, rows: &Rows<'_>) -> (Vec<Stretch>, Vec<Option<i32>>) {
        let mut stretches = Vec::new();
        let mut tracks = Vec::new();
        let mut next = rows.channel + LANE;
        for (index, bus) in self.buses.iter().enumerate() {
            let of = self.rows_of(bus, rows.row);
            let track = (of.len() > 1).then_some(next);
            if track.is_some() {
                next += LANE;
            }
            tracks.push(track);
            for row in of {
                let chips = bus.chips.iter().filter_map(|chip| self.chips.get(*chip));
                let here = chips.filter(|chip| rows.row.get(chip.column) == Some(&row));
                let ends: Vec<_> = here.map(|chip| chip.rect.middle()).chain(track).collect();
                let (Some(from), Some(to)) = (ends.iter().min(), ends.iter().max()) else {
                    continue;
                };
                stretches.push(Stretch {
                    bus: index,
                    row,
                    from: *from,
                    to: *to,
                    lane: 0,
                });
            }
        }
        // Short ones nearest to the containers: fewer lines cross.
        stretches.sort_by_key(|stretch| (stretch.row, stretch.to - stretch.from, stretch.bus));
        for index in 0..stretches.len() {
            let (done, rest) = stretches.split_at_mut(index);
            let Some(stretch) = rest.first_mut() else {
                continue;
            };
            let taken = |lane: i32| {
                let beside = |other: &&Stretch| other.row == stretch.row && other.lane == lane;
                let mut others = done.iter().filter(beside);
                others.any(|other| other.from - LANE < stretch.to && stretch.from - LANE < other.to)
            };
            stretch.lane = (0..).find(|lane| !taken(*lane)).unwrap_or_default();
        }
        (stretches, tracks)
    }

    /// The height of the lanes below each row.
    pub(super) fn heights(&self, rows: &Rows<'_>) -> Vec<i32> {
        let (stretches, _) = self.stretches(rows);
        let height = |row: usize| {
            let lanes = stretches.iter().filter(|stretch| stretch.row == row);
            lanes.map(|stretch| (stretch.lane + 1) * LANE + 8).max()
        };
        (0..rows.count)
            .map(|row| height(row).unwrap_or_default())
            .collect()
    }

    /// Draws chips and lines; lanes begin at these heights.
    pub(super) fn draw(&self, rows: &Rows<'_>, lanes: &[i32], layout: &mut Layout) {
        for chip in &self.chips {
            let (class, port) = match chip.leads_to {
                None => ("chip in", "port in"),
                Some(_) => ("chip out", "port out"),
            };
            layout
                .block(Role::Chip, chip.rect, CHIP / 2, class)
                .titled(&chip.title);
            let room = chip.rect.inset(4, 0);
            layout.anchored(room, Anchor::Middle, FONT, port, &chip.end.port);
        }
        let (stretches, tracks) = self.stretches(rows);
        let height = |stretch: &Stretch| {
            let top = lanes.get(stretch.row).copied().unwrap_or_default();
            top + 8 + stretch.lane * LANE
        };
        for (index, bus) in self.buses.iter().enumerate() {
            let of = || stretches.iter().filter(|stretch| stretch.bus == index);
            for stretch in of().filter(|stretch| stretch.from < stretch.to) {
                let y = height(stretch);
                let points = vec![(stretch.from, y), (stretch.to, y)];
                layout.line("link", points).titled(&bus.title);
            }
            let (top, bottom) = (of().map(height).min(), of().map(height).max());
            if let (Some(Some(x)), Some(top), Some(bottom)) = (tracks.get(index), top, bottom) {
                layout
                    .line("link", vec![(*x, top), (*x, bottom)])
                    .titled(&bus.title);
            }
            for chip in bus.chips.iter().filter_map(|chip| self.chips.get(*chip)) {
                let row = rows.row.get(chip.column);
                let Some(stretch) = of().find(|stretch| Some(&stretch.row) == row) else {
                    continue;
                };
                let (x, y) = (chip.rect.middle(), height(stretch));
                let line = layout.line("link", vec![(x, y), (x, chip.rect.bottom())]);
                line.titled(&bus.title);
                line.arrow = chip.leads_to.is_none();
                // A dot where lines meet: others only cross.
                if bus.chips.len() > 2 {
                    layout.line("link joint", vec![(x, y), (x, y)]);
                }
            }
        }
    }
}
