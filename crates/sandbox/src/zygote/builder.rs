//! A builder: the short-lived process that does one job.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::prctl;

use super::protocol::{self, SentJob};
use crate::error::{Doing, JobError, Leftovers};
use crate::job::{Done, Job};
use crate::report::Report;
use crate::{create, exec, holder, namespaces, process, relay, sys, update};

/// See keyctl_join_session_keyring(3).
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
/// Where a panic is reported; -1 in the zygote.
static REPORTS: AtomicI32 = AtomicI32::new(-1);

fn tell(report: &Report, result: &Result<Done, JobError>) -> bool {
    let (json, descriptors) = protocol::encode_result(result);
    report.result(&json, &descriptors).is_ok()
}

/// Does the job, reports, exits.
pub(super) fn run(job: SentJob, reports: &OwnedFd, tether: &OwnedFd) -> ! {
    let report = become_builder(reports, tether.as_raw_fd());
    let result = job
        .read()
        .doing(|| "read the job")
        .and_then(|job| perform(job, &report));
    let reported = tell(&report, &result);
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
    let report = Report::new(reports.as_raw_fd(), tether);
    REPORTS.store(reports.as_raw_fd(), Ordering::Relaxed);
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
        let report = Report::new(REPORTS.load(Ordering::Relaxed), -1);
        let error = JobError::failed(format!("husk has a bug: {panic}"));
        tell(&report, &Err(error));
        sys::exit_now(101)
    }));
}
