//! The files of a record.
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// The file that is written.
pub const CURRENT: &str = "audit.jsonl";

/// What the names of the earlier ones begin and end with.
const BEFORE: &str = "audit-";
const AFTER: &str = ".jsonl";

/// What tells a file from all others that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

/// The earlier file of this number.
pub(crate) fn numbered(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{BEFORE}{number:08}{AFTER}"))
}

/// The numbers of the earlier files, in order.
pub(crate) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    numbers_between(dir, BEFORE, AFTER)
}

/// The numbers in the names that begin and end so, in order.
pub(crate) fn numbers_between(dir: &Path, before: &str, after: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix(before));
        let number = name.and_then(|name| name.strip_suffix(after)?.parse::<u64>().ok());
        // What no file of ours is called would leave no number for the next.
        numbers.extend(number.filter(|number| *number < u64::MAX));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens the directory, which is made if it is not there: it alone is closed to others, the way to it
/// is not.
pub(crate) fn open_dir(dir: &Path) -> io::Result<File> {
    let open = || {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(dir)
    };
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = dir.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(parent)?;
            }
            match DirBuilder::new().mode(0o700).create(dir) {
                // Another pod's shim was first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            open()?
        }
        opened => opened?,
    };
    let metadata = opened.metadata()?;
    // Whoever may write there could put another file in its place.
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "others than its owner may write to {}: `chmod go-w` it",
            dir.display()
        )));
    }
    Ok(opened)
}

/// Opens the file that is written, which is made if it is not there.
pub(crate) fn open_current(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        // A fifo would not block, and is refused below.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(dir.join(CURRENT))?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file: remove it"))
    }
}
