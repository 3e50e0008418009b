//! The audit record, on a disk of its own and with other processes beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod cut_lines;
mod following;
mod many_processes;
mod questions;
mod rotation;
mod unwritable;

use std::fs;
use std::path::{Path, PathBuf};

use husk_audit::{CURRENT, Entry, Reader, Writer};
use husk_scope::audit::{Answer, Line, Pod};
use husk_scope::config::Audit;
use tempfile::TempDir;

/// A record in a directory that nobody has made yet.
struct Record {
    _above: TempDir,
    settings: Audit,
}

impl Record {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let settings = Audit {
            dir: above.path().join("log/husk"),
            max_size: 64 << 10,
            keep: 1000,
            ..Audit::default()
        };
        Self {
            _above: above,
            settings,
        }
    }

    fn writer(&self) -> Writer {
        Writer::new(&self.settings)
    }

    fn dir(&self) -> &Path {
        &self.settings.dir
    }

    fn current(&self) -> PathBuf {
        self.dir().join(CURRENT)
    }

    fn entries(&self) -> Vec<Entry> {
        let (entries, spoilt) = self.read();
        assert_eq!(spoilt, 0, "lines that cannot be read");
        entries
    }

    fn read(&self) -> (Vec<Entry>, u64) {
        let mut reader = Reader::new(self.dir(), None);
        let entries = drain(&mut reader);
        (entries, reader.spoilt())
    }

    /// The files, those of husk's and any other.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn drain(reader: &mut Reader) -> Vec<Entry> {
    std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
}

/// A line that this writer counts so.
fn line(writer: &str, count: u64) -> Line {
    Line {
        pod: Pod {
            namespace: "default".into(),
            name: writer.into(),
            ..Pod::default()
        },
        event: "container-creating".into(),
        plugin: Some("gate".into()),
        answer: Answer::Admitted,
        counted: true,
        micros: count,
        ..Line::default()
    }
}

fn append(writer: &Writer, line: Line) {
    writer.append(&mut [line]).unwrap();
}
