//! The pod's record and directories below [`STATE_DIR`].
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use husk_scope::record::{FILE, Pod, STATE_DIR};
use nix::fcntl::{Flock, FlockArg};

/// How often a directory is made that others take away; each time, some pod has ended just then.
const ATTEMPTS: usize = 100;

/// A pod's place on disk, `/run/husk/NAMESPACE/POD`.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// Why a record could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// An id that could leave the state directory.
    #[error(
        "`{0}` cannot be an id: use letters, digits, `.`, `_` and `-`, at most 128, and begin \
         with a letter or digit"
    )]
    Id(String),
    /// What the kernel says.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A record that is none.
    #[error("{path} is not a pod's record: {source}; remove it once its pod is gone")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Checks that an id is a plain file name, as containerd's own ids are.
///
/// # Errors
/// It is not.
pub(crate) fn check_id(id: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.len() <= 128
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(plain)
    {
        Ok(())
    } else {
        Err(StoreError::Id(id.to_owned()))
    }
}

impl Store {
    /// The place of a pod; nothing is made yet.
    ///
    /// # Errors
    /// [`StoreError::Id`].
    pub(crate) fn new(namespace: &str, pod: &str) -> Result<Self, StoreError> {
        Self::below(Path::new(STATE_DIR), namespace, pod)
    }

    fn below(root: &Path, namespace: &str, pod: &str) -> Result<Self, StoreError> {
        check_id(namespace)?;
        check_id(pod)?;
        Ok(Self {
            dir: root.join(namespace).join(pod),
        })
    }

    /// The place of the pod whose record names this container.
    ///
    /// # Errors
    /// [`StoreError::Id`], or the directory of the namespace cannot be read.
    pub(crate) fn of_container(
        namespace: &str,
        container: &str,
    ) -> Result<Option<Self>, StoreError> {
        check_id(namespace)?;
        let dir = Path::new(STATE_DIR).join(namespace);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("read", &dir, source)),
        };
        for entry in entries.flatten() {
            let store = Self { dir: entry.path() };
            // A record of another pod that cannot be read says nothing about this container.
            let Ok(Some(pod)) = store.load() else {
                continue;
            };
            if pod.containers.iter().any(|found| found.id == container) {
                return Ok(Some(store));
            }
        }
        Ok(None)
    }

    /// The pod's directory, for whatever the pod side keeps there.
    #[must_use]
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the record: whoever reads it finds the whole old or the whole new one.
    ///
    /// Nothing is synced to disk: it is a tmpfs, and what the record names ends with the node too.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn save(&self, pod: &Pod) -> Result<(), StoreError> {
        let path = self.dir.join(FILE);
        let text = serde_json::to_vec(pod).map_err(|source| StoreError::Format {
            path: path.clone(),
            source,
        })?;
        let written = match write_atomic(&path, &text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create()?;
                write_atomic(&path, &text)
            }
            written => written,
        };
        written.map_err(|source| io_error("write", &path, source))
    }

    /// Makes the pod's directory. The last pod of a namespace takes the one above away with it, between
    /// any two steps of this: then it is tried again.
    fn create(&self) -> Result<(), StoreError> {
        for _ in 1..ATTEMPTS {
            match self.try_create() {
                Err(StoreError::Io { source, .. })
                    if matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                    ) => {}
                done => return done,
            }
        }
        self.try_create()
    }

    /// Closed to other users; those above may be passed through.
    fn try_create(&self) -> Result<(), StoreError> {
        let make = |dir: &Path, mode| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(dir)
                .map_err(|source| io_error("create", dir, source))
        };
        if let Some(parent) = self.dir.parent() {
            make(parent, 0o711)?;
        }
        make(&self.dir, 0o700)
    }

    /// Reads the record; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not one.
    pub(crate) fn load(&self) -> Result<Option<Pod>, StoreError> {
        let path = self.dir.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| StoreError::Format { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path, source)),
        }
    }

    /// Removes the record and everything beside it, and the namespace's directory with its last
    /// pod. Nothing there is no error.
    ///
    /// # Errors
    /// What the kernel says, `EBUSY` for what is still mounted.
    pub(crate) fn remove(&self) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &self.dir, error));
            }
            _ => {}
        }
        if let Some(parent) = self.dir.parent() {
            // Other pods' directories keep it; it costs nothing to stay.
            let _ = std::fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Waits for, and takes, the right to change what a dead shim left: two `delete` may run at
    /// once. `None` when the pod has no directory any more.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub(crate) fn lock(&self) -> Result<Option<Flock<File>>, StoreError> {
        let directory = match File::open(&self.dir) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", &self.dir, source)),
        };
        Flock::lock(directory, FlockArg::LockExclusive)
            .map(Some)
            .map_err(|(_, errno)| io_error("lock", &self.dir, errno.into()))
    }
}

/// Writes a file beside `path` and renames it there.
///
/// # Errors
/// What the kernel says; the file beside is gone then.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_saved() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path(), "ns", "pod").unwrap();
        assert_eq!(store.load().unwrap(), None);
        let pod = Pod {
            id: "pod".to_owned(),
            namespace: "ns".to_owned(),
            ..Pod::default()
        };
        store.save(&pod).unwrap();
        assert_eq!(store.load().unwrap(), Some(pod));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.dir()), 0o700);
        assert_eq!(mode(&store.dir().join(FILE)), 0o600);
        let names: Vec<_> = std::fs::read_dir(store.dir()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing but the record: {names:?}");
        store.remove().unwrap();
        store.remove().unwrap();
        assert!(!root.path().join("ns").exists());
    }

    #[test]
    fn one_pod_s_removal_leaves_the_others() {
        let root = tempfile::tempdir().unwrap();
        let one = Store::below(root.path(), "ns", "one").unwrap();
        let two = Store::below(root.path(), "ns", "two").unwrap();
        one.save(&Pod::default()).unwrap();
        two.save(&Pod::default()).unwrap();
        one.remove().unwrap();
        assert!(two.load().unwrap().is_some());
    }

    #[test]
    fn pods_that_end_do_not_keep_others_from_beginning() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for pod in ["one", "two", "three"] {
                let store = Store::below(root.path(), "ns", pod).unwrap();
                scope.spawn(move || {
                    for _ in 0..2000 {
                        store.create().unwrap();
                        store.remove().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("ns"), "").unwrap();
        let store = Store::below(root.path(), "ns", "pod").unwrap();
        let error = store.save(&Pod::default()).unwrap_err().to_string();
        assert!(error.contains("/ns"), "{error}");
    }

    #[test]
    fn an_id_never_leaves_the_directory() {
        for id in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-a",
            ".a",
            "a b",
            "a\0",
            &"a".repeat(129),
        ] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "k8s.io", "A-1_b.c", &"a".repeat(128)] {
            assert!(check_id(id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn a_broken_record_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path(), "ns", "pod").unwrap();
        store.create().unwrap();
        std::fs::write(store.dir().join(FILE), "{").unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("ns/pod/pod.json"), "{error}");
    }
}
