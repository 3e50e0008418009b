//! A builder: the short-lived process that does one job.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::Signal;

use super::protocol::{self, SentJob};
use super::{Doing, Done, Job, JobError};
use crate::{create, sys};

/// The first byte of a report that names the step a builder is at.
pub(super) const REPORTED_STEP: u8 = b's';
/// The first byte of a report that is the result.
pub(super) const REPORTED_RESULT: u8 = b'r';

/// Where a panic is reported; -1 in the zygote.
static REPORTS: AtomicI32 = AtomicI32::new(-1);

/// The way from a builder to the zygote.
pub(crate) struct Report {
    socket: RawFd,
}

impl Report {
    /// Says what is done next: completes "the builder died while …".
    pub(crate) fn step(&self, name: &str) {
        // Only a help in the error of a builder that dies: losing it is no failure of the job.
        let _ = protocol::send_packet(self.socket, &[&[REPORTED_STEP], name.as_bytes()], &[]);
    }

    fn result(&self, result: &Result<Done, JobError>) -> bool {
        let (json, fds) = protocol::encode_result(result);
        protocol::send_packet(self.socket, &[&[REPORTED_RESULT], &json], &fds).is_ok()
    }
}

/// Does the job, reports, exits.
pub(super) fn run(zygote: u32, job: SentJob, reports: &OwnedFd) -> ! {
    let report = Report {
        socket: reports.as_raw_fd(),
    };
    REPORTS.store(report.socket, Ordering::Relaxed);
    sys::set_name(c"husk-builder");
    let result = sys::die_with_parent(zygote, Signal::SIGKILL)
        .and_then(|()| job.read())
        .doing(|| "read the job")
        .and_then(|job| perform(job, &report));
    let reported = report.result(&result);
    sys::exit_now(i32::from(!reported))
}

fn perform(job: Job, report: &Report) -> Result<Done, JobError> {
    match job {
        Job::Create(job) => create::create(job, report),
        _ => Err(JobError::failed("not yet")),
    }
}

/// Makes a panic of this process, or of a child that libcontainer forks from it, the job's error.
/// Unwinding would lead back into code that belongs to the parent.
pub(super) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let report = Report {
            socket: REPORTS.load(Ordering::Relaxed),
        };
        report.result(&Err(JobError::failed(format!("husk has a bug: {panic}"))));
        sys::exit_now(101)
    }));
}
