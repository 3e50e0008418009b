//! `[audit]`: where it is recorded what plugins answer, and how much of it is kept.
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::amounts::{duration, size};
use super::plugin::{ON_ERROR, OnError, absolute};
use super::reader::{ConfigError, Value};

/// The keys of `[audit]`.
pub(super) const AUDIT_KEYS: [&str; 9] = [
    "dir",
    "max-size",
    "max-age",
    "keep",
    "on-error",
    "journal",
    "record",
    "record-env",
    "max-questions",
];

/// The values of `record`.
pub(super) const RECORDS: [&str; 2] = ["answers", "questions"];

/// Where a node's audit record is unless a handler says otherwise.
pub const AUDIT_DIR: &str = "/var/log/husk";

/// The sizes a file of the record may have: a line fits into the smallest several times.
const SIZES: RangeInclusive<u64> = 64 << 10..=1 << 30;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The sizes that all questions together may have.
const QUESTIONS: RangeInclusive<u64> = 1 << 20..=64 << 30;

/// How many files may be kept.
const KEPT: RangeInclusive<u32> = 1..=1000;

/// The audit record of the handlers that name its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The directory of its files.
    pub dir: PathBuf,
    /// How large a file may become, in bytes.
    pub max_size: u64,
    /// How old a file may become.
    pub max_age: Duration,
    /// How many full files are kept beside the one that is written.
    pub keep: u32,
    /// What it means that an answer cannot be recorded.
    pub on_error: OnError,
    /// Whether each line goes to journald as well.
    pub journal: bool,
    /// What is recorded.
    pub record: Record,
    /// Whether questions are kept with the values of environments.
    pub record_env: bool,
    /// How large all questions together may become, in bytes.
    pub max_questions: u64,
}

/// What of a question and its answer is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// The answer.
    #[default]
    Answers,
    /// The question, too, so that it can be asked again.
    Questions,
}

impl FromStr for Record {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "answers" => Ok(Self::Answers),
            "questions" => Ok(Self::Questions),
            _ => Err(()),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            dir: AUDIT_DIR.into(),
            max_size: 16 << 20,
            max_age: DAY.saturating_mul(7),
            keep: 8,
            on_error: OnError::Ignore,
            journal: false,
            record: Record::Answers,
            record_env: false,
            max_questions: 64 << 20,
        }
    }
}

/// Reads `[audit]`.
pub(super) fn audit(value: Value<'_>) -> Result<Audit, ConfigError> {
    let table = value.table("audit".to_owned())?;
    table.only(&AUDIT_KEYS)?;
    let mut audit = Audit::default();
    if let Some(value) = table.get("dir") {
        audit.dir = absolute(value)?;
    }
    if let Some(value) = table.get("max-size") {
        audit.max_size = size(value, SIZES, "a size from 64KiB to 1GiB")?;
    }
    if let Some(value) = table.get("max-age") {
        let valid = MINUTE..=DAY.saturating_mul(366);
        audit.max_age = duration(value, valid, "an age is from \"1m\" to \"366d\"")?;
    }
    if let Some(value) = table.get("keep") {
        audit.keep = value.whole(KEPT, "a number of files, from 1 to 1000")?;
    }
    if let Some(value) = table.get("on-error") {
        audit.on_error = value.one_of("on-error", &ON_ERROR)?;
    }
    if let Some(value) = table.get("journal") {
        audit.journal = value.boolean()?;
    }
    if let Some(value) = table.get("record") {
        audit.record = value.one_of("record", &RECORDS)?;
    }
    if let Some(value) = table.get("record-env") {
        audit.record_env = value.boolean()?;
    }
    if let Some(value) = table.get("max-questions") {
        audit.max_questions = size(value, QUESTIONS, "a size from 1MiB to 64GiB")?;
    }
    Ok(audit)
}
