//! What there is to be drawn, whatever it was read from.
use husk_scope::Kind;

/// A picture: one arrangement of a pod, or several to be compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// The pod.
    pub(crate) title: String,
    /// What is known of it in a line.
    pub(crate) facts: String,
    /// What is not as it should be.
    pub(crate) warnings: Vec<String>,
    /// The arrangements. All have the same containers in the same order.
    pub(crate) scenes: Vec<Scene>,
    /// The cgroups, the pod's first.
    pub(crate) cgroups: Vec<Usage>,
    /// Who decided what, beside what was requested; cells name them by number.
    pub(crate) deciders: Vec<Decider>,
    /// What there was no room for.
    pub(crate) notes: Vec<String>,
}

/// Who decided, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decider {
    /// `configuration`, or `policy NAME`.
    pub(crate) name: String,
    /// A line for each decision.
    pub(crate) said: Vec<String>,
}

/// A pod on its node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    /// What distinguishes it from the other scenes; empty if it is the only one.
    pub(crate) heading: String,
    /// The pod's name.
    pub(crate) pod: String,
    /// Every namespace; cells name them by number.
    pub(crate) spaces: Vec<Space>,
    /// The containers, and the sandbox where it has namespaces that none of them uses.
    pub(crate) columns: Vec<Column>,
    /// The links whose two ends are columns.
    pub(crate) links: Vec<Link>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
    /// Said of it when one points at it.
    pub(crate) title: String,
}

/// Whose a namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Node,
    Pod,
    /// One container's alone.
    Own,
    /// Some containers': in a word, such as `group tools`.
    Some(String),
}

/// A container, or the sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) status: String,
    /// Said of it when one points at it.
    pub(crate) title: String,
    /// A cell for each kind of namespace; none where it has none, as one that has ended.
    pub(crate) cells: Vec<(Kind, Cell)>,
}

/// What a container's box looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Running,
    /// On its way to running, or held.
    Waiting,
    /// Not there: only asked for.
    Wanted,
    /// Ended, or never to be.
    Gone,
    /// It would be refused.
    Refused,
    /// The sandbox, which is no container.
    Sandbox,
}

/// A container's use of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Which of the scene's namespaces.
    pub(crate) space: usize,
    /// Which of the picture's deciders; none where it is as requested.
    pub(crate) by: Option<usize>,
    /// It is not what was planned.
    pub(crate) wrong: bool,
}

/// A port of a network that leads to a port of another.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) from: End,
    pub(crate) to: End,
    /// Said of it when one points at it.
    pub(crate) title: String,
}

/// An end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End {
    /// The columns whose network it is in; never none.
    pub(crate) columns: Vec<usize>,
    /// Its port, such as `8080` or `53/udp`.
    pub(crate) port: String,
}

/// Limits and use of a cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) name: String,
    /// The pod's; the others are below it.
    pub(crate) above: bool,
    /// Thousandths of its memory's limit that are used; none without a limit.
    pub(crate) used: Option<u64>,
    /// Memory, processor time and processes, each in words.
    pub(crate) words: [String; 3],
}

/// The most links that are drawn: more are no picture.
const LINKS: usize = 24;

impl Scene {
    /// Leaves out links that are too many; says so.
    pub(crate) fn keep_links(&mut self) -> Option<String> {
        let more = self
            .links
            .len()
            .checked_sub(LINKS)
            .filter(|more| *more > 0)?;
        self.links.truncate(LINKS);
        Some(format!("and {more} more links, which the tables list"))
    }

    /// The number of a namespace: of one that is the same in everything, or a new one.
    pub(crate) fn space(&mut self, kind: Kind, owner: Owner, title: String) -> usize {
        let space = Space { kind, owner, title };
        let known = self.spaces.iter().position(|known| *known == space);
        known.unwrap_or_else(|| {
            self.spaces.push(space);
            self.spaces.len() - 1
        })
    }

    /// The columns whose network is of this owner.
    pub(crate) fn in_network(&self, owner: &Owner) -> Vec<usize> {
        let is_in = |column: &Column| {
            let cell = column.cell(Kind::Network);
            let space = cell.and_then(|cell| self.spaces.get(cell.space));
            space.is_some_and(|space| space.owner == *owner)
        };
        let columns = self.columns.iter().enumerate();
        columns
            .filter(|(_, column)| is_in(column))
            .map(|(index, _)| index)
            .collect()
    }
}

impl Column {
    /// The sandbox, which keeps what no container uses.
    pub(crate) fn sandbox() -> Self {
        Self {
            name: "sandbox".into(),
            state: State::Sandbox,
            status: "used by none yet".into(),
            title: "kept for the pod, used by no container".into(),
            cells: Vec::new(),
        }
    }

    pub(super) fn cell(&self, kind: Kind) -> Option<Cell> {
        let mut cells = self.cells.iter();
        let (_, cell) = cells.find(|(of, _)| *of == kind)?;
        Some(*cell)
    }
}
