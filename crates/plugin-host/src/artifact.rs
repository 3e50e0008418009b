//! Machine code, compiled ahead: where it is kept, and why it is trusted.
//!
//! Deserializing machine code is as dangerous as running it. An entry of the cache is trusted because
//! nobody but the shim's own user can have written it: that is checked on the open files, each time.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::engine::Host;

/// Where compiled plugins are kept.
pub const DIR: &str = "/var/cache/husk";

/// What the key of an entry says about the engine: code of another one is refused when loaded.
const BUILD: &str = concat!(
    "husk-",
    env!("CARGO_PKG_VERSION"),
    "-wasmtime-48.0.8-epoch-bounded"
);

/// The largest component that is read, in bytes: SpiderMonkey's is 12 MB, Python's 18 MB.
const COMPONENT: u64 = 256 * 1024 * 1024;

/// How much of a component is read at once, in bytes.
const PART: usize = 64 * 1024;

/// The machine code of plugins, by digest.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// Why a plugin's code cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Reading or writing failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error(
        "{path} is not trusted: {problem}; it must belong to uid {} and be writable by nobody else",
        geteuid()
    )]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It is not what the configuration says it is.
    #[error("{path} has the sha256 {found}, but the configuration says {expected}")]
    WrongDigest {
        /// The component.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The engine refuses the code.
    #[error("loading the machine code {path}: {problem}")]
    Refused {
        /// The entry.
        path: PathBuf,
        /// What the engine answered.
        problem: String,
    },
    /// It does not compile.
    #[error("compiling {path}: {problem}")]
    Compile {
        /// The component.
        path: PathBuf,
        /// What the compiler answered.
        problem: String,
    },
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(
        String::with_capacity(bytes.len().saturating_mul(2)),
        |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        },
    )
}

/// Reads a component and its sha256; checks it against the configuration's, if that says one.
///
/// # Errors
/// It cannot be read, is larger than 256 MiB, or is not the one that was expected.
pub fn read(path: &Path, expected: Option<&str>) -> Result<(Vec<u8>, String), ArtifactError> {
    let mut bytes = Vec::new();
    let digest = read_in_parts(path, expected, |part| bytes.extend_from_slice(part))?;
    Ok((bytes, digest))
}

/// A component's sha256, checked against the configuration's, if that says one. The component is
/// never in memory as a whole.
///
/// It is read each time. A digest remembered by a file's size and times would take the file for the
/// one it was before if somebody had written to it through a mapping, or within one tick of the file
/// system's clock.
///
/// # Errors
/// See [`read`].
pub fn digest(path: &Path, expected: Option<&str>) -> Result<String, ArtifactError> {
    read_in_parts(path, expected, |_| ())
}

fn read_in_parts(
    path: &Path,
    expected: Option<&str>,
    mut take: impl FnMut(&[u8]),
) -> Result<String, ArtifactError> {
    let io_error = |source| ArtifactError::Io {
        doing: "reading the plugin",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io_error)?;
    let size = file.metadata().map_err(io_error)?.len();
    if size > COMPONENT {
        let problem = format!("it has {size} bytes, more than {COMPONENT}");
        let kind = io::ErrorKind::FileTooLarge;
        return Err(io_error(io::Error::new(kind, problem)));
    }
    // It may grow meanwhile.
    let mut file = file.take(COMPONENT);
    let mut hash = Sha256::new();
    let mut part = vec![0; PART];
    loop {
        let length = file.read(&mut part).map_err(io_error)?;
        let Some(read) = part.get(..length).filter(|read| !read.is_empty()) else {
            break;
        };
        hash.update(read);
        take(read);
    }
    let found = hex(&hash.finalize());
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(&found) => {
            Err(ArtifactError::WrongDigest {
                path: path.to_owned(),
                found,
                expected: expected.to_owned(),
            })
        }
        _ => Ok(found),
    }
}

/// Compiles a component to what [`Cache::store`] keeps.
///
/// # Errors
/// It is not a component, does not compile, uses what plugins may not use of WebAssembly, or has more
/// parts than a host should have to keep.
#[cfg(feature = "compile")]
pub fn compile(path: &Path, component: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let refused = |problem: String| ArtifactError::Compile {
        path: path.to_owned(),
        problem: crate::guest_log::escape(&problem),
    };
    let problem = |error: wasmtime::Error| refused(format!("{error:#}"));
    crate::admission::admit(component).map_err(refused)?;
    let engine = wasmtime::Engine::new(&crate::engine::config()).map_err(problem)?;
    engine.precompile_component(component).map_err(problem)
}

impl Cache {
    /// The cache in this directory, [`DIR`] on a node.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the code of a component is, or will be.
    #[must_use]
    pub fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm", key()))
    }

    /// The same, for a host that may count fuel.
    fn path_for(&self, host: &Host, digest: &str) -> PathBuf {
        if host.counts_fuel {
            self.dir.join(format!("{digest}-{}-fuel.cwasm", key()))
        } else {
            self.path(digest)
        }
    }

    /// Loads the code of a component; none when it has not been compiled yet.
    ///
    /// # Errors
    /// Somebody else could have written it, or the engine refuses it.
    pub fn load(&self, host: &Host, digest: &str) -> Result<Option<Component>, ArtifactError> {
        let path = self.path_for(host, digest);
        let io_error = |source| ArtifactError::Io {
            doing: "opening",
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        trusted(&self.dir, &fs::metadata(&self.dir).map_err(io_error)?)?;
        trusted(&path, &file.metadata().map_err(io_error)?)?;
        deserialize(host, &file)
            .map(Some)
            .map_err(|error| ArtifactError::Refused {
                path,
                problem: format!("{error:#}"),
            })
    }

    /// Keeps the code of a component: whole or not at all.
    ///
    /// # Errors
    /// What writing says.
    pub fn store(&self, digest: &str, code: &[u8]) -> Result<PathBuf, ArtifactError> {
        self.store_at(self.path(digest), digest, code)
    }

    /// The same, of code that this host compiled ([`Host::precompile`]).
    ///
    /// # Errors
    /// What writing says.
    #[cfg(feature = "compile")]
    pub fn store_for(
        &self,
        host: &Host,
        digest: &str,
        code: &[u8],
    ) -> Result<PathBuf, ArtifactError> {
        self.store_at(self.path_for(host, digest), digest, code)
    }

    fn store_at(&self, path: PathBuf, digest: &str, code: &[u8]) -> Result<PathBuf, ArtifactError> {
        let io_error = |source| ArtifactError::Io {
            doing: "writing",
            path: path.clone(),
            source,
        };
        self.make_dir()?;
        let temporary = self.dir.join(format!(".{digest}.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(code))
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(io_error(error));
        }
        Ok(path)
    }

    /// Waits for whoever compiles this component now, and keeps others from it until dropped.
    ///
    /// # Errors
    /// What opening or locking says.
    pub fn lock(&self, digest: &str) -> Result<File, ArtifactError> {
        self.make_dir()?;
        let path = self.dir.join(format!(".{digest}.lock"));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path);
        file.and_then(|file| file.lock().map(|()| file))
            .map_err(|source| ArtifactError::Io {
                doing: "locking",
                path,
                source,
            })
    }

    fn make_dir(&self) -> Result<(), ArtifactError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir);
        let metadata = made
            .and_then(|()| fs::metadata(&self.dir))
            .map_err(|source| ArtifactError::Io {
                doing: "making the directory",
                path: self.dir.clone(),
                source,
            })?;
        trusted(&self.dir, &metadata)
    }
}

/// Refuses what another user could have written.
fn trusted(path: &Path, metadata: &fs::Metadata) -> Result<(), ArtifactError> {
    let problem = if metadata.uid() != geteuid().as_raw() {
        format!("it belongs to uid {}", metadata.uid())
    } else if metadata.mode() & 0o022 != 0 {
        format!("its mode is {:o}", metadata.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(ArtifactError::Untrusted {
        path: path.to_owned(),
        problem,
    })
}

/// What distinguishes the code for this engine and CPU from any other.
fn key() -> String {
    let mut hash = Sha256::new();
    hash.update(BUILD);
    hash.update(std::env::consts::ARCH);
    for feature in cpu_features() {
        hash.update([u8::from(feature)]);
    }
    let mut key = hex(&hash.finalize());
    key.truncate(16);
    key
}

/// The features of this CPU that the compiler makes use of; the engine checks them again.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<bool> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        has!("sse3"),
        has!("ssse3"),
        has!("sse4.1"),
        has!("sse4.2"),
        has!("popcnt"),
        has!("avx"),
        has!("avx2"),
        has!("fma"),
        has!("bmi1"),
        has!("bmi2"),
        has!("lzcnt"),
        has!("avx512f"),
        has!("avx512vl"),
        has!("avx512dq"),
        has!("avx512bitalg"),
        has!("avx512vbmi"),
    ]
}

/// The engine checks the features of other CPUs itself.
#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<bool> {
    Vec::new()
}

/// The one unsafe call of the crate.
#[allow(
    unsafe_code,
    reason = "machine code is trusted by its owner, checked above"
)]
fn deserialize(host: &Host, file: &File) -> wasmtime::Result<Component> {
    // By way of the open file: what was checked is what is loaded, whatever happens to the name.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file was written by `Cache::store` of this user (`trusted`), from what
    // `Engine::precompile_component` made; nobody else can have changed it.
    unsafe { Component::deserialize_file(&host.engine, path) }
}
