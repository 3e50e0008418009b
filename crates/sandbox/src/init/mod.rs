//! Makes a container's init: one clone3(2) of the builder, and everything else in its child.
//!
//! What a life of `true` costs (create, start, wait, delete), with the mounts of containerd's default
//! spec, on cgroup v1 with nine hierarchies, measured by `examples/life` and strace in the same
//! minutes on two busy cores. CPU time in milliseconds, the client included:
//!
//! | | libcontainer 0.7 | here | crun 1.28 | runc 1.3 |
//! |---|---:|---:|---:|---:|
//! | without a seccomp profile | 8.5 | 4.3 | 5.7 | 18.7 |
//! | with containerd's profile | 19.7 | 4.9 | 6.8 | |
//! | an exec in it, with the profile | 13.4 | 2.1 | | |
//! | system calls of a life without | 2,040 | 560 | | |
//!
//! Of libcontainer's calls 315 are close, 258 statx, 184 fstatfs, 169 openat, 137 newfstatat, 130
//! read, 111 readlink and 101 openat2: it resolves the path of each mount and each file of /proc
//! anew, in a procfs of its own making, reads mountinfo and the node's cgroups, and compiles the
//! profile in every process. Here a path is resolved once, by the kernel ([`root`]), the intermediate
//! process is the builder itself, a compiled profile is kept ([`crate::seccomp`]), and of the 560
//! calls that are left the most are of cgroups, capabilities and mounts. Most of the time is now the
//! kernel's: new namespaces, the first touch of memory after two forks, cgroups, mounts and their end.
//! What is not done is in [`crate::unsupported`].
//!
//! Where the pid namespace is another's, whose processes would see the child enter, one more fork keeps
//! it from them; and where the user namespace is another's, one more makes the others from within it.
//! See [`child`].
//!
//! The child sends one byte when it is ready to execute, or a [`JobError`]; it then waits at a fifo
//! in the shim's directory for the container. The same pipe tells the shim that it has executed, by
//! being closed, or why it could not.
mod child;
mod namespaces;
mod request;
mod root;

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{chdir, mkfifo};
use oci_spec::runtime::{Process, Spec};

use self::child::{Surroundings, Waiting};
use self::namespaces::Wanted;
use self::request::Able;
use crate::birth::{Birthplace, announcement};
use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError};
use crate::hooks::{Hooks, Kind, OnNode};
use crate::job::{Create, Done, Inherited};
use crate::process::Pidfd;
use crate::program::{Program, limits};
use crate::report::Report;
use crate::seccomp::LISTENING;
use crate::workload::Workload;
use crate::{bundle, console};

/// In the shim's directory for the container: the fifo that init waits at.
pub(crate) const START: &str = "start";
/// The most that is read of what init says, in bytes: it may be in the hands of others.
const LONGEST: u64 = 64 * 1024;

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
    let container = Inherited::of(&job.id, &job.dir, spec);
    let in_user_namespace = bundle::has_user_namespace(linux);
    let program = Program::new(process, workload, container, in_user_namespace, "creating")?;
    let terminal = program.process.terminal().unwrap_or(false);
    let stdio = std::mem::take(&mut job.stdio);
    if !terminal {
        console::own_stdio(&stdio, bundle::host_user(spec, &program.process))?;
    }
    let start = make_start(&job.dir)?;
    let (outcome, outcome_writer) = io::pipe().doing(|| "make a pipe")?;
    let (console, console_sender) = match terminal {
        true => UnixDatagram::pair().map(|(ours, its)| (Some(ours), Some(its))),
        false => Ok((None, None)),
    }
    .doing(|| "make a socket")?;

    let hooks = |kind| Hooks::of(spec, kind, &job.id, &job.bundle);
    let on_node: Vec<_> = [Kind::Prestart, Kind::CreateRuntime]
        .into_iter()
        .filter_map(hooks)
        .collect();
    let on_node = match on_node.as_slice() {
        [] => None,
        // While this process is in the node's namespaces.
        on_node => Some(OnNode::fork(on_node)?),
    };
    let wanted = Wanted::open(linux)?;
    let id_map = wanted.id_map(linux)?;
    let (answering, asking) = match (on_node, id_map) {
        (None, None) => (None, None),
        (on_node, id_map) => {
            let (answering, asking) = request::pair(Able {
                on_node,
                id_map,
                cgroup: cgroup.clone(),
            })?;
            (Some(answering), Some(asking))
        }
    };
    report.step("opening what is to be mounted");
    let mut sources = root::Sources::prepare(spec, linux)?;
    if in_user_namespace {
        limits::raise(&program.process)?;
        chdir(&job.rootfs).doing(|| format!("enter {}", job.rootfs.display()))?;
    }

    report.step("joining namespaces");
    wanted.join(linux)?;
    sources.prepare_queues(spec, linux)?;
    limits::set_oom_score(&program.process)?;
    // What is on its way into the container is the shim's program, with the shim's memory.
    prctl::set_dumpable(false).doing(|| "become undumpable")?;

    report.step("cloning init");
    let birthplace = Birthplace::in_cgroup(cgroup)?;
    let scheduler = program.process.scheduler().clone();
    let joins_pids = wanted.pid_namespace().is_some();
    let joins_users = wanted.joins_user_namespace();
    let (birth, maker) = if joins_pids || joins_users {
        let (birth, maker) = announcement()?;
        (Some(birth), Some(maker))
    } else {
        (None, None)
    };
    let made_by_clone = if joins_users {
        CloneFlags::empty()
    } else {
        wanted.new
    };
    let Some(cloned) = birthplace.clone_into(made_by_clone)? else {
        drop(outcome);
        drop(console);
        drop(answering);
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
            sources,
            asking,
            hooks: hooks(Kind::CreateContainer),
        };
        let waiting = Waiting {
            program,
            outcome: outcome_writer,
            hooks: hooks(Kind::StartContainer),
        };
        match maker {
            None => child::live(surroundings, waiting, start, report.tether()),
            Some(maker) if joins_pids => {
                child::make(surroundings, waiting, start, report.tether(), maker)
            }
            Some(maker) => {
                let tether = report.tether();
                child::make_in_user_namespace(surroundings, waiting, start, tether, maker)
            }
        }
    };
    drop((maker, outcome_writer, console_sender, asking, sources));
    if in_user_namespace {
        // Not in what may have to be unmounted.
        chdir("/").doing(|| "leave the root filesystem")?;
    }
    if let Some(answering) = answering {
        answering.serve(&cloned, report)?;
    }
    let init = match birth {
        Some(birth) => birth.wait(&cloned)?,
        None => cloned,
    };

    report.step("waiting for init to be ready");
    let outcome = read_outcome(outcome, &init, &program)?;
    wanted.check_joined_map(linux, init.pid)?;
    limits::set_scheduler(scheduler.as_ref(), &init)?;
    let console = console
        .map(|socket| console::receive_fd(socket.as_raw_fd()))
        .transpose()
        .doing(|| "take the terminal of init")?;
    Ok(Done {
        process: Some(init),
        started: Some(OwnedFd::from(outcome)),
        console,
        ..Done::default()
    })
}

/// Lets the init of a container that was created execute: the other end of [`crate::job::Create`].
///
/// # Errors
/// `NotFound`: there is no such init; `ENXIO`: it has executed already, or ended.
pub fn start(dir: &Path) -> io::Result<()> {
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
fn read_outcome(
    mut outcome: PipeReader,
    init: &Pidfd,
    program: &Program,
) -> Result<PipeReader, JobError> {
    let mut first = [0];
    let mut read = outcome.read(&mut first).doing(|| "hear from init")?;
    if read == 1 && first == [LISTENING] {
        program.hand_over_listener(init, init.pid, &mut outcome)?;
        read = outcome.read(&mut first).doing(|| "hear from init")?;
    }
    if read == 1 && first == [request::READY] {
        return Ok(outcome);
    }
    let mut json = first.get(..read).unwrap_or_default().to_vec();
    outcome
        .take(LONGEST)
        .read_to_end(&mut json)
        .doing(|| "hear from init")?;
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
