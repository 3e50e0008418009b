//! Runs a further process in a container.
//!
//! libcontainer's own way ("tenant") forgets the container's seccomp profile, so every step is
//! ours. The builder enters the container's pid namespace, which only its children are then in, and
//! forks the process; that joins everything else, becomes what the spec asks for, and executes.
//!
//! From the first step to execve(2) the process is not dumpable: no process of the container can
//! trace it, or open its memory, its descriptors or, through `/proc/PID/exe`, the shim's
//! executable (CVE-2016-9962, CVE-2019-5736). A script whose interpreter is /proc/self/exe does run
//! the shim's program in the container; that file cannot be written while any shim of the node runs
//! (`ETXTBSY`), which is what protects it then.
mod join;
mod process;

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use self::process::Inside;
use crate::birth::Birthplace;
use crate::cgroup::Cgroup;
use crate::process::Pidfd;
use crate::program::{Program, limits};
use crate::workload::Workload;
use crate::zygote::{Doing, Done, Exec, JobError, Report};
use crate::{bundle, console, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;

/// Where the way to report is kept while all else is closed.
const OUTCOME: i32 = 3;
/// Written before the last steps: an end of the pipe without it is the death of the process.
const ABOUT_TO_EXECUTE: u8 = b'+';

pub(crate) fn exec(job: Exec, report: &Report) -> Result<Done, JobError> {
    bundle::check_process(&job.process)?;
    let workload = Workload::new(&job.process)?;
    let program = Program::new(job.process, workload, job.seccomp.as_ref())?;

    report.step("opening the container's init");
    let init = open_init(job.init)?;
    let namespaces = join::differing(init.pid)?;
    limits::set_oom_score_of_exec(&program.process, init.pid)?;
    prctl::set_dumpable(false).doing(|| "become undumpable")?;

    report.step("forking the process");
    let (outcome, outcome_writer) = io::pipe().doing(|| "make a pipe")?;
    let (console, console_sender) = UnixDatagram::pair().doing(|| "make a socket")?;
    if namespaces.contains(CloneFlags::CLONE_NEWPID) {
        setns(&init.fd, CloneFlags::CLONE_NEWPID)
            .doing(|| format!("enter the pid namespace of process {}", init.pid))?;
    }
    let affinity = program.process.exec_cpu_affinity().as_ref();
    limits::set_affinity(affinity.and_then(|it| it.initial().as_deref()))?;
    let cgroup = Cgroup::of(init.pid)?;
    let birthplace = Birthplace::in_cgroup(&cgroup)?;
    let Some(child) = birthplace.clone_into(CloneFlags::empty())? else {
        drop(outcome);
        let inside = Inside {
            stdio: job.stdio,
            program,
            init,
            namespaces,
            cgroup,
            birthplace,
            console: console_sender,
        };
        become_program(inside, outcome_writer)
    };
    drop(outcome_writer);
    drop(console_sender);

    report.step("waiting for the process to execute");
    read_outcome(outcome, &child).inspect_err(|_| {
        // It has reported and exits by itself, unless it hangs: then it must not stay.
        let _ = child.kill();
    })?;
    let console = take_console(&console)?;
    Ok(Done {
        process: Some(child),
        started: None,
        console,
    })
}

/// In the child: joins, becomes, executes, or says why not.
fn become_program(inside: Inside, mut outcome: PipeWriter) -> ! {
    let mut program = inside
        .enter()
        .unwrap_or_else(|error| give_up(&outcome, &error));
    // What is open could be reached by the program, or lead out of the container (CVE-2024-21626):
    // nothing but the way to report stays.
    match sys::keep_only(OwnedFd::from(outcome), OUTCOME) {
        Ok(kept) => outcome = PipeWriter::from(kept),
        Err(_) => sys::exit_now(127),
    }
    let Err(error) = program.become_user().and_then(|()| {
        outcome.write_all(&[ABOUT_TO_EXECUTE]).doing(|| "report")?;
        program.execute()
    });
    give_up(&outcome, &error)
}

fn give_up(mut outcome: &PipeWriter, error: &JobError) -> ! {
    let json = serde_json::to_vec(error).unwrap_or_default();
    // The builder is the only reader; if it is gone, so is whoever asked.
    let _ = outcome.write_all(&json);
    sys::exit_now(127)
}

/// # Errors
/// `NotFound` when init has ended (contract 28: no exec starts after it).
fn open_init(pid: i32) -> Result<Pidfd, JobError> {
    let init = Pidfd::open(pid).doing(|| format!("open the container's init, pid {pid}"))?;
    let mut ended = [PollFd::new(init.fd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ended, PollTimeout::ZERO).doing(|| "look at the container's init")? {
        0 => Ok(init),
        _ => Err(JobError::not_found(format!(
            "the container's init, pid {pid}, has ended"
        ))),
    }
}

/// Waits until the process has executed.
fn read_outcome(mut outcome: PipeReader, child: &Pidfd) -> Result<(), JobError> {
    let mut bytes = Vec::new();
    outcome
        .read_to_end(&mut bytes)
        .doing(|| "hear from the process")?;
    match bytes.strip_prefix(&[ABOUT_TO_EXECUTE]).unwrap_or(&bytes) {
        [] if !bytes.is_empty() => Ok(()),
        [] => {
            let ended = child.wait().doing(|| "wait for the process")?;
            Err(JobError::failed(format!(
                "the process {ended} before it could execute"
            )))
        }
        json => Err(serde_json::from_slice(json).unwrap_or_else(|error| {
            JobError::failed(format!("the process failed and did not say why: {error}"))
        })),
    }
}

/// The terminal's master, if the process sent one.
fn take_console(console: &UnixDatagram) -> Result<Option<OwnedFd>, JobError> {
    match console::receive_fd(console.as_raw_fd()) {
        Ok(master) => Ok(Some(master)),
        Err(nix::errno::Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(JobError::from_errno(
            errno,
            "take the terminal of the process",
        )),
    }
}
