//! The holder: pid 1 of a pod's pid namespace. It makes nothing, runs nothing, and reaps.
//!
//! Containers of the pod see it as process 1, and one with CAP_SYS_PTRACE may trace it and walk
//! through /proc/1: so it has an empty root, no capabilities, no descriptors, and seccomp's strict
//! mode leaves it read(2), write(2) and its death.
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use libcontainer::capabilities::drop_privileges;
use libcontainer::syscall::syscall::create_syscall;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{ForkResult, chdir, fork, pivot_root, setsid};

use crate::birth::{Maker, announcement};
use crate::cgroup::{self, Cgroup};
use crate::error::{Doing, JobError, Leftovers};
use crate::job::{Done, Holder};
use crate::pin::{pin, unpin_all};
use crate::process::Pidfd;
use crate::report::Report;
use crate::{bundle, namespaces, sys, workload};

/// The descriptor that the holder keeps, and reads for ever.
const NOTHING: i32 = 3;
/// Says that all is done and the holder is to stay.
const STAY: &[u8] = b"s";

pub(crate) fn hold(job: &Holder, report: &Report) -> Result<Done, JobError> {
    report.step("making the holder's cgroup");
    let cgroup = match job.cgroups_path() {
        Some(path) => Some(Cgroup::make(job.driver, Some(&path), "holder", None)?),
        None => None,
    };
    report.step("forking the holder");
    let (birth, maker_end) = announcement()?;
    let (stay, mut stay_writer) = io::pipe().doing(|| "make a pipe")?;
    // SAFETY: a builder has one thread, so the child's memory is in no half-changed state.
    let maker = match unsafe { fork() }.doing(|| "fork")? {
        ForkResult::Child => {
            drop((birth, stay_writer));
            give_birth(job, maker_end, stay)
        }
        ForkResult::Parent { child } => child.as_raw(),
    };
    let maker = Pidfd::open(maker).doing(|| "open a pidfd for the holder's maker")?;
    drop((maker_end, stay));
    let holder = birth.wait(&maker)?;

    report.step("pinning the holder's pid namespace");
    let settled = pin(holder.pid, "pid", &job.pin).and_then(|()| {
        settle(cgroup, &holder, &mut stay_writer)
            .map_err(|error| error.leaving(unpin_all(std::iter::once(job.pin.as_path()))))
    });
    if let Err(error) = settled {
        let _ = holder.kill();
        return Err(error);
    }
    Ok(Done {
        process: Some(holder),
        ..Done::default()
    })
}

fn settle(
    cgroup: Option<cgroup::New>,
    holder: &Pidfd,
    stay: &mut PipeWriter,
) -> Result<(), JobError> {
    if let Some(cgroup) = cgroup {
        cgroup.adopt(holder.pid)?;
    }
    stay.write_all(STAY).doing(|| "let the holder stay")
}

/// Undoes the job of a builder that died: its holder has ended by itself.
pub(crate) fn undo_orphaned(job: &Holder) -> Leftovers {
    let mut left = unpin_all(std::iter::once(job.pin.as_path()));
    if let Some(path) = job.cgroups_path() {
        let removed =
            Cgroup::named(job.driver, Some(&path), "holder").and_then(|cgroup| cgroup.remove());
        left.note(removed, || format!("remove the holder's cgroup {path}"));
    }
    left
}

/// In the maker: joins what the holder is to be in, and forks it as a child of the builder.
fn give_birth(job: &Holder, maker: Maker, stay: PipeReader) -> ! {
    if let Err(error) = namespaces::join(&job.join).and_then(|()| leave_the_node()) {
        maker.fail(error);
    }
    maker.fork(CloneFlags::CLONE_NEWPID);
    be_the_holder(stay)
}

/// Exchanges the node's mounts for an empty root that cannot be written.
pub(crate) fn leave_the_node() -> Result<(), JobError> {
    const ROOT: &str = "/proc";
    let none = None::<&str>;
    let what = || "enter an empty root";
    unshare(CloneFlags::CLONE_NEWNS).doing(what)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).doing(what)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Any directory that every node has will do: it is covered in this mount namespace only.
    mount(
        Some("tmpfs"),
        ROOT,
        Some("tmpfs"),
        flags,
        Some("size=4k,mode=0555"),
    )
    .doing(what)?;
    chdir(ROOT).doing(what)?;
    pivot_root(".", ".").doing(what)?;
    // The old root now lies on top of the new one.
    umount2(".", MntFlags::MNT_DETACH).doing(what)?;
    chdir(Path::new("/")).doing(what)
}

/// In the holder, pid 1 of its namespace.
fn be_the_holder(stay: PipeReader) -> ! {
    let wait = become_harmless(stay);
    // A holder that is not wanted, or not harmless, must not be there.
    let Ok(wait) = wait else { sys::exit_now(1) };
    // SAFETY: prctl(2) takes an integer here. Should the kernel lack seccomp, the rest has to do.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    let mut byte = 0u8;
    loop {
        // Nothing is ever written: the holder has both ends, and is the only one.
        // SAFETY: the kernel writes at most one byte into `byte`.
        unsafe { libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1) };
    }
}

/// Waits until it may stay, and gives up all but a pipe, both of whose ends it has: comes back with
/// the end to read from.
fn become_harmless(mut stay: PipeReader) -> io::Result<OwnedFd> {
    prctl::set_name(c"husk-holder")?;
    prctl::set_dumpable(false)?;
    setsid()?;
    workload::reset_signals();
    sys::reap_automatically()?;
    drop_privileges(&bundle::no_capabilities(), &*create_syscall()).map_err(io::Error::other)?;
    // EOF: the builder has failed or died.
    stay.read_exact(&mut [0; STAY.len()])?;
    drop(stay);
    sys::keep_only_an_idle_pipe(NOTHING)
}
