//! A line of the audit record: what one plugin answered to one question about one pod.
//!
//! The shim writes lines, `husk audit` reads them. Fields are only ever added. Names, reasons and
//! command lines are other people's words: each has a length, and JSON escapes them.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most a line may have, in bytes, with its line feed: the sum of what its fields may have.
pub const MAX_LINE: usize = 20 * 1024;

/// How much of a name a line holds, in bytes of JSON: as much as Kubernetes allows.
const NAME: usize = 253;

/// How much of a reason, and of what was decided.
const WORDS: usize = 8192;

/// How much of a command line.
const ARGV: usize = 4096;

/// What JSON adds to an argument: quotes and a comma.
const QUOTES: usize = 3;

/// What stands for what was left out.
const ELLIPSIS: char = '…';

/// One answer, or one refusal that no plugin alone is answerable for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was written, RFC 3339 in UTC. The first field: it says how old a file is.
    pub time: String,
    /// About which pod.
    pub pod: Pod,
    /// About which container, by its name, if about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The function that was called, such as `container-creating`; `load` where the plugin could not
    /// be loaded.
    pub event: String,
    /// The plugin; none where the handler refused what the plugins decided together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The sha256 of its component; of one that could not be loaded, the one it should have had.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// What it answered.
    pub answer: Answer,
    /// Why it refused, or how it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The scopes, links or edits that it answered, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<String>,
    /// Whether the answer counted: not that of a monitor, nor a failure that is ignored.
    pub counted: bool,
    /// How long the answer took, in microseconds.
    pub micros: u64,
    /// The sha256 of what the plugin could ask about: same input, same answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// The exec that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// How many lines of this pod could not be written before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

/// The pod of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The Kubernetes namespace; empty outside Kubernetes.
    #[serde(default)]
    pub namespace: String,
    /// The name; the sandbox's id where it has none.
    pub name: String,
    /// The uid in Kubernetes; empty outside.
    #[serde(default)]
    pub uid: String,
    /// The sandbox's id.
    pub id: String,
}

/// An exec that was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Its arguments, as many as there is room for; `…` ends what was cut.
    pub argv: Vec<String>,
    /// The user and group that it would run as, `UID:GID`.
    pub user: String,
}

impl Exec {
    /// An exec with these arguments, as many as a line has room for: what a client sends may be large.
    #[must_use]
    pub fn new<'a>(args: impl IntoIterator<Item = &'a str>, uid: u32, gid: u32) -> Self {
        Self {
            argv: fitting(args),
            user: format!("{uid}:{gid}"),
        }
    }
}

/// What a plugin answered, in one word.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing against it, nothing changed.
    #[default]
    Admitted,
    /// It assigned scopes.
    Scopes,
    /// It decided links.
    Links,
    /// It changed the container.
    Edited,
    /// It refused.
    Denied,
    /// It failed, or could not be loaded.
    Failed,
}

impl Answer {
    /// Every answer.
    pub const ALL: [Self; 6] = [
        Self::Admitted,
        Self::Scopes,
        Self::Links,
        Self::Edited,
        Self::Denied,
        Self::Failed,
    ];

    /// The word, as a line has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Scopes => "scopes",
            Self::Links => "links",
            Self::Edited => "edited",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    /// Whether what was asked about is refused, if the answer counts.
    #[must_use]
    pub const fn refuses(self) -> bool {
        matches!(self, Self::Denied | Self::Failed)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|answer| answer.name() == word);
        found.ok_or_else(|| {
            let words = Self::ALL.map(Self::name).join(", ");
            format!("an answer is one of {words}")
        })
    }
}

impl Line {
    /// The line as it is written, [`MAX_LINE`] bytes at most, and its line feed.
    ///
    /// # Errors
    /// None that is known: everything in it is text.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let name = |text: &str| cut(text, NAME);
        let words = |text: &Option<String>| text.as_ref().map(|text| cut(text, WORDS));
        let bounded = Self {
            time: name(&self.time),
            pod: Pod {
                namespace: name(&self.pod.namespace),
                name: name(&self.pod.name),
                uid: name(&self.pod.uid),
                id: name(&self.pod.id),
            },
            container: self.container.as_deref().map(name),
            event: name(&self.event),
            plugin: self.plugin.as_deref().map(name),
            digest: name(&self.digest),
            answer: self.answer,
            reason: words(&self.reason),
            // A refusal decides nothing: of the two there is one.
            decided: self
                .reason
                .is_none()
                .then(|| words(&self.decided))
                .flatten(),
            counted: self.counted,
            micros: self.micros,
            input: name(&self.input),
            exec: self.exec.as_ref().map(|exec| Exec {
                argv: fitting(exec.argv.iter().map(String::as_str)),
                user: name(&exec.user),
            }),
            lost: self.lost,
        };
        let mut json = serde_json::to_vec(&bounded)?;
        json.push(b'\n');
        Ok(json)
    }
}

/// The line in words, for people: without control characters, which would move a terminal's cursor.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pod {
            namespace, name, ..
        } = &self.pod;
        let mut words = match namespace.as_str() {
            "" => name.clone(),
            namespace => format!("{namespace}/{name}"),
        };
        if let Some(container) = &self.container {
            words.push(' ');
            words.push_str(container);
        }
        let by = self.plugin.as_deref().unwrap_or("the handler");
        words.push_str(&format!(" {}: {by} {}", self.event, self.answer));
        if !self.counted {
            words.push_str(", not counted");
        }
        if let Some(more) = self.reason.as_ref().or(self.decided.as_ref()) {
            words.push_str(": ");
            words.push_str(more);
        }
        if let Some(Exec { argv, user }) = &self.exec {
            words.push_str(&format!(" [user {user}: {}]", argv.join(" ")));
        }
        if self.lost > 0 {
            words.push_str(&format!(" ({} lines before it were lost)", self.lost));
        }
        for c in words.chars() {
            write!(f, "{}", if is_unseen(c) { '?' } else { c })?;
        }
        Ok(())
    }
}

/// Characters that are not seen but do something: control characters, and what turns the direction of
/// writing.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most so many bytes of JSON. What JSON lets through and a terminal obeys is replaced.
fn cut(text: &str, room: usize) -> String {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.len() <= room && text.bytes().all(plain) {
        return text.to_owned();
    }
    let mut left = room;
    let mut kept = String::with_capacity(text.len().min(room));
    // How much of it leaves room for the ellipsis.
    let mut sure = 0;
    for c in text.chars() {
        let c = match c {
            c if is_unseen(c) && !c.is_ascii() || c == '\u{7f}' => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        let Some(rest) = left.checked_sub(escaped(c)) else {
            kept.truncate(sure);
            kept.push(ELLIPSIS);
            break;
        };
        left = rest;
        kept.push(c);
        if left >= ELLIPSIS.len_utf8() {
            sure = kept.len();
        }
    }
    kept
}

/// As many arguments as there is room for.
fn fitting<'a>(args: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut room = ARGV;
    let mut argv = Vec::new();
    for arg in args {
        if room <= QUOTES + ELLIPSIS.len_utf8() {
            argv.push(ELLIPSIS.to_string());
            break;
        }
        let arg = cut(arg, room - QUOTES);
        room = room.saturating_sub(json_len(&arg) + QUOTES);
        argv.push(arg);
    }
    argv
}

/// How many bytes a text has in JSON, without its quotes.
fn json_len(text: &str) -> usize {
    text.chars().map(escaped).sum()
}

/// How many bytes a character has in JSON.
fn escaped(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> Line {
        let some = || Some(text.to_owned());
        Line {
            time: text.to_owned(),
            pod: Pod {
                namespace: text.to_owned(),
                name: text.to_owned(),
                uid: text.to_owned(),
                id: text.to_owned(),
            },
            container: some(),
            event: text.to_owned(),
            plugin: some(),
            digest: text.to_owned(),
            answer: Answer::Admitted,
            reason: some(),
            decided: some(),
            counted: false,
            micros: u64::MAX,
            input: text.to_owned(),
            exec: Some(Exec {
                argv: vec![text.to_owned(); 5000],
                user: text.to_owned(),
            }),
            lost: u64::MAX,
        }
    }

    #[test]
    fn a_line_is_bounded_whatever_is_in_it() {
        for text in ["\0", "\"", "\n", "ä", "\u{202e}", "a", "\u{1F600}", ""] {
            let json = full(&text.repeat(100_000)).to_json().unwrap();
            assert!(json.len() <= MAX_LINE, "{text:?}: {} bytes", json.len());
            assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
            let read: Line = serde_json::from_slice(&json).unwrap();
            assert!(read.exec.unwrap().argv.len() < 5000);
        }
    }

    #[test]
    fn what_was_cut_says_so() {
        let line = full(&"x".repeat(9000)).to_json().unwrap();
        let line: Line = serde_json::from_slice(&line).unwrap();
        let reason = line.reason.unwrap();
        assert!(
            reason.ends_with("xx…") && reason.len() == WORDS,
            "{}",
            reason.len()
        );
        assert_eq!(line.decided, None);
        let exec = Exec::new(["sh", "-c", &"y".repeat(5000)], 7, 8);
        assert_eq!(exec.argv[1], "-c");
        assert!(exec.argv[2].ends_with("yy…"));
        assert_eq!(exec.user, "7:8");
    }

    #[test]
    fn nothing_in_it_moves_a_cursor() {
        let line = full("\u{1b}[2J\u{9b}2J\u{202e}\u{7f}");
        let words = line.to_string();
        assert!(!words.chars().any(is_unseen), "{words:?}");
        let json = String::from_utf8(line.to_json().unwrap()).unwrap();
        assert!(!json.trim_end().chars().any(is_unseen), "{json:?}");
    }

    #[test]
    fn a_line_in_words() {
        let line = Line {
            pod: Pod {
                namespace: "default".into(),
                name: "web".into(),
                ..Pod::default()
            },
            container: Some("app".into()),
            event: "exec-starting".into(),
            plugin: Some("exec-gate".into()),
            answer: Answer::Denied,
            reason: Some("`sh` is not allowed".into()),
            exec: Some(Exec::new(["sh", "-c", "true"], 0, 0)),
            lost: 2,
            ..Line::default()
        };
        assert_eq!(
            line.to_string(),
            "default/web app exec-starting: exec-gate denied, not counted: `sh` is not allowed \
             [user 0:0: sh -c true] (2 lines before it were lost)"
        );
    }

    proptest! {
        #[test]
        fn what_is_cut_is_as_long_as_it_may_be(text in any::<String>(), room in 3_usize..200) {
            let kept = cut(&text, room);
            prop_assert!(json_len(&kept) <= room);
            let json = serde_json::to_string(&kept).unwrap();
            prop_assert_eq!(json.len(), json_len(&kept) + 2);
            if json_len(&text) <= room {
                prop_assert_eq!(kept.chars().count(), text.chars().count());
            } else {
                prop_assert!(kept.ends_with(ELLIPSIS));
            }
        }
    }
}
