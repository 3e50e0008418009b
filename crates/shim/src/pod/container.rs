//! What a container is made of, as far as the shim must keep it.
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use husk_plugin_host::subject::Container as Subject;
use husk_sandbox::cgroup::{Cgroup, Driver, OomWatch};
use husk_sandbox::hooks::Hooks;
use husk_sandbox::job::Inherited;
use husk_sandbox::process::Pidfd;
use husk_sandbox::rootfs::Mount;
use husk_scope::links::Link;
use husk_scope::{Ids, Plan};
use oci_spec::runtime::Process as OciProcess;

use super::withheld::Withheld;
use crate::failure::Failure;
use crate::io::{Io, Stdio};
use crate::sync::lock;

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    /// The directory containerd made.
    pub(crate) bundle: PathBuf,
    /// What to mount as the root filesystem; empty when it is there already.
    pub(crate) mounts: Vec<Mount>,
    /// The shim's directory for it.
    pub(crate) dir: PathBuf,
    pub(crate) init: Arc<Process>,
    pub(super) execs: Mutex<HashMap<String, Arc<Process>>>,
    /// Reads EOF once init has executed.
    pub(super) started: Mutex<Option<OwnedFd>>,
    pub(super) oom: Mutex<Option<OomWatch>>,
    pub(super) known: OnceLock<Known>,
    /// What the plugins know it as, where there are any.
    pub(super) subject: OnceLock<Subject>,
    /// What the plugins took from it, where there are any.
    pub(super) withheld: OnceLock<Withheld>,
    /// Whether the kernel killed a process of it for want of memory.
    pub(super) oom_killed: AtomicBool,
}

/// What is known once the container is planned.
pub(crate) struct Known {
    /// The name in the pod.
    pub(crate) name: String,
    pub(crate) plan: Plan,
    /// The ids of its own user namespace, if it was assigned one.
    pub(crate) ids: Option<Ids>,
    /// The ports that lead out of its network, or into it.
    pub(crate) links: Vec<Link>,
    /// The root filesystem.
    pub(crate) rootfs: PathBuf,
    pub(crate) cgroups_path: String,
    pub(crate) driver: Driver,
    /// Where its cgroup will be, if that can be told.
    pub(crate) named_cgroup: Option<Cgroup>,
    /// What its further processes take on, too.
    pub(crate) inherited: Inherited,
    /// Where its /dev/shm is bound from, if it is.
    pub(crate) shm: Option<PathBuf>,
    /// Hooks that are run when it has started, and when nothing is left of it.
    pub(crate) poststart: Option<Hooks>,
    pub(crate) poststop: Option<Hooks>,
}

/// A process.
#[derive(Default)]
pub(crate) struct Process {
    pub(crate) io: Io,
    /// What an exec runs.
    pub(super) spec: Option<OciProcess>,
    pub(super) made: OnceLock<Made>,
}

/// A process that was made.
pub(crate) struct Made {
    pub(crate) pidfd: Arc<Pidfd>,
    /// Field 22 of `/proc/PID/stat`.
    pub(crate) start_time: u64,
    /// Init's alone: a failed look-up at Create is no reason to fail it.
    pub(crate) cgroup: Option<Cgroup>,
}

impl Container {
    pub(crate) fn new(
        id: String,
        bundle: PathBuf,
        mounts: Vec<Mount>,
        dir: PathBuf,
        stdio: Stdio,
    ) -> Self {
        Self {
            id,
            bundle,
            mounts,
            dir,
            init: Arc::new(Process {
                io: Io::new(stdio),
                ..Process::default()
            }),
            execs: Mutex::default(),
            started: Mutex::default(),
            oom: Mutex::default(),
            known: OnceLock::new(),
            subject: OnceLock::new(),
            withheld: OnceLock::new(),
            oom_killed: AtomicBool::new(false),
        }
    }

    /// Init, or the exec of that id.
    pub(crate) fn process(&self, exec: Option<&str>) -> Option<Arc<Process>> {
        match exec {
            None => Some(Arc::clone(&self.init)),
            Some(exec) => lock(&self.execs).get(exec).cloned(),
        }
    }

    /// Init's pid, once made.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.init.made.get().map(|made| made.pidfd.pid)
    }

    pub(super) fn known(&self) -> Result<&Known, Failure> {
        self.known
            .get()
            .ok_or_else(|| Failure::precondition(format!("container {} is not made yet", self.id)))
    }

    /// Its own cgroup: it holds this container's processes and no one else's.
    pub(crate) fn cgroup(&self) -> Result<Cgroup, Failure> {
        let found = self.init.made.get().and_then(|made| made.cgroup.clone());
        found.ok_or_else(|| {
            Failure::internal(format!("the cgroup of container {} is not known", self.id))
        })
    }
}

impl Process {
    pub(crate) fn exec(spec: OciProcess, stdio: Stdio) -> Self {
        Self {
            io: Io::new(stdio),
            spec: Some(spec),
            made: OnceLock::new(),
        }
    }

    pub(crate) fn pidfd(&self) -> Option<&Arc<Pidfd>> {
        self.made.get().map(|made| &made.pidfd)
    }
}
