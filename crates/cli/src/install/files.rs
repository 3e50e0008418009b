//! Files that are to be as they are written here: what differs, shown and made.
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use similar::TextDiff;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// A file as it is to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) path: PathBuf,
    /// None for one that is not to be.
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) mode: u32,
}

/// A file that is not as it is to be.
#[derive(Debug)]
pub(crate) struct Change {
    wanted: Wanted,
    before: Option<Found>,
}

#[derive(Debug)]
struct Found {
    content: Vec<u8>,
    mode: u32,
}

impl Wanted {
    pub(crate) fn text(path: PathBuf, text: String) -> Self {
        Self {
            path,
            content: Some(text.into_bytes()),
            mode: 0o644,
        }
    }

    pub(crate) fn gone(path: PathBuf) -> Self {
        Self {
            path,
            content: None,
            mode: 0,
        }
    }

    /// What has to be done for it, if anything.
    pub(crate) fn change(self) -> Result<Option<Change>> {
        let before = found(&self.path)?;
        let is_so = match (&self.content, &before) {
            (Some(content), Some(before)) => *content == before.content && self.mode == before.mode,
            (None, None) => true,
            _ => false,
        };
        Ok((!is_so).then_some(Change {
            wanted: self,
            before,
        }))
    }
}

impl Change {
    pub(super) fn path(&self) -> &Path {
        &self.wanted.path
    }

    /// As `diff -u` says it; of programs, their sizes.
    pub(super) fn shown(&self) -> String {
        let path = self.path().display();
        let after = self.wanted.content.as_deref();
        let before = self.before.as_ref().map(|found| found.content.as_slice());
        let text = |content: Option<&[u8]>| {
            std::str::from_utf8(content.unwrap_or_default())
                .ok()
                .map(str::to_owned)
        };
        let (Some(old), Some(new)) = (text(before), text(after)) else {
            let size = |content: Option<&[u8]>| match content {
                Some(content) => format!("{} bytes", content.len()),
                None => "nothing".to_owned(),
            };
            return format!("{path}: {} instead of {}\n", size(after), size(before));
        };
        if old == new {
            let mode = self.before.as_ref().map_or(0, |found| found.mode);
            return format!("{path}: mode {:o} instead of {mode:o}\n", self.wanted.mode);
        }
        let name = |content: Option<&[u8]>| match content {
            Some(_) => path.to_string(),
            None => "/dev/null".to_owned(),
        };
        TextDiff::from_lines(&old, &new)
            .unified_diff()
            .context_radius(CONTEXT)
            .header(&name(before), &name(after))
            .to_string()
    }

    /// What was done, in words.
    pub(super) fn done(&self) -> String {
        let verb = match self.wanted.content {
            Some(_) => "written",
            None => "removed",
        };
        format!("{verb}: {}", self.path().display())
    }

    /// Whoever opens the file finds all of the old one or all of the new one; those who have the old one
    /// open, or run it, keep it.
    pub(crate) fn make(&self) -> Result<()> {
        put(
            self.path(),
            self.wanted.content.as_deref(),
            self.wanted.mode,
        )
    }

    pub(super) fn undo(&self) -> Result<()> {
        let before = self.before.as_ref();
        put(
            self.path(),
            before.map(|found| found.content.as_slice()),
            before.map_or(0, |found| found.mode),
        )
    }
}

fn found(path: &Path) -> Result<Option<Found>> {
    let read = || -> io::Result<Found> {
        Ok(Found {
            content: fs::read(path)?,
            mode: fs::metadata(path)?.permissions().mode() & 0o7777,
        })
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found
            .map(Some)
            .with_context(|| format!("reading {}", path.display())),
    }
}

fn put(path: &Path, content: Option<&[u8]>, mode: u32) -> Result<()> {
    let Some(content) = content else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        };
    };
    write(path, content, mode).with_context(|| format!("writing {}", path.display()))
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".husk-new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        // What an earlier attempt has left may have another mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        // A node that loses power must not come back with an empty file.
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_is_to_be_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/file");
        let wanted = || Wanted::text(path.clone(), "one\ntwo\n".to_owned());
        let change = wanted().change().unwrap().unwrap();
        assert!(change.shown().contains("+one"), "{}", change.shown());
        change.make().unwrap();
        assert!(wanted().change().unwrap().is_none());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(fs::read_dir(dir.path().join("below")).unwrap().count(), 1);

        let gone = Wanted::gone(path.clone()).change().unwrap().unwrap();
        gone.make().unwrap();
        assert!(!path.exists());
        gone.undo().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        change.undo().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_program_is_shown_by_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, [0x7f, 0xff]).unwrap();
        let wanted = Wanted {
            path,
            content: Some(vec![0xff; 10]),
            mode: 0o755,
        };
        let shown = wanted.change().unwrap().unwrap().shown();
        assert!(shown.ends_with("10 bytes instead of 2 bytes\n"), "{shown}");
    }
}
