//! User namespaces and their mappings of ids: written by a process of the node, never by the shadow
//! tools. See user_namespaces(7).
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, fork};
use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Doing, JobError};
use crate::process::Pidfd;
use crate::sys;

/// Mappings of users and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMap {
    users: String,
    groups: String,
}

impl IdMap {
    /// # Errors
    /// `Invalid`: one of them is empty; `what` says whose they are.
    pub(crate) fn new(
        users: Option<&Vec<LinuxIdMapping>>,
        groups: Option<&Vec<LinuxIdMapping>>,
        what: &str,
    ) -> Result<Self, JobError> {
        let lines = |mappings: Option<&Vec<LinuxIdMapping>>, name: &str| {
            let mut text = String::new();
            for it in mappings.into_iter().flatten() {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{} {} {}", it.container_id(), it.host_id(), it.size());
            }
            if text.is_empty() {
                return Err(JobError::invalid(format!(
                    "{what} has no {name}: a user namespace is made with mappings of both"
                )));
            }
            Ok(text)
        };
        Ok(Self {
            users: lines(users, "uidMappings")?,
            groups: lines(groups, "gidMappings")?,
        })
    }

    /// Writes them for a process that is the first in its new user namespace. `setgroups` stays
    /// allowed there: who writes is privileged.
    pub(crate) fn write(&self, pid: i32) -> Result<(), JobError> {
        for (name, lines) in [("uid_map", &self.users), ("gid_map", &self.groups)] {
            // In one write(2): the kernel takes no more.
            fs::write(format!("/proc/{pid}/{name}"), lines).doing(|| {
                let lines = lines.trim().replace('\n', ", ");
                format!("map ids of a user namespace ({name}: {lines})")
            })?;
        }
        Ok(())
    }

    /// A user namespace that has them and nobody in it: what an id-mapped mount is made with.
    pub(crate) fn namespace(&self) -> Result<OwnedFd, JobError> {
        let what = || "make a user namespace for an id-mapped mount";
        let (mut ready, its_ready) = io::pipe().doing(what)?;
        let builder = std::process::id();
        // SAFETY: a builder has one thread, so the child's memory is in no half-changed state.
        let child = match unsafe { fork() }.doing(what)? {
            ForkResult::Parent { child } => Pidfd::open(child.as_raw()).doing(what)?,
            ForkResult::Child => {
                let made = sys::die_with_parent(builder, Signal::SIGKILL).is_ok()
                    && unshare(CloneFlags::CLONE_NEWUSER).is_ok();
                if made && io::Write::write_all(&mut &its_ready, b"+").is_ok() {
                    nix::unistd::pause();
                }
                sys::exit_now(1)
            }
        };
        drop(its_ready);
        let made = ready
            .read(&mut [0])
            .doing(what)
            .and_then(|read| match read {
                1 => self.write(child.pid),
                _ => Err(JobError::failed(format!(
                    "cannot {}: see /proc/sys/user/max_user_namespaces",
                    what()
                ))),
            });
        let path = format!("/proc/{}/ns/user", child.pid);
        let opened = made.and_then(|()| File::open(&path).doing(what));
        child.kill().doing(what)?;
        Ok(OwnedFd::from(opened?))
    }
}
