//! Text in columns, with colours where they are wanted.
use std::fmt::Write as _;

/// The widest line.
pub const WIDTH: usize = 120;

/// How much each section is moved to the right.
const INDENT: &str = "  ";

/// Blanks between columns.
const GAP: usize = 2;

/// How a text stands out on a terminal. Without colours nothing is lost: each is also in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    /// As the terminal has it.
    Plain,
    /// A heading: bold.
    Title,
    /// What may be passed over.
    Dim,
    /// As it should be; what is somebody's own.
    Green,
    /// What a pod shares.
    Cyan,
    /// Worth a look; what is the node's.
    Yellow,
    /// What some share.
    Magenta,
    /// Wrong.
    Red,
}

impl Style {
    /// The SGR parameters, see console_codes(4).
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Title => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Cyan => "36",
            Self::Yellow => "33",
            Self::Magenta => "35",
            Self::Red => "1;31",
        }
    }
}

/// A text in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What is written.
    pub text: String,
    /// How it stands out.
    pub style: Style,
    /// Whether it ends where its column ends.
    pub right: bool,
}

/// A text that begins where its column begins.
pub fn cell(text: impl Into<String>) -> Cell {
    Cell {
        text: text.into(),
        ..Cell::default()
    }
}

impl Cell {
    /// The same, standing out.
    #[must_use]
    pub const fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    /// A number: its last digit stands where the column ends.
    #[must_use]
    pub const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A heading, and what is said beside it.
    Title {
        /// The heading.
        title: String,
        /// Empty for nothing.
        note: String,
    },
    /// Rows of cells. Where the first is a row of headings, each of them is a [`Style::Title`].
    Table(Vec<Vec<Cell>>),
    /// Words that may be broken between lines.
    Sentence {
        /// What stands before it.
        mark: String,
        /// How it stands out.
        style: Style,
        /// The words.
        text: String,
    },
    /// An empty line.
    Gap,
}

/// Headings, tables and sentences being put together.
#[derive(Debug, Default)]
pub struct Page {
    blocks: Vec<Block>,
    colours: bool,
}

impl Page {
    /// An empty page, with or without colours.
    #[must_use]
    pub fn new(colours: bool) -> Self {
        Self {
            blocks: Vec::new(),
            colours,
        }
    }

    /// The parts, for who writes them otherwise than as lines.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The text.
    #[must_use]
    pub fn done(self) -> String {
        let mut lines = Lines {
            text: String::new(),
            colours: self.colours,
        };
        for block in &self.blocks {
            match block {
                Block::Title { title, note } => lines.title(title, note),
                Block::Table(rows) => lines.table(rows),
                Block::Sentence { mark, style, text } => lines.sentence(mark, *style, text),
                Block::Gap => lines.text.push('\n'),
            }
        }
        lines.text
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.blocks.push(Block::Gap);
    }

    /// A heading, after an empty line unless it is the first.
    pub fn title(&mut self, title: &str, note: &str) {
        self.blocks.push(Block::Title {
            title: title.to_owned(),
            note: note.to_owned(),
        });
    }

    /// Rows of cells, each column as wide as its widest; the last column takes what is left.
    pub fn table(&mut self, rows: &[Vec<Cell>]) {
        self.blocks.push(Block::Table(rows.to_vec()));
    }

    /// A sentence after a mark, broken between words.
    pub fn sentence(&mut self, mark: &str, style: Style, text: &str) {
        self.blocks.push(Block::Sentence {
            mark: mark.to_owned(),
            style,
            text: text.to_owned(),
        });
    }
}

/// Lines of text being put together.
struct Lines {
    text: String,
    colours: bool,
}

impl Lines {
    fn title(&mut self, title: &str, note: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let mut cells = vec![cell(title).style(Style::Title)];
        if !note.is_empty() {
            cells.push(cell(note).style(Style::Dim));
        }
        self.line(&cells, &[], "");
    }

    fn table(&mut self, rows: &[Vec<Cell>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(Cell::width)
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in rows {
            self.line(row, &widths, INDENT);
        }
    }

    fn sentence(&mut self, mark: &str, style: Style, text: &str) {
        let room = WIDTH - INDENT.len() - mark.len();
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let before = if number == 0 {
                mark.to_owned()
            } else {
                " ".repeat(mark.len())
            };
            self.line(&[cell(before + line).style(style)], &[], INDENT);
        }
    }

    fn line(&mut self, cells: &[Cell], widths: &[usize], indent: &str) {
        let mut line = String::from(indent);
        let mut used = indent.len();
        // Blanks are written only before a text: no line ends in them.
        let mut blanks = 0;
        for (column, cell) in cells.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or_else(|| cell.width());
            let text = cut(&harmless(&cell.text), WIDTH.saturating_sub(used + blanks));
            let length = text.chars().count();
            let missing = width.saturating_sub(length);
            if cell.right {
                blanks += missing;
            }
            if length > 0 {
                line.extend(std::iter::repeat_n(' ', blanks));
                self.paint(&mut line, cell.style, &text);
                used += blanks + length;
                blanks = 0;
            }
            blanks += if cell.right { GAP } else { missing + GAP };
        }
        self.text.push_str(&line);
        self.text.push('\n');
    }

    fn paint(&self, line: &mut String, style: Style, text: &str) {
        if self.colours && style != Style::Plain {
            let _ = write!(line, "\x1b[{}m{text}\x1b[0m", style.code());
        } else {
            line.push_str(text);
        }
    }
}

/// Without control characters: command lines and names are the container's own words, and must
/// not move a terminal's cursor.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// At most so many characters, an ellipsis for the rest.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
