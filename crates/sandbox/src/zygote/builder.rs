//! A builder: the short-lived process that does one job.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::prctl;

use super::protocol::{self, SentJob};
use super::{Doing, Done, Job, JobError, Leftovers};
use crate::{create, exec, holder, namespaces, process, relay, sys, update};

/// See keyctl_join_session_keyring(3).
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
/// The first byte of a report that names the step a builder is at.
pub(super) const REPORTED_STEP: u8 = b's';
/// The first byte of a report that is the result.
pub(super) const REPORTED_RESULT: u8 = b'r';

/// Where a panic is reported; -1 in the zygote.
static REPORTS: AtomicI32 = AtomicI32::new(-1);

/// The way from a builder to the zygote.
pub(crate) struct Report {
    socket: RawFd,
    tether: RawFd,
}

impl Report {
    /// Says what is done next: completes "the builder died while …".
    pub(crate) fn step(&self, name: &str) {
        // Only a help in the error of a builder that dies: losing it is no failure of the job.
        let _ = protocol::send_packet(self.socket, &[&[REPORTED_STEP], name.as_bytes()], &[]);
    }

    /// What a process that a builder makes keeps open until it executes, to be found by if the
    /// builder dies: an end of a pipe that nobody reads or writes, since a container may get at it.
    pub(crate) fn tether(&self) -> RawFd {
        self.tether
    }

    fn result(&self, result: &Result<Done, JobError>) -> bool {
        let (json, fds) = protocol::encode_result(result);
        protocol::send_packet(self.socket, &[&[REPORTED_RESULT], &json], &fds).is_ok()
    }
}

/// Does the job, reports, exits.
pub(super) fn run(job: SentJob, reports: &OwnedFd, tether: &OwnedFd) -> ! {
    let report = become_builder(reports, tether.as_raw_fd());
    let result = job
        .read()
        .doing(|| "read the job")
        .and_then(|job| perform(job, &report));
    let reported = report.result(&result);
    sys::exit_now(i32::from(!reported))
}

/// Undoes a job whose builder died, and reports as steps what it cannot undo. `mark` is the inode
/// of that builder's tether.
pub(super) fn undo(job: OwnedFd, mark: u64, reports: &OwnedFd) -> ! {
    let report = become_builder(reports, -1);
    let strays = process::holders_of_pipe(mark).unwrap_or_default();
    let left = match protocol::read_job(job) {
        Ok(Job::Create(job)) => create::undo_orphaned(&job, &strays),
        Ok(Job::Namespaces(job)) => namespaces::undo_orphaned(&job, &strays),
        Ok(Job::Holder(job)) => holder::undo_orphaned(&job),
        Ok(Job::Relay(job)) => relay::undo_orphaned(&job),
        // A process that was to be executed dies when it cannot report, and a hook with its builder;
        // limits stay as they are.
        Ok(Job::Exec(_) | Job::Update(_) | Job::Hooks(_)) => Leftovers::default(),
        Err(error) => {
            let mut left = Leftovers::default();
            left.push(format!("cannot read the job: {error}"));
            left
        }
    };
    for leftover in left.into_vec() {
        report.step(&leftover);
    }
    sys::exit_now(0)
}

fn become_builder(reports: &OwnedFd, tether: RawFd) -> Report {
    let report = Report {
        socket: reports.as_raw_fd(),
        tether,
    };
    REPORTS.store(report.socket, Ordering::Relaxed);
    // Only a help for whoever looks at a list of processes.
    let _ = prctl::set_name(c"husk-builder");
    // A keyring of its own for what is built: the shim's may hold secrets. Where the kernel has no
    // keyrings there is nothing to hide.
    // SAFETY: keyctl(2) takes an integer and a name, which may be null: an anonymous keyring.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            null::<libc::c_char>(),
        )
    };
    report
}

fn perform(job: Job, report: &Report) -> Result<Done, JobError> {
    match job {
        Job::Create(job) => create::create(job, report),
        Job::Exec(job) => exec::exec(job, report),
        Job::Update(job) => update::update(&job),
        Job::Namespaces(job) => namespaces::make(&job, report),
        Job::Holder(job) => holder::hold(&job, report),
        Job::Relay(job) => relay::make(job, report),
        Job::Hooks(hooks) => hooks.run().map(|()| Done::default()),
    }
}

/// Makes a panic of this process, or of a child of it, the job's error.
/// Unwinding would lead back into code that belongs to the parent.
pub(super) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let report = Report {
            socket: REPORTS.load(Ordering::Relaxed),
            tether: -1,
        };
        report.result(&Err(JobError::failed(format!("husk has a bug: {panic}"))));
        sys::exit_now(101)
    }));
}
