//! The questions that plugins were asked, each once, compressed.
//!
//! A question is a file, `DIGEST.json.gz`. Files are in generations, `questions/00000001` and so on:
//! when the last one has an eighth of what all may have, a new one is begun, and the ninth to last is
//! removed. So what is asked again and again is always there, and no list of all files is ever
//! needed.
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use time::OffsetDateTime;

use crate::files;
use crate::turn::Turn;

/// The directory of the questions, in that of the record.
const DIR: &str = "questions";

/// What a question's file ends with.
const SUFFIX: &str = ".json.gz";

/// The file in a generation that says how many bytes are, or are about to be, in it.
const SIZE: &str = "size";

/// How many generations there are.
const GENERATIONS: u64 = 8;

/// The most a question may have before it is compressed, in bytes.
const LONGEST: usize = 1 << 20;

/// What a file takes beside its bytes, where the file system gives it a block.
const BLOCK: u64 = 4096;

/// Questions that are kept.
#[derive(Clone, Debug)]
pub struct Questions {
    dir: PathBuf,
    /// The most that a generation has, in bytes.
    most: u64,
}

/// A question's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its digest.
    pub digest: String,
    /// When it was kept.
    pub when: OffsetDateTime,
    path: PathBuf,
}

/// Why a question is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// What the kernel says.
    #[error("a question cannot be kept in {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was answered.
        source: io::Error,
    },
    /// It is too long.
    #[error("a question of {0} bytes is not kept: {LONGEST} are the most")]
    Long(usize),
}

impl Questions {
    /// The questions beside the record in this directory, of so many bytes altogether.
    #[must_use]
    pub fn new(dir: &Path, most: u64) -> Self {
        Self {
            dir: dir.join(DIR),
            most: most / GENERATIONS,
        }
    }

    /// Keeps a question, unless it is there already; with `anew` in its place. Blocks, for a second at
    /// most where others are in the way.
    ///
    /// # Errors
    /// It is too long, or the disk does not take it.
    pub fn keep(&self, digest: &str, json: &[u8], anew: bool) -> Result<(), KeepError> {
        if json.len() > LONGEST {
            return Err(KeepError::Long(json.len()));
        }
        self.try_keep(digest, json, anew)
            .map_err(|source| KeepError::Io {
                dir: self.dir.clone(),
                source,
            })
    }

    fn try_keep(&self, digest: &str, json: &[u8], anew: bool) -> io::Result<()> {
        let name = file_name(digest)?;
        if let Some(last) = self.generations()?.last()
            && !anew
            && self.generation(*last).join(&name).exists()
        {
            return Ok(());
        }
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(json)?;
        let compressed = compressed.finish()?;
        let dir = Arc::new(files::open_dir(&self.dir)?);
        let Some(_turn) = Turn::take(&dir, Instant::now())? else {
            return Err(io::Error::other(
                "another process has it locked: see `lslocks`",
            ));
        };
        let length = u64::try_from(compressed.len()).unwrap_or(u64::MAX);
        // Blocks are what a disk has.
        let generation = self.room(length.div_ceil(BLOCK).saturating_mul(BLOCK))?;
        // Nobody reads half of one.
        let beside = generation.join("new");
        let written =
            write(&beside, &compressed).and_then(|()| fs::rename(&beside, generation.join(&name)));
        if written.is_err() {
            // The first failure is the one to report.
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// The generation that has room for so many bytes more, which are counted in it.
    fn room(&self, more: u64) -> io::Result<PathBuf> {
        let numbers = self.generations()?;
        let last = numbers.last().copied().unwrap_or(0);
        let dir = self.generation(last);
        // One whose count was lost is full.
        let size = fs::read_to_string(dir.join(SIZE)).ok();
        let size = size.and_then(|size| size.trim().parse::<u64>().ok());
        let grown = size.and_then(|size| size.checked_add(more));
        if let Some(grown) = grown.filter(|grown| *grown <= self.most) {
            // Counted before it is there: who is killed now leaves less than is counted.
            count(&dir, grown)?;
            return Ok(dir);
        }
        let next = last.saturating_add(1);
        for number in numbers {
            if number.saturating_add(GENERATIONS) <= next {
                fs::remove_dir_all(self.generation(number))?;
            }
        }
        let dir = self.generation(next);
        DirBuilder::new().mode(0o700).create(&dir)?;
        count(&dir, more)?;
        Ok(dir)
    }

    fn generation(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}"))
    }

    fn generations(&self) -> io::Result<Vec<u64>> {
        match files::numbers_between(&self.dir, "", "") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            numbers => numbers,
        }
    }

    /// The questions that were kept, each once, by when.
    ///
    /// # Errors
    /// A directory cannot be read; no questions are no error.
    pub fn all(&self) -> io::Result<Vec<Kept>> {
        let mut found: BTreeMap<String, Kept> = BTreeMap::new();
        for number in self.generations()? {
            let entries = match fs::read_dir(self.generation(number)) {
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str());
                let Some(digest) = name.and_then(|name| name.strip_suffix(SUFFIX)) else {
                    continue;
                };
                let Ok(when) = fs::metadata(&path).and_then(|file| file.modified()) else {
                    continue;
                };
                let kept = Kept {
                    digest: digest.to_owned(),
                    when: when.into(),
                    path: path.clone(),
                };
                // The later generation's.
                found.insert(digest.to_owned(), kept);
            }
        }
        let mut all: Vec<Kept> = found.into_values().collect();
        all.sort_by(|a, b| (a.when, &a.digest).cmp(&(b.when, &b.digest)));
        Ok(all)
    }
}

impl Kept {
    /// The question.
    ///
    /// # Errors
    /// It cannot be read, or is longer than any that is kept.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut json = Vec::new();
        let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
        let file = GzDecoder::new(File::open(&self.path)?);
        file.take(most.saturating_add(1)).read_to_end(&mut json)?;
        if json.len() > LONGEST {
            let long = format!("it has more than {LONGEST} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, long));
        }
        Ok(json)
    }
}

/// The name of a question's file: a digest is hexadecimal, and leads nowhere else.
fn file_name(digest: &str) -> io::Result<String> {
    if digest.is_empty() || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let none = format!("`{}` is no digest", digest.escape_debug());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, none));
    }
    Ok(format!("{digest}{SUFFIX}"))
}

/// Writes down how much is in a generation. The file is as long as it was: one that is made empty first
/// is written to the disk at once by some file systems, which takes half a millisecond.
fn count(generation: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(generation.join(SIZE))?;
    file.write_all(format!("{bytes:020}").as_bytes())
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}
