//! Makes namespaces and pins them: all, or none.
//!
//! A child of the builder joins and makes; the builder, which stays on the node, pins what the child
//! is in, and lets it go.
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, fork, sethostname};

use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError, Leftovers};
use crate::id_map::IdMap;
use crate::job::{Done, Namespaces};
use crate::pin::{pin, unpin_all};
use crate::process::Pidfd;
use crate::program::become_root;
use crate::report::Report;
use crate::{loopback, sys, sysctl};

/// Not in nix: see namespaces(7).
pub(crate) const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

pub(crate) fn make(job: &Namespaces, report: &Report) -> Result<Done, JobError> {
    check(job)?;
    let user = user_namespace(job)?;
    report.step("forking the process that makes namespaces");
    let (made, made_writer) = io::pipe().doing(|| "make a pipe")?;
    let (go, go_writer) = io::pipe().doing(|| "make a pipe")?;
    // SAFETY: a builder has one thread, so the child's memory is in no half-changed state.
    let child = match unsafe { fork() }.doing(|| "fork")? {
        ForkResult::Child => {
            drop((made, go_writer));
            make_and_wait(job, user, made_writer, go)
        }
        ForkResult::Parent { child } => child.as_raw(),
    };
    let child = Pidfd::open(child).doing(|| "open a pidfd for the child")?;
    drop((made_writer, go));

    report.step("making namespaces");
    let pinned = read_outcome(made).and_then(|()| {
        report.step("pinning namespaces");
        pin_all(job, child.pid)
    });
    drop(go_writer);
    child.kill().doing(|| "end the child")?;
    pinned?;
    Ok(Done::default())
}

/// Undoes the job of a builder that died.
pub(crate) fn undo_orphaned(job: &Namespaces, processes: &[i32]) -> Leftovers {
    let mut left = unpin_all(job.make.iter().map(|(_, path)| path.as_path()));
    for pid in processes {
        let killed = Pidfd::open(*pid).and_then(|process| process.kill());
        left.note(killed, || format!("kill process {pid}"));
    }
    left
}

fn check(job: &Namespaces) -> Result<(), JobError> {
    for (kind, _) in job.join.iter().chain(&job.make) {
        flag(kind)?;
    }
    let makes = |kind: &str| job.make.iter().any(|(made, _)| made == kind);
    if (job.hostname.is_some() || job.domainname.is_some()) && !makes("uts") {
        return Err(JobError::invalid(
            "a host name or domain name needs a UTS namespace of the pod's own",
        ));
    }
    if !job.time_offsets.is_empty() && !makes("time") {
        return Err(JobError::invalid(
            "clock offsets need a time namespace of the pod's own",
        ));
    }
    Ok(())
}

/// The pod's user namespace, if it is to have one: what owns its network (contract 17), or a new one.
fn user_namespace(job: &Namespaces) -> Result<Option<OwnedFd>, JobError> {
    if !job.make.iter().any(|(kind, _)| kind == "user") {
        return Ok(None);
    }
    let (users, groups) = &job.id_mappings;
    let Some((_, network)) = job.join.iter().find(|(kind, _)| kind == "net") else {
        let map = IdMap::new(Some(users), Some(groups), "the pod's user namespace")?;
        return map.namespace().map(Some);
    };
    let what = || format!("find the user namespace that owns {}", network.display());
    let network = File::open(network).doing(what)?;
    let owner = sys::owner_of(&network).doing(what)?;
    let is = |file: &std::fs::Metadata| (file.dev(), file.ino());
    let ours = fs::metadata("/proc/self/ns/user").doing(what)?;
    let owner = File::from(owner);
    if is(&owner.metadata().doing(what)?) == is(&ours) {
        return Err(JobError::invalid(
            "the pod is to have a user namespace (hostUsers: false), but its network namespace belongs to \
             the node's: whoever made that has to make it in the pod's user namespace",
        ));
    }
    Ok(Some(owner.into()))
}

/// The flag of a kind of namespace that a pod may have.
pub(crate) fn flag(kind: &str) -> Result<CloneFlags, JobError> {
    Ok(match kind {
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "net" => CloneFlags::CLONE_NEWNET,
        "time" => CLONE_NEWTIME,
        "user" => CloneFlags::CLONE_NEWUSER,
        "uts" => CloneFlags::CLONE_NEWUTS,
        _ => {
            return Err(JobError::invalid(format!(
                "a pod has no {kind:?} namespace that is joined or made like this: expected \
                 cgroup, ipc, net, time, user or uts"
            )));
        }
    })
}

/// Joins namespaces by their paths, a user namespace first: it may own the others. All are opened
/// before that, while this process may.
pub(crate) fn join(namespaces: &[(String, PathBuf)]) -> Result<(), JobError> {
    let mut opened = Vec::new();
    for (kind, path) in namespaces {
        let file =
            File::open(path).doing(|| format!("open the {kind} namespace {}", path.display()))?;
        opened.push((flag(kind)?, kind, path, file));
    }
    opened.sort_by_key(|(flag, ..)| *flag != CloneFlags::CLONE_NEWUSER);
    for (flag, kind, path, file) in opened {
        setns(file, flag).doing(|| format!("join the {kind} namespace {}", path.display()))?;
        if flag == CloneFlags::CLONE_NEWUSER {
            become_root()?;
        }
    }
    Ok(())
}

/// In the child: makes all, says so, and stays until it has been pinned.
fn make_and_wait(
    job: &Namespaces,
    user: Option<OwnedFd>,
    mut made: PipeWriter,
    mut go: PipeReader,
) -> ! {
    if let Err(error) = make_all(job, user) {
        let json = serde_json::to_vec(&error).unwrap_or_default();
        let _ = made.write_all(&json);
        sys::exit_now(1);
    }
    drop(made);
    // Ends with EOF, when the builder has pinned, failed or died.
    let _ = go.read(&mut [0]);
    sys::exit_now(0)
}

fn make_all(job: &Namespaces, user: Option<OwnedFd>) -> Result<(), JobError> {
    join(&job.join)?;
    let mut flags = CloneFlags::empty();
    for (kind, _) in &job.make {
        flags |= flag(kind)?;
    }
    if flags.contains(CloneFlags::CLONE_NEWCGROUP) {
        enter_cgroup(job)?;
    }
    if let Some(user) = user {
        setns(user, CloneFlags::CLONE_NEWUSER).doing(|| "join the pod's user namespace")?;
        become_root()?;
        flags.remove(CloneFlags::CLONE_NEWUSER);
    }
    unshare(flags).doing(|| format!("make namespaces ({})", kinds(job)))?;
    if !job.time_offsets.is_empty() {
        set_clocks(job)?;
    }
    if let Some(name) = &job.hostname {
        sethostname(name).doing(|| format!("set the host name to {name:?}"))?;
    }
    if let Some(name) = &job.domainname {
        sys::set_domain_name(name).doing(|| format!("set the domain name to {name:?}"))?;
    }
    let ours: Vec<&str> = job
        .join
        .iter()
        .chain(&job.make)
        .map(|(kind, _)| kind.as_str())
        .collect();
    for (name, value) in &job.sysctls {
        sysctl::write(name, value, &ours)?;
    }
    if job.loopback {
        loopback::up().doing(|| "bring lo up")?;
    }
    Ok(())
}

fn kinds(job: &Namespaces) -> String {
    let kinds: Vec<&str> = job.make.iter().map(|(kind, _)| kind.as_str()).collect();
    kinds.join(", ")
}

/// The cgroup this process is in becomes the root of its cgroup namespace.
fn enter_cgroup(job: &Namespaces) -> Result<(), JobError> {
    let Some(path) = job.cgroup.as_deref() else {
        return Err(JobError::invalid(
            "a cgroup namespace of the pod's own needs the pod's cgroup",
        ));
    };
    let cgroup = Cgroup::named(job.driver, Some(path), "pod")?;
    cgroup.ensure()?;
    Ok(cgroup.join(0)?)
}

/// Offsets are for the children of this process, which has none yet; see time_namespaces(7).
fn set_clocks(job: &Namespaces) -> Result<(), JobError> {
    for (clock, (seconds, nanoseconds)) in &job.time_offsets {
        let line = format!("{clock} {seconds} {nanoseconds}");
        fs::write("/proc/self/timens_offsets", &line)
            .doing(|| format!("set the clock offset {line:?}"))?;
    }
    Ok(())
}

fn read_outcome(mut made: PipeReader) -> Result<(), JobError> {
    let mut json = Vec::new();
    made.read_to_end(&mut json)
        .doing(|| "hear from the child")?;
    if json.is_empty() {
        return Ok(());
    }
    Err(serde_json::from_slice(&json).unwrap_or_else(|error| {
        JobError::failed(format!(
            "namespaces could not be made, and why is not known: {error}"
        ))
    }))
}

fn pin_all(job: &Namespaces, child: i32) -> Result<(), JobError> {
    for (at, (kind, path)) in job.make.iter().enumerate() {
        // A process stays in its time namespace; its children will be in the new one.
        let entry = if kind == "time" {
            "time_for_children"
        } else {
            kind
        };
        pin(child, entry, path).map_err(|error| {
            let pinned = job.make.iter().take(at);
            error.leaving(unpin_all(pinned.map(|(_, path)| path.as_path())))
        })?;
    }
    Ok(())
}
