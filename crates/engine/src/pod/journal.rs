//! The record of a pod that runs, written before each effect.
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::volumes::Mounts;
use super::{Error, Paths, Record, Status};

/// A record shared by the tasks that run a pod.
pub(super) struct Journal {
    paths: Paths,
    record: Mutex<Record>,
}

impl Journal {
    /// Begins the record of a pod whose directory exists.
    pub(super) fn begin(paths: &Paths, record: Record) -> Result<Self, Error> {
        record.save(paths)?;
        Ok(Self {
            paths: paths.clone(),
            record: Mutex::new(record),
        })
    }

    /// The record as it is now.
    pub(super) fn record(&self) -> Record {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the record, on disk too.
    pub(super) fn write(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        record.save(&self.paths)
    }

    /// Changes one container's status.
    pub(super) fn status(&self, container: &str, status: Status) -> Result<(), Error> {
        self.write(|record| {
            if let Some(container) = record.container_mut(container) {
                container.status = status;
            }
        })
    }
}

impl Mounts for Journal {
    fn about_to_mount(&self, path: &Path) -> Result<(), Error> {
        self.write(|record| record.mounts.push(path.to_owned()))
    }
}
