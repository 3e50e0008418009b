//! The zygote itself: forks a builder for each job and forwards what it reports.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, fork};

use super::builder;
use super::protocol::{self, SentJob};
use crate::error::{JobError, Leftovers};
use crate::packet::{self, Packet};
use crate::process::Pidfd;
use crate::{cgroup, report, sys, workload};

/// Where the zygote keeps its socket.
const SOCKET: RawFd = 3;

/// A builder at work.
struct Builder {
    id: u64,
    process: Pidfd,
    reports: OwnedFd,
    task: Task,
}

/// What a builder is for.
enum Task {
    /// A job, kept in case the builder dies, and the inode of the builder's tether: who has that
    /// open descends from this builder.
    Job { job: OwnedFd, mark: u64 },
    /// The undoing of a job whose builder died of this.
    Undo(JobError),
}

/// Serves jobs until the shim is gone.
pub(super) fn run(parent: u32, socket: OwnedFd) -> ! {
    // A shim that has ended by now is why a zygote ends.
    if sys::die_with_parent(parent, Signal::SIGKILL).is_err() {
        sys::exit_now(0);
    }
    let status = match become_zygote(socket).and_then(|socket| serve(&socket)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(status)
}

/// Sheds what the shim had: descriptors, signal handlers, environment, working directory.
fn become_zygote(socket: OwnedFd) -> io::Result<OwnedFd> {
    prctl::set_name(c"husk-zygote")?;
    builder::report_panics();
    // The shim's logger is about to lose its descriptor: its lines would go to whatever gets that
    // number next, such as a container's output.
    log::set_max_level(log::LevelFilter::Off);

    let socket = sys::keep_only(socket, SOCKET)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    drop(null);

    workload::reset_signals();
    // A hook that does not read its standard input must not kill the builder that writes to it.
    sys::ignore(Signal::SIGPIPE)?;
    // libcontainer leaves the supplementary groups alone when a container names none.
    nix::unistd::setgroups(&[])?;
    umask(Mode::from_bits_truncate(0o022));
    // Containers see what is forked from here: the holder, for one. Besides, libcontainer obeys
    // LISTEN_FDS and others.
    sys::forget_how_it_was_executed(b"husk")?;
    nix::unistd::chdir("/")?;
    cgroup::look_around();
    Ok(socket)
}

fn serve(socket: &OwnedFd) -> io::Result<()> {
    let mut builders: Vec<Builder> = Vec::new();
    loop {
        let (job_came, ended) = wait_for_work(socket, &builders)?;
        for (at, _) in ended.iter().enumerate().filter(|(_, ended)| **ended).rev() {
            let builder = builders.swap_remove(at);
            if let Some(undoing) = finish(socket, builder, &builders) {
                builders.push(undoing);
            }
        }
        if !job_came {
            continue;
        }
        let job = match packet::receive(socket.as_raw_fd()) {
            Ok(packet) => SentJob::from_packet(packet)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // The shim has ended; it may have left results unread.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let id = job.id;
        match begin(socket, &builders, job) {
            Ok(builder) => builders.push(builder),
            Err(error) => {
                send_error(
                    socket,
                    id,
                    JobError::failed(format!("cannot fork a builder: {error}")),
                );
            }
        }
    }
}

/// Waits until a job came or a builder ended: whether the one, and for each builder the other.
fn wait_for_work(socket: &OwnedFd, builders: &[Builder]) -> io::Result<(bool, Vec<bool>)> {
    let builders = builders.iter().map(|builder| builder.process.fd.as_fd());
    let mut fds: Vec<PollFd<'_>> = std::iter::once(socket.as_fd())
        .chain(builders)
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    while let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
    Ok((ready.next().unwrap_or(false), ready.collect()))
}

fn begin(socket: &OwnedFd, builders: &[Builder], job: SentJob) -> io::Result<Builder> {
    let (reports, its) = report_sockets()?;
    let (_, tether) = io::pipe()?;
    let tether = OwnedFd::from(tether);
    let mark = nix::sys::stat::fstat(&tether)?.st_ino;
    match fork_builder(socket, builders, &reports)? {
        None => builder::run(job, &its, &tether),
        Some(process) => Ok(Builder {
            id: job.id,
            process,
            reports,
            task: Task::Job { job: job.job, mark },
        }),
    }
}

/// Forks a builder that undoes what another, which died of `error`, has left.
fn undo(
    socket: &OwnedFd,
    builders: &[Builder],
    id: u64,
    job: OwnedFd,
    mark: u64,
    error: JobError,
) -> io::Result<Builder> {
    let (reports, its) = report_sockets()?;
    match fork_builder(socket, builders, &reports)? {
        None => builder::undo(job, mark, &its),
        Some(process) => Ok(Builder {
            id,
            process,
            reports,
            task: Task::Undo(error),
        }),
    }
}

fn report_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Forks: `None` in the child, which keeps no descriptor of the zygote or of other builders.
fn fork_builder(
    socket: &OwnedFd,
    builders: &[Builder],
    reports: &OwnedFd,
) -> io::Result<Option<Pidfd>> {
    let zygote = std::process::id();
    // SAFETY: the zygote has one thread, so the child's memory is in no half-changed state.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(Pidfd::open(child.as_raw())?)),
        ForkResult::Child => {
            // An init that waits to be started would keep these open: the shim's end must see EOF.
            sys::close(socket.as_raw_fd());
            sys::close(reports.as_raw_fd());
            for builder in builders {
                sys::close(builder.reports.as_raw_fd());
                sys::close(builder.process.fd.as_raw_fd());
                if let Task::Job { job, .. } = &builder.task {
                    sys::close(job.as_raw_fd());
                }
            }
            // Without a zygote there is no one to report to.
            if sys::die_with_parent(zygote, Signal::SIGKILL).is_err() {
                sys::exit_now(1);
            }
            Ok(None)
        }
    }
}

/// Reaps a builder that has ended, which hands its children to the shim, and only then says what
/// it reported: the shim must be the parent by the time it hears of a process. Where nothing was
/// reported, comes back with the builder that undoes.
fn finish(socket: &OwnedFd, builder: Builder, others: &[Builder]) -> Option<Builder> {
    let Builder {
        id,
        process,
        reports,
        task,
    } = builder;
    let ended = match process.wait() {
        Ok(ended) => ended.to_string(),
        Err(error) => format!("could not be waited for ({error})"),
    };
    let (job, mark) = match task {
        Task::Job { job, mark } => (job, mark),
        Task::Undo(error) => {
            send_error(socket, id, error.leaving(leftovers(&reports)));
            return None;
        }
    };
    let mut step = "starting".to_owned();
    while let Ok(Packet { bytes, fds }) = packet::receive(reports.as_raw_fd()) {
        match bytes.split_first() {
            Some((&report::STEP, name)) => step = String::from_utf8_lossy(name).into_owned(),
            Some((&report::RESULT, result)) => {
                let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                send(socket, id, result, &fds);
                return None;
            }
            _ => {}
        }
    }
    let error = format!("the builder of this job {ended} while {step}; it reported no result");
    let error = JobError::failed(error);
    match undo(socket, others, id, job, mark, error.clone()) {
        Ok(undoing) => Some(undoing),
        Err(_) => {
            send_error(socket, id, error);
            None
        }
    }
}

/// What a builder that undid could not undo: it reports that as steps.
fn leftovers(reports: &OwnedFd) -> Leftovers {
    let mut left = Leftovers::default();
    while let Ok(Packet { bytes, .. }) = packet::receive(reports.as_raw_fd()) {
        if let Some((&report::STEP, leftover)) = bytes.split_first() {
            left.push(String::from_utf8_lossy(leftover).into_owned());
        }
    }
    left
}

fn send_error(socket: &OwnedFd, id: u64, error: JobError) {
    let (json, _) = protocol::encode_result(&Err(error));
    send(socket, id, &json, &[]);
}

/// Sends a result. Nobody is told of a failure: the shim is gone, and the next poll says so.
fn send(socket: &OwnedFd, id: u64, json: &[u8], fds: &[RawFd]) {
    let _ = packet::send(socket.as_raw_fd(), &[&id.to_le_bytes(), json], fds);
}
