//! Which ranges of ids are taken, for all pods of the node.
//!
//! Each is a symbolic link in one directory, made in one step with all that is to be known: its name is
//! the range, and it leads to the directory of the pod that has it. One whose pod is gone is free.
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use husk_scope::record::STATE_DIR;
use husk_scope::{Ids, Ranges};

/// No containerd namespace has such a name, so that it is no pod's directory.
const DIR: &str = ".ids";

/// Takes a range that overlaps none that is taken, for the pod with this directory.
///
/// # Errors
/// All are taken, or what the kernel says.
pub(crate) fn take(ranges: Ranges, pod: &Path) -> io::Result<Ids> {
    Taken::below(Path::new(STATE_DIR)).take(ranges, pod)
}

/// Gives a range back; free already is no error.
///
/// # Errors
/// What unlink(2) says.
pub(crate) fn give_back(ids: Ids, pod: &Path) -> io::Result<()> {
    Taken::below(Path::new(STATE_DIR)).give_back(ids, pod)
}

struct Taken {
    dir: PathBuf,
}

impl Taken {
    fn below(state: &Path) -> Self {
        Self {
            dir: state.join(DIR),
        }
    }

    fn take(&self, ranges: Ranges, pod: &Path) -> io::Result<Ids> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        // Held until this returns: whoever looks what is free, takes it before another looks.
        let dir = File::open(&self.dir)?;
        dir.lock()?;
        let taken = self.taken(fs::read_dir(&self.dir)?)?;
        let is_free = |ids: &Ids| taken.iter().all(|other| !ids.overlaps(*other));
        let ids = ranges.iter().find(is_free).ok_or_else(|| {
            io::Error::other(format!(
                "all {} ranges of ids are taken, see {}: the handler's [users] may have more",
                ranges.ranges,
                self.dir.display()
            ))
        })?;
        symlink(pod, self.link(ids))?;
        Ok(ids)
    }

    fn taken(&self, entries: ReadDir) -> io::Result<Vec<Ids>> {
        let mut taken = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(ids) = entry.file_name().to_str().and_then(parse) else {
                continue;
            };
            if fs::exists(entry.path())? {
                taken.push(ids);
            } else {
                // Its pod is gone, with all that had the ids.
                fs::remove_file(entry.path())?;
            }
        }
        Ok(taken)
    }

    fn give_back(&self, ids: Ids, pod: &Path) -> io::Result<()> {
        let link = self.link(ids);
        match fs::read_link(&link) {
            Ok(owner) if owner == pod => fs::remove_file(link),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn link(&self, ids: Ids) -> PathBuf {
        self.dir.join(format!("{}+{}", ids.first, ids.count))
    }
}

fn parse(name: &str) -> Option<Ids> {
    let (first, count) = name.split_once('+')?;
    Some(Ids {
        first: first.parse().ok()?,
        count: count.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: Ranges = Ranges {
        first: 1_000,
        count: 100,
        ranges: 3,
    };

    fn ids(first: u32, count: u32) -> Ids {
        Ids { first, count }
    }

    #[test]
    fn ranges_are_taken_once_and_given_back() {
        let state = tempfile::tempdir().unwrap();
        let taken = Taken::below(state.path());
        let (one, two) = (state.path().join("one"), state.path().join("two"));
        for pod in [&one, &two] {
            fs::create_dir(pod).unwrap();
        }
        assert_eq!(taken.take(RANGES, &one).unwrap(), ids(1_000, 100));
        assert_eq!(taken.take(RANGES, &two).unwrap(), ids(1_100, 100));
        // Of another handler's, which overlap.
        let others = Ranges {
            first: 1_050,
            count: 100,
            ranges: 2,
        };
        let error = taken.take(others, &one).unwrap_err().to_string();
        assert!(error.contains("all 2 ranges"), "{error}");
        // Not its own.
        taken.give_back(ids(1_000, 100), &two).unwrap();
        assert_eq!(taken.take(RANGES, &two).unwrap(), ids(1_200, 100));
        assert!(taken.take(RANGES, &two).is_err());
        taken.give_back(ids(1_000, 100), &one).unwrap();
        taken.give_back(ids(1_000, 100), &one).unwrap();
        assert_eq!(taken.take(RANGES, &two).unwrap(), ids(1_000, 100));
        // What a pod had that nobody has taken away.
        fs::remove_dir(&two).unwrap();
        assert_eq!(taken.take(RANGES, &one).unwrap(), ids(1_000, 100));
    }

    #[test]
    fn many_at_once_get_different_ones() {
        let state = tempfile::tempdir().unwrap();
        let pod = state.path().to_owned();
        let ranges = Ranges {
            ranges: 64,
            ..RANGES
        };
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let take = || {
                let taken = Taken::below(&pod);
                let first = |_| taken.take(ranges, &pod).unwrap().first;
                (0..16).map(first).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .flat_map(|it| it.join().unwrap())
                .collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 64);
    }
}
