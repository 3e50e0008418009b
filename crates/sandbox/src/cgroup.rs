//! Cgroups: limits, numbers, freezing, killing; v2 first, v1 as it is.
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who makes cgroups on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The shim, with mkdir.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

/// The cgroup of a container, in every hierarchy the node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {}

/// Says when the kernel killed a process of a cgroup for want of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl Cgroup {
    /// The cgroup a process is in.
    ///
    /// # Errors
    /// There is no such process, or no cgroup filesystem.
    pub fn of(_pid: i32) -> io::Result<Self> {
        todo!()
    }

    /// The cgroup at these paths: hierarchy (empty for v2) to path, as in `/proc/PID/cgroup`.
    ///
    /// # Errors
    /// No cgroup filesystem is mounted.
    pub fn at(_paths: &BTreeMap<String, PathBuf>) -> io::Result<Self> {
        todo!()
    }

    /// The paths, as in `/proc/PID/cgroup`.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        todo!()
    }

    /// Its processes, and those of the cgroups below it.
    ///
    /// # Errors
    /// What reading `cgroup.procs` says.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        todo!()
    }

    /// Freezes every process in it, and waits until they are.
    ///
    /// # Errors
    /// No freezer, or they do not freeze.
    pub fn freeze(&self) -> io::Result<()> {
        todo!()
    }

    /// Thaws it.
    ///
    /// # Errors
    /// No freezer.
    pub fn thaw(&self) -> io::Result<()> {
        todo!()
    }

    /// Kills every process in it: `cgroup.kill`, or freeze, signal, thaw.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> io::Result<()> {
        todo!()
    }

    /// Watches for memory kills; arm it at Create (contract 38).
    ///
    /// # Errors
    /// No memory controller.
    pub fn watch_oom(&self) -> io::Result<OomWatch> {
        todo!()
    }

    /// Removes it and what is below it; gone already is no error.
    ///
    /// # Errors
    /// A process is still in it.
    pub fn remove(&self) -> io::Result<()> {
        todo!()
    }
}

impl OomWatch {
    /// Whether a kill happened since the last call; does not wait. [`AsFd`] is readable when it may
    /// have.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn fired(&mut self) -> io::Result<bool> {
        todo!()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
