//! Runs a further process in a container.
//!
//! libcontainer's own way ("tenant") forgets the container's seccomp profile, so every step is
//! ours. The builder forks a maker, which joins all namespaces of the container; of the pid namespace
//! only its children are then members. It closes what it had and becomes what the spec asks for. Only
//! then it forks the process ([`crate::birth`]), for which nothing is left to do but a session of its
//! own, its seccomp profile and execve(2).
//!
//! So what the container's processes may see of the process, CAP_SYS_PTRACE or not, is what they see
//! of it later: the container's root, its working directory and streams, and no more capabilities
//! than it is to have. Besides, it has the ends of two pipes, by which nothing can be reached, and it
//! is not dumpable (CVE-2016-9962). Without CAP_SYS_PTRACE nobody sees even that. Its executable until
//! then is the shim's, from a mount that cannot be written through ([`crate::reexec`]).
mod join;
mod process;

use std::convert::Infallible;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use self::process::Inside;
use crate::birth::{Birthplace, Maker, announcement};
use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError};
use crate::job::{Done, Exec};
use crate::process::Pidfd;
use crate::program::{Program, limits};
use crate::report::Report;
use crate::seccomp::LISTENING;
use crate::workload::Workload;
use crate::{bundle, console, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl;

/// Written before execve(2): an end of the pipe without it is the death of the process.
const ABOUT_TO_EXECUTE: u8 = b'+';
/// Lets the process execute: without a builder, which has died, it ends.
const GO: u8 = b'g';
/// The most that is read of what the process says, in bytes: it may be in the hands of others.
const LONGEST: u64 = 64 * 1024;
/// What a process ends with that could not execute, as a shell has it.
const NOT_EXECUTED: i32 = 127;

pub(crate) fn exec(job: Exec, report: &Report) -> Result<Done, JobError> {
    bundle::check_process(&job.process)?;
    let workload = Workload::new(&job.process)?;
    report.step("opening the container's init");
    let init = open_init(job.init)?;
    let init_pid = init.pid;
    let namespaces = join::differing(init.pid)?;
    let in_user_namespace = namespaces.contains(CloneFlags::CLONE_NEWUSER);
    let program = Program::new(
        job.process,
        workload,
        *job.container,
        in_user_namespace,
        "running",
    )?;
    limits::set_oom_score_of_exec(&program.process, init.pid)?;
    prctl::set_dumpable(false).doing(|| "become undumpable")?;

    report.step("entering the container");
    let (birth, maker_end) = announcement()?;
    let (outcome, outcome_writer) = io::pipe().doing(|| "make a pipe")?;
    let (go, mut go_writer) = io::pipe().doing(|| "make a pipe")?;
    let (console, console_sender) = UnixDatagram::pair().doing(|| "make a socket")?;
    let affinity = program.process.exec_cpu_affinity().as_ref();
    limits::set_affinity(affinity.and_then(|it| it.initial().as_deref()))?;
    let scheduler = program.process.scheduler().clone();
    let cgroup = Cgroup::of(init.pid)?;
    let birthplace = Birthplace::in_cgroup(&cgroup)?;
    let Some(maker) = birthplace.clone_into(CloneFlags::empty())? else {
        let inside = Inside {
            stdio: job.stdio,
            program,
            init,
            namespaces,
            cgroup,
            birthplace,
            console: console_sender,
        };
        let waiting = Waiting {
            go,
            outcome: outcome_writer,
        };
        make(inside, maker_end, waiting)
    };
    drop((maker_end, outcome_writer, go, console_sender));
    let child = birth.wait(&maker)?;

    report.step("waiting for the process to execute");
    let executed = limits::set_scheduler(scheduler.as_ref(), &child)
        .and_then(|()| {
            go_writer
                .write_all(&[GO])
                .doing(|| "let the process execute")
        })
        .and_then(|()| read_outcome(outcome, &child, &program, init_pid));
    executed.inspect_err(|_| {
        // It has reported and exits by itself, unless it hangs: then it must not stay.
        let _ = child.kill();
    })?;
    let console = take_console(&console)?;
    Ok(Done {
        process: Some(child),
        started: None,
        console,
        ..Done::default()
    })
}

/// What the process has left of its builder.
struct Waiting {
    go: PipeReader,
    outcome: PipeWriter,
}

/// In the maker: enters, becomes, and forks the process.
fn make(inside: Inside, maker: Maker, waiting: Waiting) -> ! {
    let kept = [
        maker.descriptor(),
        waiting.go.as_raw_fd(),
        waiting.outcome.as_raw_fd(),
    ];
    let entered = inside.enter().and_then(|mut program| {
        // What is open could be reached by the program, or lead out of the container
        // (CVE-2024-21626).
        sys::close_all_but(kept).doing(|| "close descriptors")?;
        program.become_user()?;
        Ok(program)
    });
    let program = match entered {
        Ok(program) => program,
        Err(error) => maker.fail(error),
    };
    maker.fork(CloneFlags::empty());
    waiting.execute(&program)
}

impl Waiting {
    /// In the process.
    fn execute(mut self, program: &Program) -> ! {
        let Err(error) = self.try_execute(program);
        let json = serde_json::to_vec(&error).unwrap_or_default();
        // The builder is the only reader; if it is gone, so is whoever asked.
        let _ = self.outcome.write_all(&json);
        sys::exit_now(NOT_EXECUTED)
    }

    fn try_execute(&mut self, program: &Program) -> Result<Infallible, JobError> {
        program.begin_session()?;
        program.listen(&mut self.outcome)?;
        self.go
            .read_exact(&mut [0])
            .doing(|| "wait for the builder")?;
        self.outcome
            .write_all(&[ABOUT_TO_EXECUTE])
            .doing(|| "report")?;
        program.execute()
    }
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
fn read_outcome(
    mut outcome: PipeReader,
    child: &Pidfd,
    program: &Program,
    init: i32,
) -> Result<(), JobError> {
    let mut first = [0];
    let read = outcome.read(&mut first).doing(|| "hear from the process")?;
    let mut bytes = first.get(..read).unwrap_or_default().to_vec();
    if bytes == [LISTENING] {
        program.hand_over_listener(child, init, &mut outcome)?;
        bytes.clear();
    }
    outcome
        .take(LONGEST)
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
