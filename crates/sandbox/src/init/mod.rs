//! Makes a container's init: one clone3(2) of the builder, and everything else in its child.
//!
//! What a life of `true` costs (create, start, wait, delete; runc's default mounts, cgroup v1 with
//! twelve hierarchies, 2 busy cores), in CPU time and system calls:
//!
//! | | libcontainer 0.7 | here |
//! |---|---|---|
//! | x | x | x |
//!
//! libcontainer resolves every path anew in a /proc of its own making, reads mountinfo and the
//! cgroup files of the node, and forks an intermediate process; here a path is resolved once by the
//! kernel ([`root`]), and the intermediate is the builder itself. What it does not do is in
//! [`by_libcontainer::needs_it`](crate::by_libcontainer::needs_it).
//!
//! The child sends one byte when it is ready to execute, or a [`JobError`]; it then waits at a fifo
//! in the shim's directory for the container. The same pipe tells the shim that it has executed, by
//! being closed, or why it could not.
mod child;
mod namespaces;
mod root;

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use oci_spec::runtime::{Process, Spec};

use self::child::{Surroundings, Waiting};
use self::namespaces::Wanted;
use crate::birth::Birthplace;
use crate::cgroup::Cgroup;
use crate::process::Pidfd;
use crate::program::{Program, limits};
use crate::workload::Workload;
use crate::zygote::{Create, Doing, Done, JobError, Report};
use crate::{bundle, console};

/// In the shim's directory for the container: the fifo that init waits at.
pub(crate) const START: &str = "start";
/// Written by init when all that is left is to execute.
const READY: u8 = b'+';

/// Makes the init of a container whose root filesystem is mounted, in its cgroup.
pub(crate) fn make(
    job: &mut Create,
    spec: &Spec,
    process: Process,
    workload: Workload,
    cgroup: &Cgroup,
    report: &Report,
) -> Result<Done, JobError> {
    let linux = bundle::linux(spec)?;
    let program = Program::new(process, workload, linux.seccomp().as_ref())?;
    let terminal = program.process.terminal().unwrap_or(false);
    let stdio = std::mem::take(&mut job.stdio);
    if !terminal {
        console::own_stdio(&stdio, Some(program.process.user().uid()))?;
    }
    let start = make_start(&job.dir)?;
    let (outcome, outcome_writer) = io::pipe().doing(|| "make a pipe")?;
    let (console, console_sender) = match terminal {
        true => UnixDatagram::pair().map(|(ours, its)| (Some(ours), Some(its))),
        false => Ok((None, None)),
    }
    .doing(|| "make a socket")?;

    report.step("joining namespaces");
    let wanted = Wanted::open(linux)?;
    wanted.join(linux)?;
    limits::set_oom_score(&program.process)?;
    // What is on its way into the container is the shim's program, with the shim's memory.
    prctl::set_dumpable(false).doing(|| "become undumpable")?;

    report.step("cloning init");
    let birthplace = Birthplace::in_cgroup(cgroup)?;
    let Some(init) = birthplace.clone_into(wanted.new)? else {
        drop(outcome);
        drop(console);
        let surroundings = Surroundings {
            spec,
            linux,
            rootfs: &job.rootfs,
            cgroup,
            birthplace,
            wanted,
            loopback: job.loopback,
            stdio,
            console: console_sender,
        };
        let waiting = Waiting {
            program,
            outcome: outcome_writer,
        };
        child::live(surroundings, waiting, start, report.descriptor())
    };
    drop(outcome_writer);
    drop(console_sender);

    report.step("waiting for init to be ready");
    let outcome = read_outcome(outcome, &init)?;
    let console = console
        .map(|socket| console::receive_fd(socket.as_raw_fd()))
        .transpose()
        .doing(|| "take the terminal of init")?;
    Ok(Done {
        process: Some(init),
        started: Some(OwnedFd::from(outcome)),
        console,
    })
}

/// Lets init execute.
///
/// # Errors
/// `NotFound`: there is no such init; `ENXIO`: it has executed already, or ended.
pub(crate) fn start(dir: &Path) -> io::Result<()> {
    let mut start = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(dir.join(START))?;
    start.write_all(b"s")
}

/// Makes the fifo, and opens both of its ends: whoever reads from it must not see an end of file.
fn make_start(dir: &Path) -> Result<File, JobError> {
    let path = dir.join(START);
    let what = || format!("make the fifo {}", path.display());
    mkfifo(&path, Mode::from_bits_truncate(0o600)).doing(what)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .doing(what)
}

/// Waits until init is ready: comes back with the pipe that says whether it has executed.
fn read_outcome(mut outcome: PipeReader, init: &Pidfd) -> Result<PipeReader, JobError> {
    let mut first = [0];
    let read = outcome.read(&mut first).doing(|| "hear from init")?;
    if read == 1 && first == [READY] {
        return Ok(outcome);
    }
    let mut json = first.get(..read).unwrap_or_default().to_vec();
    outcome.read_to_end(&mut json).doing(|| "hear from init")?;
    let ended = init.wait().doing(|| "wait for init")?;
    if json.is_empty() {
        return Err(JobError::failed(format!(
            "init {ended} before it could execute: see whether its memory limit suffices"
        )));
    }
    Err(serde_json::from_slice(&json).unwrap_or_else(|error| {
        JobError::failed(format!("init failed and did not say why: {error}"))
    }))
}
