//! Whose namespaces a container's init is in, from its spec.
use std::fs::{self, File};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{Doing, JobError};
use crate::id_map::IdMap;
use crate::namespaces::CLONE_NEWTIME;
use crate::program::become_root;

/// The namespaces of a spec, before any of them is joined or made.
pub(super) struct Wanted {
    join: Vec<(LinuxNamespaceType, CloneFlags, File, String)>,
    /// New ones, those that are made by cloning; the cgroup namespace is not.
    pub(super) new: CloneFlags,
    /// Made when init is in its cgroup, which becomes its root.
    new_cgroup: bool,
    new_time: bool,
    /// Of another, with its path.
    pid: Option<(File, String)>,
    /// Of another, with its path.
    user: Option<(File, String)>,
    /// The names, as in `/proc/PID/ns`, of those that are not the node's.
    pub(super) not_the_nodes: Vec<&'static str>,
}

impl Wanted {
    /// Opens the namespaces to join, while this process may.
    pub(super) fn open(linux: &Linux) -> Result<Self, JobError> {
        let mut wanted = Self {
            join: Vec::new(),
            new: CloneFlags::empty(),
            new_cgroup: false,
            new_time: false,
            pid: None,
            user: None,
            not_the_nodes: Vec::new(),
        };
        for namespace in linux.namespaces().iter().flatten() {
            let (name, flag) = flag(namespace.typ());
            wanted.not_the_nodes.push(name);
            match namespace.path() {
                Some(path) => {
                    let opened = File::open(path).doing(|| what(namespace.typ(), path))?;
                    let path = path.display().to_string();
                    match flag {
                        CloneFlags::CLONE_NEWPID => wanted.pid = Some((opened, path)),
                        CloneFlags::CLONE_NEWUSER => wanted.user = Some((opened, path)),
                        _ => wanted.join.push((namespace.typ(), flag, opened, path)),
                    }
                }
                None if flag == CloneFlags::CLONE_NEWCGROUP => wanted.new_cgroup = true,
                None if flag == CLONE_NEWTIME => wanted.new_time = true,
                None => wanted.new |= flag,
            }
        }
        Ok(wanted)
    }

    /// The ids of a new user namespace, if there is one.
    pub(super) fn id_map(&self, linux: &Linux) -> Result<Option<IdMap>, JobError> {
        let (users, groups) = (linux.uid_mappings(), linux.gid_mappings());
        if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            return IdMap::new(users.as_ref(), groups.as_ref(), "linux").map(Some);
        }
        if self.user.is_none() && has_mappings(linux) {
            return Err(JobError::invalid(
                "linux has mappings of ids, but no user namespace that they are for",
            ));
        }
        Ok(None)
    }

    /// Sees that a user namespace that was joined, which `process` is in by now, maps ids as the spec
    /// says, if it does: by the spec's mappings the owners of files were chosen.
    pub(super) fn check_joined_map(&self, linux: &Linux, process: i32) -> Result<(), JobError> {
        let Some((_, path)) = self.user.as_ref().filter(|_| has_mappings(linux)) else {
            return Ok(());
        };
        let (users, groups) = (linux.uid_mappings(), linux.gid_mappings());
        let said = IdMap::new(users.as_ref(), groups.as_ref(), "linux")?;
        let is = IdMap::of(process)?;
        if said == is {
            return Ok(());
        }
        Err(JobError::invalid(format!(
            "linux.uidMappings and gidMappings say {said}, but the user namespace {path} has {is}: leave \
             them out, or say what is so"
        )))
    }

    /// Joins what is to be joined but the cgroup, the pid and the user namespace, for this process and
    /// its children; the time namespace only for its children.
    pub(super) fn join(&self, linux: &Linux) -> Result<(), JobError> {
        self.join_those(|flag| flag != CloneFlags::CLONE_NEWCGROUP)?;
        if self.new_time {
            unshare(CLONE_NEWTIME).doing(|| "make a time namespace")?;
            set_clocks(linux)?;
        }
        Ok(())
    }

    /// Joins or makes the cgroup namespace. Once this process is in its cgroup: from within a cgroup
    /// namespace no process is moved in that comes from outside ("nsdelegate", cgroup-v2.rst).
    pub(super) fn enter_cgroup_namespace(&self) -> Result<(), JobError> {
        if self.new_cgroup {
            unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace")?;
        }
        self.join_those(|flag| flag == CloneFlags::CLONE_NEWCGROUP)
    }

    /// The pid namespace that is another's.
    pub(super) fn pid_namespace(&self) -> Option<&File> {
        self.pid.as_ref().map(|(opened, _)| opened)
    }

    /// Joins the pid namespace that is another's, for what this process forks from now on.
    pub(super) fn join_pid_namespace(&self) -> Result<(), JobError> {
        let Some((namespace, path)) = &self.pid else {
            return Ok(());
        };
        setns(namespace, CloneFlags::CLONE_NEWPID)
            .doing(|| what(LinuxNamespaceType::Pid, Path::new(path)))
    }

    /// Whether the user namespace is another's.
    pub(super) fn joins_user_namespace(&self) -> bool {
        self.user.is_some()
    }

    /// Joins the user namespace that is another's, as its root: what is made from now on belongs to
    /// it.
    pub(super) fn join_user_namespace(&self) -> Result<(), JobError> {
        let Some((namespace, path)) = &self.user else {
            return Ok(());
        };
        setns(namespace, CloneFlags::CLONE_NEWUSER)
            .doing(|| what(LinuxNamespaceType::User, Path::new(path)))?;
        become_root()
    }

    /// Makes the new namespaces, for a process that was cloned without them.
    pub(super) fn make_new(&self) -> Result<(), JobError> {
        unshare(self.new).doing(|| format!("make namespaces ({:?})", self.new))
    }

    fn join_those(&self, which: impl Fn(CloneFlags) -> bool) -> Result<(), JobError> {
        for (kind, flag, namespace, path) in self.join.iter().filter(|it| which(it.1)) {
            setns(namespace, *flag).doing(|| what(*kind, Path::new(path)))?;
        }
        Ok(())
    }
}

fn has_mappings(linux: &Linux) -> bool {
    [linux.uid_mappings(), linux.gid_mappings()]
        .into_iter()
        .any(|mappings| mappings.as_ref().is_some_and(|it| !it.is_empty()))
}

/// Only now: once a process is in it, the clocks of a time namespace are as they are.
fn set_clocks(linux: &Linux) -> Result<(), JobError> {
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        let line = format!("{clock} {seconds} {nanoseconds}");
        fs::write("/proc/self/timens_offsets", &line)
            .doing(|| format!("set the clock offset {line:?}"))?;
    }
    Ok(())
}

/// The name in `/proc/PID/ns`, and the flag.
fn flag(kind: LinuxNamespaceType) -> (&'static str, CloneFlags) {
    match kind {
        LinuxNamespaceType::Cgroup => ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        LinuxNamespaceType::Ipc => ("ipc", CloneFlags::CLONE_NEWIPC),
        LinuxNamespaceType::Mount => ("mnt", CloneFlags::CLONE_NEWNS),
        LinuxNamespaceType::Network => ("net", CloneFlags::CLONE_NEWNET),
        LinuxNamespaceType::Pid => ("pid", CloneFlags::CLONE_NEWPID),
        LinuxNamespaceType::Time => ("time", CLONE_NEWTIME),
        LinuxNamespaceType::User => ("user", CloneFlags::CLONE_NEWUSER),
        LinuxNamespaceType::Uts => ("uts", CloneFlags::CLONE_NEWUTS),
    }
}

fn what(kind: LinuxNamespaceType, path: &Path) -> String {
    format!("join the {kind} namespace {}", path.display())
}
