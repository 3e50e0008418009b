//! User namespaces and their mappings of ids: written by a process of the node, never by the shadow
//! tools. See user_namespaces(7).
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{fstat, major, minor};
use nix::unistd::{ForkResult, fork};
use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Doing, JobError};
use crate::mount_api::{self, Attributes, Depth};
use crate::process::Pidfd;
use crate::sys;

/// Mappings of users and groups, each in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMap {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// The first id in the namespace, the first on the node, and how many.
type Range = (u32, u32, u32);

impl IdMap {
    fn ordered(mut users: Vec<Range>, mut groups: Vec<Range>) -> Self {
        users.sort_unstable();
        groups.sort_unstable();
        Self { users, groups }
    }

    /// # Errors
    /// `Invalid`: one of them is empty; `what` says whose they are.
    pub(crate) fn new(
        users: Option<&Vec<LinuxIdMapping>>,
        groups: Option<&Vec<LinuxIdMapping>>,
        what: &str,
    ) -> Result<Self, JobError> {
        let ranges = |mappings: Option<&Vec<LinuxIdMapping>>, name: &str| {
            let ranges = mappings.into_iter().flatten();
            let ranges: Vec<Range> = ranges
                .map(|it| (it.container_id(), it.host_id(), it.size()))
                .collect();
            if ranges.is_empty() {
                return Err(JobError::invalid(format!(
                    "{what} has no {name}: a user namespace is made with mappings of both"
                )));
            }
            Ok(ranges)
        };
        Ok(Self::ordered(
            ranges(users, "uidMappings")?,
            ranges(groups, "gidMappings")?,
        ))
    }

    /// From the values of containerd's mount options `uidmap` and `gidmap`: ranges such as
    /// `0:100000:65536`, with commas between them.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(users: &str, groups: &str) -> Result<Self, String> {
        let ranges = |text: &str, option: &str| {
            let ranges = text.split(',').map(|range| parse(range.split(':')));
            ranges.collect::<Option<Vec<_>>>().ok_or_else(|| {
                format!(
                    "the option {option}={text} is not a list of ranges, the first id in the user \
                     namespace, the first on the node, and how many: 0:100000:65536"
                )
            })
        };
        Ok(Self::ordered(
            ranges(users, "uidmap")?,
            ranges(groups, "gidmap")?,
        ))
    }

    /// Those of the user namespace that a process is in, as ids are in that of this process.
    pub(crate) fn of(pid: i32) -> Result<Self, JobError> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
            let ranges = text.lines().map(|line| parse(line.split_whitespace()));
            ranges
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| JobError::failed(format!("{path} has no ranges of ids: {text:?}")))
        };
        Ok(Self::ordered(read("uid_map")?, read("gid_map")?))
    }

    /// Root of the user namespace, on the node: user and group.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        let of = |ranges: &[Range]| {
            ranges
                .iter()
                .find(|range| range.0 == 0)
                .map(|range| range.1)
        };
        Some((of(&self.users)?, of(&self.groups)?))
    }

    /// Writes them for a process that is the first in its new user namespace. `setgroups` stays
    /// allowed there: who writes is privileged.
    pub(crate) fn write(&self, pid: i32) -> Result<(), JobError> {
        for (name, ranges) in [("uid_map", &self.users), ("gid_map", &self.groups)] {
            // In one write(2): the kernel takes no more.
            fs::write(format!("/proc/{pid}/{name}"), lines(ranges, "\n")).doing(|| {
                format!(
                    "map ids of a user namespace ({name}: {})",
                    lines(ranges, ", ")
                )
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

/// Maps the ids of `mount`, which is attached nowhere yet, a copy of what `source` stands for. `name`
/// completes "cannot id-map …".
///
/// # Errors
/// `Invalid`: the file system cannot be mapped, which is named.
pub(crate) fn apply(
    namespace: &OwnedFd,
    mount: &OwnedFd,
    source: impl AsFd,
    depth: Depth,
    name: &str,
) -> Result<(), JobError> {
    let mapped = mount_api::set(mount.as_fd(), Attributes::id_mapped(namespace), depth);
    mapped.map_err(|errno| match errno {
        Errno::EINVAL => JobError::invalid(format!(
            "cannot id-map {name}: {}, or what is mounted there is id-mapped already",
            filesystem_of(source.as_fd())
        )),
        errno => JobError::from_errno(errno, format!("id-map {name}")),
    })
}

/// For an error: which file system cannot be id-mapped.
fn filesystem_of(source: BorrowedFd<'_>) -> String {
    let unknown = || "its file system does not support it".to_owned();
    let Ok(stat) = fstat(source) else {
        return unknown();
    };
    let device = format!("{}:{}", major(stat.st_dev), minor(stat.st_dev));
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", source.as_raw_fd()));
    let id = info.unwrap_or_default().lines().find_map(|line| {
        let id = line.strip_prefix("mnt_id:")?;
        Some(id.trim().to_owned())
    });
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let kind = mountinfo.lines().find_map(|line| {
        let is_it = id.as_deref() == line.split(' ').next();
        let (_, kind) = line.split_once(" - ").filter(|_| is_it)?;
        kind.split(' ').next().map(str::to_owned)
    });
    kind.map_or_else(unknown, |kind| {
        format!("its file system, {kind} ({device}), does not support it")
    })
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (users, groups) = (lines(&self.users, ", "), lines(&self.groups, ", "));
        write!(f, "users {users} and groups {groups}")
    }
}

fn parse<'a>(mut numbers: impl Iterator<Item = &'a str>) -> Option<Range> {
    let mut next = || numbers.next()?.parse().ok();
    let range = (next()?, next()?, next()?);
    numbers.next().is_none().then_some(range)
}

/// As the kernel takes them.
fn lines(ranges: &[Range], between: &str) -> String {
    let lines: Vec<String> = ranges
        .iter()
        .map(|(inside, outside, size)| format!("{inside} {outside} {size}"))
        .collect();
    lines.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_containerd_are_read() {
        let map = IdMap::parse("10:300000:5,0:100000:10", "0:7:1").unwrap();
        assert_eq!(
            map.to_string(),
            "users 0 100000 10, 10 300000 5 and groups 0 7 1"
        );
        for wrong in ["", "0", "0:1", "0:1:2:3", "0:1:x", "0:1:-1", "0:1:1,"] {
            let error = IdMap::parse("0:1:1", wrong).unwrap_err();
            assert!(error.contains("gidmap"), "{error}");
        }
    }

    #[test]
    fn the_nodes_map_is_the_identity_of_all_ids() {
        let map = IdMap::of(1).unwrap();
        assert_eq!(
            map,
            IdMap::parse("0:0:4294967295", "0:0:4294967295").unwrap()
        );
    }
}
