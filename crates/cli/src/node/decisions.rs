//! What plugins decide, as the node's audit record tells it line by line.
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::Deserialize;

/// What is read at once at most, in bytes: what is left is read the next time.
const AT_ONCE: u64 = 4 << 20;
/// The longest line that is waited for, in bytes; the writer's own bound is below it.
const LINE: usize = 64 << 10;

/// What a line says of an answer; the rest of it is for `husk audit`.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Decision {
    #[serde(default)]
    pub(super) plugin: Option<String>,
    pub(super) answer: String,
    #[serde(default)]
    pub(super) micros: u64,
}

/// Reads a record that grows, and goes on in the next file when it is renamed.
pub(super) struct Decisions {
    path: PathBuf,
    open: Option<Open>,
    /// What was there before is not counted.
    begun: bool,
}

struct Open {
    file: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Decisions {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            begun: false,
        }
    }

    /// What was decided since it was asked last; nothing where there is no record.
    pub(super) fn next(&mut self) -> Vec<Decision> {
        let mut found = Vec::new();
        let whole = self.open.as_mut().is_none_or(|open| open.read(&mut found));
        // The file under the name is another one once the earlier is full; that is read to its end first.
        let inode = fs::metadata(&self.path).ok().map(|it| it.ino());
        let is_another = inode != self.open.as_ref().map(|open| open.inode);
        if whole && is_another {
            self.open = Open::at(&self.path, !self.begun).ok();
            if let Some(open) = &mut self.open {
                open.read(&mut found);
            }
        }
        self.begun = true;
        found
    }
}

impl Open {
    fn at(path: &PathBuf, at_end: bool) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if at_end {
            io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        }
        Ok(Self {
            file: BufReader::new(file),
            inode: found.ino(),
            partial: Vec::new(),
        })
    }

    /// Whether it was read to its end.
    fn read(&mut self, found: &mut Vec<Decision>) -> bool {
        let mut part = self.file.by_ref().take(AT_ONCE);
        loop {
            match part.read_until(b'\n', &mut self.partial) {
                Ok(0) | Err(_) => break,
                Ok(_) if self.partial.ends_with(b"\n") => {
                    // A line that was cut short is no decision.
                    found.extend(serde_json::from_slice::<Decision>(&self.partial));
                    self.partial.clear();
                }
                Ok(_) => {}
            }
        }
        if self.partial.len() > LINE {
            self.partial.clear();
        }
        part.limit() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn line(plugin: &str) -> String {
        format!(
            "{{\"time\":\"t\",\"plugin\":\"{plugin}\",\"answer\":\"denied\",\"micros\":7,\"counted\":true}}\n"
        )
    }

    fn plugins(decisions: &mut Decisions) -> Vec<String> {
        let found = decisions.next().into_iter();
        found.filter_map(|it| it.plugin).collect()
    }

    #[test]
    fn what_is_added_is_read_once_and_in_the_next_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        fs::write(&path, line("before")).unwrap();
        let mut decisions = Decisions::new(path.clone());
        assert!(plugins(&mut decisions).is_empty());

        let mut file = File::options().append(true).open(&path).unwrap();
        let (first, second) = (line("a"), line("b"));
        let (half, rest) = second.split_at(10);
        write!(file, "{first}{half}").unwrap();
        assert_eq!(plugins(&mut decisions), ["a"]);
        write!(file, "{rest}{{broken\n{}", line("c")).unwrap();
        fs::rename(&path, dir.path().join("audit-1.jsonl")).unwrap();
        fs::write(&path, line("d")).unwrap();
        assert_eq!(plugins(&mut decisions), ["b", "c", "d"]);
        assert!(plugins(&mut decisions).is_empty());
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut decisions = Decisions::new(path.clone());
        assert!(decisions.next().is_empty());
        fs::write(&path, vec![b'x'; 9 << 20]).unwrap();
        for _ in 0..4 {
            assert!(decisions.next().is_empty());
            let kept = decisions.open.as_ref().unwrap().partial.len();
            assert!(kept <= LINE, "{kept}");
        }
    }
}
