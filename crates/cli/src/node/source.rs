//! What a node is to have: a directory with handlers' configurations, `NAME.toml`, and plugins, `*.wasm`.
//!
//! It may be a mounted ConfigMap, in which every file is a link to `..data/FILE`, and `..data` one to a directory
//! that is replaced as a whole. Whoever fills it is trusted with the handlers' policies, but with no other file of
//! the node: no link leads out of it, and what is no plain file, too large or too many is not read.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::install::{COMPONENT, check_name};

/// A ConfigMap has 1 MiB at most.
const CONFIGURATION: u64 = 1 << 20;
/// The most that the shim reads of a component.
const PLUGIN: u64 = 256 << 20;
/// How many of each there may be: what is told of them stays bounded.
const MOST: usize = 64;
/// How many names of what was left out are told.
const TOLD: usize = 16;
/// The longest name of a plugin.
const NAME: usize = 128;

/// What the directory has.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// By the handler's name.
    pub(super) configurations: BTreeMap<String, Entry>,
    /// By the file's name without `.wasm`.
    pub(super) plugins: BTreeMap<String, Entry>,
    /// Files that are left out, and why.
    pub(super) refused: BTreeMap<String, String>,
    /// How many more.
    pub(super) untold: usize,
}

/// A file that was opened when the directory was read.
#[derive(Debug)]
pub(super) struct Entry {
    file: File,
    most: u64,
    id: Id,
}

/// What tells a file from a later one, or from itself once it was written to.
type Id = (u64, u64, u64, i64, i64);

/// What tells the directory from what it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    files: BTreeMap<String, Option<Id>>,
}

impl Source {
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let reading = || format!("reading {}", dir.display());
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(dir, flags, Mode::empty()).with_context(reading)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).with_context(reading)? {
            names.push(entry.with_context(reading)?.file_name());
        }
        // The order of a directory is nobody's.
        names.sort();
        let mut source = Self::default();
        for name in names {
            let Some(name) = name.to_str() else {
                source.refuse(&name.to_string_lossy(), "its name is not UTF-8");
                continue;
            };
            // `..data` and its like are how a ConfigMap is mounted.
            if name.starts_with('.') {
                continue;
            }
            if let Err(error) = source.take(&opened, name) {
                source.refuse(name, &format!("{error:#}"));
            }
        }
        Ok(source)
    }

    fn refuse(&mut self, name: &str, why: &str) {
        if self.refused.len() < TOLD {
            self.refused.insert(name.to_owned(), why.to_owned());
        } else {
            self.untold = self.untold.saturating_add(1);
        }
    }

    fn take(&mut self, dir: &impl std::os::fd::AsFd, name: &str) -> Result<()> {
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let (entries, most) = match kind {
            "toml" => {
                check_name(stem)?;
                (&mut self.configurations, CONFIGURATION)
            }
            COMPONENT => {
                check_plugin(stem)?;
                (&mut self.plugins, PLUGIN)
            }
            _ => bail!("it is neither a configuration, NAME.toml, nor a plugin, NAME.{COMPONENT}"),
        };
        ensure!(
            entries.len() < MOST,
            "there are more than {MOST} of its kind"
        );
        let file = opened(dir, name)?;
        let found = file.metadata()?;
        ensure!(found.is_file(), "it is no file");
        ensure!(
            found.len() <= most,
            "it has {} bytes, more than {most}",
            found.len()
        );
        let id = id(&found);
        entries.insert(stem.to_owned(), Entry { file, most, id });
        Ok(())
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let configurations = self.configurations.iter();
        let configurations = configurations.map(|(name, it)| (format!("{name}.toml"), Some(it.id)));
        let plugins = self.plugins.iter();
        let plugins = plugins.map(|(name, it)| (format!("{name}.{COMPONENT}"), Some(it.id)));
        let refused = self.refused.keys().map(|name| (name.clone(), None));
        Fingerprint {
            files: configurations.chain(plugins).chain(refused).collect(),
        }
    }
}

impl Entry {
    /// # Errors
    /// It cannot be read, or has grown.
    pub(super) fn content(&self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut file = &self.file;
        file.rewind()?;
        file.take(self.most.saturating_add(1))
            .read_to_end(&mut content)?;
        let read = u64::try_from(content.len()).unwrap_or(u64::MAX);
        ensure!(read <= self.most, "it has more than {} bytes", self.most);
        Ok(content)
    }
}

fn check_plugin(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    ensure!(
        !name.is_empty() && name.len() <= NAME && name.chars().all(plain),
        "a plugin's name has letters, digits, `-`, `_` and `.`, at most {NAME}"
    );
    Ok(())
}

/// Opens a file of the directory, wherever links within it lead.
fn opened(dir: &impl std::os::fd::AsFd, name: &str) -> Result<File> {
    let how = OpenHow::new()
        // Nobody need write to a fifo for this to go on.
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(dir, name, how) {
        Ok(file) => Ok(file.into()),
        Err(nix::errno::Errno::EXDEV) => bail!("it leads out of the directory"),
        Err(errno) => Err(errno).context("opening it"),
    }
}

fn id(found: &fs::Metadata) -> Id {
    (
        found.dev(),
        found.ino(),
        found.len(),
        found.ctime(),
        found.ctime_nsec(),
    )
}

/// The names of the files of a directory that end so, without that; none if there is no directory.
///
/// # Errors
/// It cannot be read.
pub(super) fn stems(dir: &Path, extension: &str) -> Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", dir.display()))?,
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::mkfifo;
    use std::os::unix::fs::symlink;

    /// As kubelet mounts it.
    fn config_map(dir: &Path, version: &str, files: &[(&str, &str)]) {
        let data = dir.join(version);
        fs::create_dir(&data).unwrap();
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
            let _ = symlink(format!("..data/{name}"), dir.join(name));
        }
        symlink(version, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    }

    #[test]
    fn a_config_map_is_read_and_its_replacement_noticed() {
        let dir = tempfile::tempdir().unwrap();
        config_map(
            dir.path(),
            "..1",
            &[("husk.toml", "# one"), ("p.wasm", "x")],
        );
        let first = Source::read(dir.path()).unwrap();
        assert_eq!(first.configurations["husk"].content().unwrap(), b"# one");
        assert_eq!(first.plugins["p"].content().unwrap(), b"x");
        assert!(first.refused.is_empty(), "{:?}", first.refused);
        let same = Source::read(dir.path()).unwrap();
        assert_eq!(first.fingerprint(), same.fingerprint());
        config_map(
            dir.path(),
            "..2",
            &[("husk.toml", "# two"), ("p.wasm", "x")],
        );
        let second = Source::read(dir.path()).unwrap();
        assert_ne!(first.fingerprint(), second.fingerprint());
        assert_eq!(second.configurations["husk"].content().unwrap(), b"# two");
    }

    #[test]
    fn what_is_hostile_is_left_out_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good.toml"), "").unwrap();
        for name in [
            "a b.toml",
            "-x.toml",
            "Upper.toml",
            ".toml",
            "p q.wasm",
            "readme",
        ] {
            fs::write(at(name), "").unwrap();
        }
        // It is named so that it would be `../x` once joined.
        fs::write(at("..%2fx.wasm"), "").unwrap();
        fs::write(at("..\\x.toml"), "").unwrap();
        symlink("/etc/passwd", at("absolute.toml")).unwrap();
        symlink("../../../../etc/passwd", at("up.wasm")).unwrap();
        symlink("/proc/self/root/etc/passwd", at("magic.toml")).unwrap();
        symlink("loop.toml", at("loop.toml")).unwrap();
        mkfifo(&at("fifo.toml"), Mode::S_IRUSR).unwrap();
        fs::create_dir(at("dir.wasm")).unwrap();
        let huge = File::create(at("huge.toml")).unwrap();
        huge.set_len(CONFIGURATION + 1).unwrap();
        let huge = File::create(at("huge.wasm")).unwrap();
        huge.set_len(PLUGIN + 1).unwrap();

        let source = Source::read(dir.path()).unwrap();
        assert_eq!(source.configurations.keys().collect::<Vec<_>>(), ["good"]);
        assert!(source.plugins.is_empty(), "{:?}", source.plugins);
        for (name, why) in [
            ("absolute.toml", "leads out"),
            ("up.wasm", "leads out"),
            ("magic.toml", "leads out"),
            ("loop.toml", "opening it"),
            ("fifo.toml", "no file"),
            ("dir.wasm", "no file"),
            ("huge.toml", "1048577 bytes"),
            ("huge.wasm", "more than 268435456"),
            ("Upper.toml", "cannot be a handler"),
            ("p q.wasm", "a plugin's name"),
            ("readme", "neither"),
        ] {
            let said = &source.refused[name];
            assert!(said.contains(why), "{name}: {said}");
        }
    }

    #[test]
    fn a_flood_of_files_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..200 {
            fs::write(dir.path().join(format!("h{index}.toml")), "").unwrap();
        }
        let source = Source::read(dir.path()).unwrap();
        assert_eq!(source.configurations.len(), MOST);
        assert_eq!(source.refused.len(), TOLD);
        assert_eq!(source.untold, 200 - MOST - TOLD);
    }
}
