//! What the engine knows of a pod, on disk: any later command finds and removes it.
use std::fs;
use std::io;
use std::path::PathBuf;

use husk_scope::record::Process;
use serde::{Deserialize, Serialize};

use super::{Error, Paths};
use crate::network::Network;

/// The record's file in the pod's directory.
const FILE: &str = "pod.json";

/// A pod that the engine made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id, and the name of its directory.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The process that watches over it and restarts its containers.
    pub supervisor: Option<Process>,
    /// The shim's binary.
    pub shim: PathBuf,
    /// The shim's socket, `unix://PATH`; empty before it is started.
    pub address: String,
    /// The version of the Task API it speaks.
    pub version: u32,
    /// Whether it has the Sandbox API; otherwise a pause container stands for the sandbox.
    pub sandbox_api: bool,
    /// The pinned network namespace.
    pub netns: Option<PathBuf>,
    /// What leads out of it.
    #[serde(default)]
    pub network: Network,
    /// The pod's cgroup.
    pub cgroup: Option<String>,
    /// Mounts of the engine's, in the order they were made.
    pub mounts: Vec<PathBuf>,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerRecord>,
}

/// A container of such a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its name in the pod.
    pub name: String,
    /// Its id at the shim.
    pub id: String,
    /// Whether it is one of `spec.initContainers`.
    pub init: bool,
    /// What it is doing.
    pub status: Status,
    /// How often it was started again.
    pub restarts: u32,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not started yet, or about to be started again.
    Waiting,
    /// Running.
    Running,
    /// Over, with this exit status.
    Exited(u32),
}

impl Record {
    /// Reads every record in the engine's directory, oldest first.
    ///
    /// # Errors
    /// A directory that cannot be read. One that holds no readable record is passed over: it is
    /// being made or removed.
    pub fn all(paths: &Paths) -> Result<Vec<Self>, Error> {
        let root = &paths.state;
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", root))?,
        };
        let mut records: Vec<Self> = entries
            .flatten()
            .filter_map(|entry| fs::read(entry.path().join(FILE)).ok())
            .filter_map(|text| serde_json::from_slice(&text).ok())
            .collect();
        records.sort_by_key(|record| record.created_ms);
        Ok(records)
    }

    /// Finds a pod by name, by id, or by the beginning of either if only one pod has it.
    ///
    /// # Errors
    /// [`Error::NoSuchPod`], [`Error::Ambiguous`].
    pub fn find(paths: &Paths, wanted: &str) -> Result<Self, Error> {
        let records = Self::all(paths)?;
        let exact = |record: &&Self| record.name == wanted || record.id == wanted;
        if let Some(found) = records.iter().find(exact) {
            return Ok(found.clone());
        }
        let begins =
            |record: &&Self| record.name.starts_with(wanted) || record.id.starts_with(wanted);
        let found: Vec<_> = records.iter().filter(begins).collect();
        match found.as_slice() {
            [only] if !wanted.is_empty() => Ok((*only).clone()),
            [] => Err(Error::NoSuchPod(wanted.to_owned())),
            several => Err(Error::Ambiguous {
                wanted: wanted.to_owned(),
                names: several.iter().map(|record| record.name.clone()).collect(),
            }),
        }
    }

    /// Writes the record, so that a reader sees the old one or the new one.
    pub(super) fn save(&self, paths: &Paths) -> Result<(), Error> {
        let file = paths.state_of(&self.id).join(FILE);
        let new = file.with_extension("new");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", &file)(error.into()))?;
        fs::write(&new, text).map_err(Error::io("write", &new))?;
        fs::rename(&new, &file).map_err(Error::io("write", &file))
    }

    pub(super) fn container_mut(&mut self, name: &str) -> Option<&mut ContainerRecord> {
        self.containers
            .iter_mut()
            .find(|container| container.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(paths: &Paths, name: &str, id: &str) {
        let record = Record {
            id: id.into(),
            name: name.into(),
            ..Record::default()
        };
        fs::create_dir(paths.state_of(id)).unwrap();
        record.save(paths).unwrap();
    }

    #[test]
    fn names_ids_and_unique_beginnings_find_a_pod() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths {
            state: root.path().into(),
            data: root.path().into(),
        };
        saved(&paths, "web", "aa11");
        saved(&paths, "web-2", "ab22");
        let id = |wanted: &str| Record::find(&paths, wanted).map(|record| record.id);
        assert_eq!(id("web").unwrap(), "aa11");
        assert_eq!(id("web-").unwrap(), "ab22");
        assert_eq!(id("ab").unwrap(), "ab22");
        assert!(matches!(id("a"), Err(Error::Ambiguous { .. })));
        assert!(matches!(id("b"), Err(Error::NoSuchPod(_))));
    }
}
