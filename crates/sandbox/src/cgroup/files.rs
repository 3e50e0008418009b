//! Reading and writing the files of a cgroup.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Most files of a cgroup, and of a process, are shorter.
const USUAL: usize = 4096;

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<String> {
    let text = String::from_utf8(read_bytes(path)?).map_err(io::Error::other);
    text.map_err(Error::file("read", path))
}

/// The same, of names that need not be text. The kernel says that files of its own are empty:
/// without a buffer to begin with, they would be read in pieces of 32 bytes.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::with_capacity(USUAL);
        // `take` keeps the standard library from asking for the length.
        let mut file = File::open(path)?.take(u64::MAX);
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(Error::file("read", path))
}

/// Reads a file that a kernel may lack; `None` when it is not there.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a value in a single write(2), as the kernel takes each write for one command.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    // Without O_CREAT: a missing file must not become EPERM, cgroup filesystems create none.
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(Error::file("open", path))?;
    match file.write_all(value.as_bytes()) {
        Ok(()) => Ok(()),
        Err(source) => Err(Error::File {
            action: "write to",
            path: path.to_owned(),
            source: std::io::Error::new(
                source.kind(),
                Refused {
                    value: value.into(),
                    source,
                },
            ),
        }),
    }
}

/// A write that was refused, with what was written.
#[derive(Debug, thiserror::Error)]
#[error("{source} (value {value:?})")]
struct Refused {
    value: String,
    source: std::io::Error,
}

/// The value of `key` in a file of lines `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// A number, where `max` means no limit.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// The directory and all directories below it, each before its children.
///
/// One that vanishes meanwhile is left out: cgroups may be removed by others at any time.
pub(super) fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        match children(&dir) {
            Ok(children) => found.extend(children),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("list", dir))? {
        let entry = entry.map_err(Error::file("list", dir))?;
        // A cgroup directory has no symbolic links, and d_type needs no further call.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// The sizes of huge pages, as the cgroup files name them: `2MB`, `1GB`.
pub(super) fn huge_page_sizes() -> Vec<String> {
    // No directory: a kernel without huge pages.
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| huge_page_size(entry.ok()?.file_name().to_str()?))
        .collect()
}

/// `hugepages-2048kB` is `2MB`.
fn huge_page_size(directory: &str) -> Option<String> {
    let kib: u64 = directory
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kib {
        0..1024 => format!("{kib}KB"),
        1024..1_048_576 => format!("{}MB", kib / 1024),
        _ => format!("{}GB", kib / 1_048_576),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_have_the_names_of_the_files() {
        assert_eq!(huge_page_size("hugepages-64kB").unwrap(), "64KB");
        assert_eq!(huge_page_size("hugepages-2048kB").unwrap(), "2MB");
        assert_eq!(huge_page_size("hugepages-1048576kB").unwrap(), "1GB");
        assert_eq!(huge_page_size("other"), None);
    }

    #[test]
    fn a_key_is_matched_whole() {
        assert_eq!(
            keyed("oom_kill_disable 1\noom_kill 3\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(keyed("oom 1\n", "oom_kill"), None);
    }
}
