//! Reads a record from its first line to its last, and on.
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use husk_scope::audit::{Line, MAX_LINE};
use time::OffsetDateTime;

use crate::files::{self, CURRENT, Identity};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// The longest line that is looked at: a later version may write longer ones.
const LONGEST: usize = 4 * MAX_LINE;

/// A line, and its text as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line.
    pub line: Line,
    /// Its JSON, without the line feed.
    pub json: String,
}

/// A place in a record.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// Earlier files than those last changed then are not looked at.
    since: Option<OffsetDateTime>,
    /// The highest number of the earlier files that were read.
    read: u64,
    open: Option<Open>,
    spoilt: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: Identity,
    pending: VecDeque<u8>,
    /// Whether what is pending belongs to a line that is too long.
    skipping: bool,
}

impl Reader {
    /// The beginning of the record in a directory, or of what was written `since` then: earlier lines
    /// may come, too.
    #[must_use]
    pub fn new(dir: &Path, since: Option<OffsetDateTime>) -> Self {
        Self {
            dir: dir.to_owned(),
            since,
            read: 0,
            open: None,
            spoilt: 0,
        }
    }

    /// How many lines were passed over, because they were cut or are none of husk's.
    #[must_use]
    pub fn spoilt(&self) -> u64 {
        self.spoilt
    }

    /// The next line; none where nothing more has been written yet. Then it may be asked again.
    ///
    /// # Errors
    /// The directory or a file cannot be read; no directory is an empty record.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if self.open.is_none() {
                self.open = self.following(None)?;
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            if let Some(text) = open.next_line()? {
                match entry(text) {
                    Some(entry) => return Ok(Some(entry)),
                    None => self.spoilt = self.spoilt.saturating_add(1),
                }
                continue;
            }
            let identity = open.identity;
            if is_under(&self.dir.join(CURRENT), identity)? {
                return Ok(None);
            }
            // It was renamed, and nobody appends to it any more: what came before that is there now.
            if open.fill()? > 0 {
                continue;
            }
            if !open.pending.is_empty() {
                open.pending.clear();
                self.spoilt = self.spoilt.saturating_add(1);
            }
            match self.following(Some(identity))? {
                Some(next) => self.open = Some(next),
                // Removed, and nothing is there in its place yet.
                None => return Ok(None),
            }
        }
    }

    /// Opens the file after this one.
    fn following(&mut self, identity: Option<Identity>) -> io::Result<Option<Open>> {
        loop {
            for number in self.unread()? {
                let path = files::numbered(&self.dir, number);
                self.read = number;
                // Removed meanwhile: it was one too many.
                let Some(open) = open(&path)? else { continue };
                if Some(open.identity) != identity && self.is_wanted(&open)? {
                    return Ok(Some(open));
                }
            }
            let current = open(&self.dir.join(CURRENT))?;
            // One that was renamed before this was opened comes first.
            if self.unread()?.is_empty() {
                return Ok(current);
            }
        }
    }

    /// The numbers of the files after those that were read.
    fn unread(&self) -> io::Result<Vec<u64>> {
        let mut numbers = match files::numbers(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            numbers => numbers?,
        };
        numbers.retain(|number| *number > self.read);
        Ok(numbers)
    }

    fn is_wanted(&self, open: &Open) -> io::Result<bool> {
        let changed = OffsetDateTime::from(open.file.metadata()?.modified()?);
        Ok(self.since.is_none_or(|since| changed >= since))
    }
}

impl Open {
    /// The next whole line.
    fn next_line(&mut self) -> io::Result<Option<String>> {
        loop {
            let end = self.pending.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if !std::mem::take(&mut self.skipping) {
                    let line = line.strip_suffix(b"\n").unwrap_or(&line);
                    return Ok(Some(String::from_utf8_lossy(line).into_owned()));
                }
                // The rest of one that was too long: it is no line either.
                return Ok(Some(String::new()));
            }
            if self.pending.len() > LONGEST {
                self.pending.clear();
                self.skipping = true;
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads what is there; how much it was.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let read = self.file.read(&mut chunk)?;
        self.pending.extend(chunk.iter().take(read));
        Ok(read)
    }
}

fn open(path: &Path) -> io::Result<Option<Open>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    Ok(Some(Open {
        identity: Identity::of(&file.metadata()?),
        file,
        pending: VecDeque::new(),
        skipping: false,
    }))
}

/// Whether this file is under that name.
fn is_under(path: &Path, identity: Identity) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(Identity::of(&found?) == identity),
    }
}

fn entry(json: String) -> Option<Entry> {
    let line = serde_json::from_str(&json).ok()?;
    Some(Entry { line, json })
}
