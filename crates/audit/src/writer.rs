//! Writes lines, beside all other shims of the node.
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use husk_scope::audit::Line;
use husk_scope::config::Audit;
use time::OffsetDateTime;

use crate::clock;
use crate::files::{self, CURRENT, Identity};
use crate::journal::Journal;
use crate::turn::{PATIENCE, Turn};

/// How often files are opened anew for one line: each time, somebody has replaced them just then.
const ATTEMPTS: usize = 10;

/// Where the time of a file's first line stands.
const FIRST: &str = "{\"time\":\"";

/// Why lines are not, or not all, on record.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file.
    #[error("the audit record {path} cannot be written to ({action}): {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Somebody has it.
    #[error(
        "the audit record in {dir} is locked by another process for longer than {} ms; `lslocks` \
         shows which",
        PATIENCE.as_millis()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
}

/// A record that is written to.
#[derive(Debug)]
pub struct Writer {
    settings: Audit,
    journal: Option<Journal>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// Lines that are not on record since the last one that is.
    lost: u64,
}

/// The files, as they were found under their names.
#[derive(Debug)]
struct Open {
    dir: Arc<File>,
    file: File,
    identity: Identity,
    /// When the file was begun.
    begun: OffsetDateTime,
    /// Where it is known to end a line.
    ended: u64,
}

impl Writer {
    /// A writer that opens its files at the first line.
    #[must_use]
    pub fn new(settings: &Audit) -> Self {
        Self {
            settings: settings.clone(),
            journal: settings.journal.then(Journal::of_the_node),
            state: Mutex::default(),
        }
    }

    /// How the record is kept.
    #[must_use]
    pub fn settings(&self) -> &Audit {
        &self.settings
    }

    /// Writes lines, stamped with the time. Blocks, for a second at most where others are in the way.
    ///
    /// # Errors
    /// The first one; the lines from there on are lost, and the next one that is written says how many.
    pub fn append(&self, lines: &mut [Line]) -> Result<(), AppendError> {
        let (asked, time) = (Instant::now(), clock::now());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { open, lost } = &mut *state;
        let mut left = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let done = self.in_turn(open, asked, |open, mut size| {
            for line in lines {
                line.time.clone_from(&time);
                line.lost = *lost;
                size = self.write(open, size, line)?;
                *lost = 0;
                left = left.saturating_sub(1);
            }
            Ok(())
        });
        if done.is_err() {
            *lost = lost.saturating_add(left);
            // What is wrong may be wrong with these.
            *open = None;
        }
        done
    }

    /// Sends lines to the journal, where that is asked for.
    ///
    /// # Errors
    /// The first one; the lines from there on are not sent.
    pub fn to_journal(&self, lines: &[Line]) -> io::Result<()> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        lines.iter().try_for_each(|line| journal.send(line))
    }

    /// Does something with the file that is under the name, of so many bytes, while nobody else does.
    fn in_turn(
        &self,
        slot: &mut Option<Open>,
        asked: Instant,
        act: impl FnOnce(&mut Open, u64) -> Result<(), AppendError>,
    ) -> Result<(), AppendError> {
        for _ in 0..ATTEMPTS {
            let open = match slot {
                Some(open) => open,
                None => slot.insert(self.open()?),
            };
            let _turn = self.turn(&open.dir, asked)?;
            if let Some(size) = self.size(open)? {
                return act(open, size);
            }
            *slot = None;
        }
        let often = io::Error::other("others replace it again and again");
        Err(self.failed("open it", often))
    }

    /// Waits for the right to write.
    fn turn(&self, dir: &Arc<File>, asked: Instant) -> Result<Turn, AppendError> {
        let turn = Turn::take(dir, asked).map_err(|error| self.failed("lock it", error))?;
        turn.ok_or_else(|| AppendError::Locked {
            dir: self.settings.dir.clone(),
        })
    }

    fn open(&self) -> Result<Open, AppendError> {
        let dir = &self.settings.dir;
        let opened =
            files::open_dir(dir).map_err(|error| self.failed("open its directory", error))?;
        let opening = |error| self.failed("open it", error);
        let file = files::open_current(dir).map_err(opening)?;
        let metadata = file.metadata().map_err(opening)?;
        Ok(Open {
            dir: Arc::new(opened),
            identity: Identity::of(&metadata),
            begun: begun(&file).unwrap_or_else(OffsetDateTime::now_utc),
            ended: 0,
            file,
        })
    }

    /// The size of the file that is open, if it is the one under the name.
    fn size(&self, open: &Open) -> Result<Option<u64>, AppendError> {
        match fs::symlink_metadata(self.current()) {
            Ok(found) => Ok((Identity::of(&found) == open.identity).then_some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("look at it", error)),
        }
    }

    /// Writes a line to the file of this size; the answer is its size then.
    fn write(&self, open: &mut Open, mut size: u64, line: &Line) -> Result<u64, AppendError> {
        let failed = |error| self.failed("append a line", error);
        let mut json = line.to_json().map_err(|error| failed(error.into()))?;
        if size > 0 && self.is_full(open, size, json.len()) {
            self.rotate(open)?;
            size = 0;
        }
        // Whoever wrote last may have been killed meanwhile.
        if size > 0 && size != open.ended && !ends_a_line(&open.file, size).map_err(failed)? {
            json.insert(0, b'\n');
        }
        open.file.write_all(&json).map_err(|error| {
            // A part of a line is of no use to anybody, and there was room for what it was.
            let _ = open.file.set_len(size);
            failed(error)
        })?;
        let written = u64::try_from(json.len()).unwrap_or(u64::MAX);
        open.ended = size.saturating_add(written);
        Ok(open.ended)
    }

    fn is_full(&self, open: &Open, size: u64, more: usize) -> bool {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        // A file of the future is one of a clock that was put back.
        let age = (OffsetDateTime::now_utc() - open.begun).try_into();
        size.saturating_add(more) > self.settings.max_size
            || age.is_ok_and(|age: Duration| age >= self.settings.max_age)
    }

    /// Begins a new file, and removes the earliest of those that are too many.
    fn rotate(&self, open: &mut Open) -> Result<(), AppendError> {
        let dir = &self.settings.dir;
        let failed = |error| self.failed("begin a new file", error);
        let numbers = files::numbers(dir).map_err(failed)?;
        let next = numbers.last().copied().unwrap_or(0).saturating_add(1);
        fs::rename(self.current(), files::numbered(dir, next)).map_err(failed)?;
        let keep = u64::from(self.settings.keep);
        for number in numbers {
            if number.saturating_add(keep) <= next {
                fs::remove_file(files::numbered(dir, number)).map_err(failed)?;
            }
        }
        open.file = files::open_current(dir).map_err(failed)?;
        open.identity = Identity::of(&open.file.metadata().map_err(failed)?);
        open.begun = OffsetDateTime::now_utc();
        Ok(())
    }

    fn current(&self) -> PathBuf {
        self.settings.dir.join(CURRENT)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> AppendError {
        AppendError::File {
            path: self.current(),
            action,
            source,
        }
    }
}

/// When a file's first line was written; where it has none that can be read, when it was last changed.
fn begun(file: &File) -> Option<OffsetDateTime> {
    let mut head = [0; 64];
    let read = file.read_at(&mut head, 0).ok()?;
    let head = String::from_utf8_lossy(head.get(..read)?);
    let time = head
        .strip_prefix(FIRST)
        .and_then(|rest| rest.split_once('"'));
    let time = time.and_then(|(time, _)| clock::parse(time));
    time.or_else(|| Some(file.metadata().ok()?.modified().ok()?.into()))
}

/// Whether the last byte, of so many, is a line feed.
fn ends_a_line(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, size.saturating_sub(1))?;
    Ok(last == *b"\n")
}
