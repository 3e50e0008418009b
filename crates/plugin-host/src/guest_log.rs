//! What plugins write to the log: escaped, capped, limited.
use std::collections::VecDeque;
use std::fmt::Write as _;

/// The longest line, in bytes; the rest is cut.
const LINE: usize = 1024;

/// How many lines one call may write.
const LINES: usize = 32;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever debugs the plugin.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
    /// Something is wrong.
    Error,
}

/// How much of what a call writes to WASI's streams is kept, in bytes.
const TAIL: usize = 1024;

/// The end of what one call wrote to WASI's streams, as it came.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    pub(crate) fn push(&mut self, byte: u8) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(byte);
    }

    /// In words, none where nothing was written.
    fn words(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(self.0.make_contiguous());
        let text = text.trim();
        (!text.is_empty()).then(|| escape(text))
    }
}

/// The lines of one call.
#[derive(Debug, Default)]
pub(crate) struct GuestLog {
    lines: Vec<(Level, String)>,
    dropped: usize,
}

impl GuestLog {
    pub(crate) fn push(&mut self, level: Level, message: &str) {
        if self.lines.len() == LINES {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.lines.push((level, escape(message)));
    }

    /// What a call that failed said of it: the last error it logged, else what it wrote last.
    pub(crate) fn last_words(&self, output: &mut Tail) -> Option<String> {
        let mut errors = self.lines.iter().rev();
        errors
            .find(|(level, _)| *level == Level::Error)
            .map(|(_, line)| line.clone())
            .or_else(|| output.words())
    }

    /// The lines, and one that says how many were dropped, if any were.
    pub(crate) fn finish(mut self) -> Vec<(Level, String)> {
        if self.dropped > 0 {
            let text = format!(
                "{} more lines dropped: a call may write {LINES}",
                self.dropped
            );
            self.lines.push((Level::Warn, text));
        }
        self.lines
    }
}

/// One printable line: a plugin must not forge other lines of the log, nor terminal sequences.
pub(crate) fn escape(message: &str) -> String {
    escape_to(message, LINE)
}

/// The same, cut at another length in bytes.
pub(crate) fn escape_to(message: &str, most: usize) -> String {
    let mut line = String::with_capacity(message.len().min(most));
    for character in message.chars() {
        let before = line.len();
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
        if line.len() > most {
            line.truncate(before);
            line.push('…');
            break;
        }
    }
    line
}

/// The first bytes of a text, at most this many, and no half character.
pub(crate) fn head(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_cannot_forge_a_line() {
        assert_eq!(
            escape("a\nlevel=error \u{1b}[31m"),
            "a\\nlevel=error \\u{1b}[31m"
        );
    }

    #[test]
    fn a_long_line_is_cut() {
        let line = escape(&"ä".repeat(LINE));
        assert!(line.len() <= LINE + '…'.len_utf8());
        assert!(line.ends_with('…'));
    }

    #[test]
    fn a_flood_is_counted_not_kept() {
        let mut log = GuestLog::default();
        for _ in 0..10_000 {
            log.push(Level::Info, "again");
        }
        let lines = log.finish();
        assert_eq!(lines.len(), LINES + 1);
        assert!(lines.last().unwrap().1.starts_with("9968 more lines"));
    }
}
