//! Makes a container: its cgroup, its root filesystem, its init; or leaves nothing behind.
use std::fs;
use std::io;

use oci_spec::runtime::{Process, Spec};

use crate::cgroup::{Cgroup, New};
use crate::error::{JobError, Leftovers};
use crate::id_map::IdMap;
use crate::job::{Create, Done};
use crate::process::{self, Pidfd};
use crate::report::Report;
use crate::workload::Workload;
use crate::{bundle, checks, init, rootfs};

pub(crate) fn create(mut job: Create, report: &Report) -> Result<Done, JobError> {
    report.step("reading config.json");
    let spec = bundle::load(&job.dir)?;
    checks::check(&spec)?;
    let (process, workload) = bundle::process(&spec)?;
    bundle::check_paths(&spec)?;

    report.step("making the cgroup");
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let cgroup = Cgroup::make(job.driver, bundle::cgroups_path(&spec), &job.id, resources)?;

    report.step("mounting the root filesystem");
    let made = owners(&job, &spec)
        .and_then(|owners| rootfs::mount_all(&job.rootfs, &job.mounts, owners.as_ref()))
        .and_then(|()| bundle::check_root(&spec))
        .and_then(|()| build(&mut job, &spec, process, workload, cgroup, report));
    made.map_err(|error| {
        report.step("undoing a failed create");
        // Children of this process are init, and what libcontainer forks, nothing else.
        let processes = process::children(process::my_pid()).unwrap_or_default();
        error.leaving(undo(&job, &processes))
    })
}

/// By which ids the owners of the root filesystem are seen, if not by the node's.
fn owners(job: &Create, spec: &Spec) -> Result<Option<IdMap>, JobError> {
    if !job.maps_rootfs {
        return Ok(None);
    }
    if job.mounts.is_empty() {
        return Err(JobError::invalid(
            "the root filesystem is mounted already, so that its owners cannot be mapped to the ids of \
             the container's user namespace: leave the user namespace as requested where the client \
             mounts root filesystems, as Docker does",
        ));
    }
    let linux = bundle::linux(spec)?;
    let (users, groups) = (linux.uid_mappings(), linux.gid_mappings());
    IdMap::new(users.as_ref(), groups.as_ref(), "linux").map(Some)
}

/// Undoes a create whose builder died, and left these processes.
pub(crate) fn undo_orphaned(job: &Create, processes: &[i32]) -> Leftovers {
    let mut left = undo(job, processes);
    let removed = bundle::load(&job.dir).and_then(|spec| {
        // Only when it is empty: that builder may have died before the cgroup was its own.
        Ok(Cgroup::named(job.driver, bundle::cgroups_path(&spec), &job.id)?.remove()?)
    });
    left.note(removed, || {
        format!("remove the cgroup of container {}", job.id)
    });
    left
}

fn build(
    job: &mut Create,
    spec: &Spec,
    process: Process,
    workload: Workload,
    cgroup: New,
    report: &Report,
) -> Result<Done, JobError> {
    report.step("building the container");
    let done = init::make(job, spec, process, workload, cgroup.cgroup(), report)?;
    cgroup.keep();
    Ok(done)
}

/// Undoes what a failed create has done: processes, mounts, files. It goes on past what it cannot
/// undo: `delete` comes after it.
fn undo(job: &Create, processes: &[i32]) -> Leftovers {
    let mut left = Leftovers::default();
    for pid in processes {
        let killed = Pidfd::open(*pid).and_then(|process| process.kill());
        left.note(killed, || format!("kill process {pid}"));
    }
    if !job.mounts.is_empty() {
        let unmounted = rootfs::unmount_all(&job.rootfs);
        left.note(unmounted, || format!("unmount {}", job.rootfs.display()));
    }
    let start = job.dir.join(init::START);
    left.note(gone(fs::remove_file(&start)), || {
        format!("remove {}", start.display())
    });
    left
}

/// What was not there needs no removal.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
