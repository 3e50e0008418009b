//! What `husk install` has put on a node, so that `husk uninstall` takes that away, and nothing else.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::Wanted;
use super::{Containerd, Handler, SHIM};

pub(crate) const FILE: &str = "installed.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The handlers' names.
    pub(super) handlers: Vec<String>,
    /// The files, and what they were when they had been written; none while they are being written.
    files: BTreeMap<PathBuf, Option<String>>,
    /// containerd's configuration, and whether there was none before.
    pub(super) containerd_config: PathBuf,
    pub(super) created: bool,
    /// Device and inode of the shims that were here before: pods may run with them, by no name.
    #[serde(default)]
    pub(super) replaced_shims: BTreeSet<(u64, u64)>,
}

impl Record {
    /// What there will be once these files are written. What `keeps` names and is there already stays what
    /// it was: of an earlier installation, or the operator's.
    pub(super) fn new(
        handlers: &[Handler],
        files: &[Wanted],
        containerd: &Containerd,
        earlier: Option<&Self>,
        keeps: impl Fn(&Path) -> bool,
    ) -> Self {
        let mut installed: BTreeMap<_, _> =
            files.iter().map(|file| (file.path.clone(), None)).collect();
        let earlier_files = earlier.iter().flat_map(|it| &it.files);
        for (path, digest) in earlier_files.filter(|(path, _)| keeps(path)) {
            let file = installed.entry(path.clone());
            file.or_insert_with(|| digest.clone());
        }
        Self {
            handlers: handlers.iter().map(|it| it.name.clone()).collect(),
            files: installed,
            containerd_config: containerd.config.clone(),
            created: earlier.map_or_else(|| !containerd.config.exists(), |it| it.created),
            replaced_shims: replaced_shims(files, earlier),
        }
    }

    pub(super) fn read(data: &Path) -> Result<Option<Self>> {
        let path = data.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is no record of `husk install`", path.display()))
    }

    pub(super) fn write(&self, data: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        let file = Wanted::text(data.join(FILE), text + "\n");
        file.change()?.map_or(Ok(()), |change| change.make())
    }

    pub(super) fn remove(data: &Path) -> Result<()> {
        let file = Wanted::gone(data.join(FILE));
        file.change()?.map_or(Ok(()), |change| change.make())
    }

    /// With the files of an earlier one, too.
    pub(super) fn and(&self, earlier: Option<&Self>) -> Self {
        let mut all = self.clone();
        for (path, digest) in earlier.iter().flat_map(|it| &it.files) {
            let file = all.files.entry(path.clone());
            file.or_insert_with(|| digest.clone());
        }
        all
    }

    /// Once the files are written.
    pub(super) fn finished(mut self) -> Result<Self> {
        for (path, digest) in &mut self.files {
            if digest.is_none() {
                *digest = Some(digest_of(path)?);
            }
        }
        Ok(self)
    }

    /// Files that another record has not, and that nobody has changed since.
    pub(super) fn obsolete(&self, other: &Self) -> Vec<Wanted> {
        let ours = self.files.iter().filter(|(path, digest)| {
            !other.files.contains_key(*path) && is_as_written(path, digest.as_deref())
        });
        ours.map(|(path, _)| Wanted::gone(path.clone())).collect()
    }

    /// Files that were changed since.
    pub(super) fn changed(&self) -> Vec<&Path> {
        let changed = self
            .files
            .iter()
            .filter(|(path, digest)| path.exists() && !is_as_written(path, digest.as_deref()));
        changed.map(|(path, _)| path.as_path()).collect()
    }

    /// Device and inode of the shims that are here, and of those that were.
    pub(super) fn shims(&self) -> BTreeSet<(u64, u64)> {
        let shims = self.files().filter(|path| path.ends_with(SHIM));
        let replaced = self.replaced_shims.iter().copied();
        replaced.chain(shims.filter_map(inode)).collect()
    }

    /// All files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}

/// The shims that were replaced before, and those that will be once these files are written.
fn replaced_shims(files: &[Wanted], earlier: Option<&Record>) -> BTreeSet<(u64, u64)> {
    let changed = files.iter().filter(|file| {
        let before = file.path.ends_with(SHIM).then(|| fs::read(&file.path).ok());
        before
            .flatten()
            .is_some_and(|before| Some(before) != file.content)
    });
    let before = earlier
        .iter()
        .flat_map(|it| it.replaced_shims.iter().copied());
    before
        .chain(changed.filter_map(|file| inode(&file.path)))
        .collect()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Also one that was being written when that was cut short: it is none of the operator's.
fn is_as_written(path: &Path, digest: Option<&str>) -> bool {
    match digest_of(path) {
        Ok(now) => digest.is_none_or(|then| then == now),
        Err(_) => false,
    }
}

pub(crate) fn digest_of(path: &Path) -> Result<String> {
    let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let digest = Sha256::digest(&content);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
