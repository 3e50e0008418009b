//! The zygote itself: forks a builder for each job and forwards what it reports.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, fork};

use super::builder::{self, REPORTED_RESULT, REPORTED_STEP};
use super::protocol::{self, Packet, SentJob};
use super::{JobError, error};
use crate::process::Pidfd;
use crate::{sys, workload};

/// Where the zygote keeps its socket.
const SOCKET: RawFd = 3;

/// A builder at work.
struct Builder {
    id: u64,
    process: Pidfd,
    reports: OwnedFd,
}

/// Serves jobs until the shim is gone.
pub(super) fn run(parent: u32, socket: OwnedFd) -> ! {
    let status = match become_zygote(parent, socket).and_then(|socket| serve(&socket)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(status)
}

/// Sheds what the shim had: descriptors, signal handlers, environment, working directory.
fn become_zygote(parent: u32, socket: OwnedFd) -> io::Result<OwnedFd> {
    sys::set_name(c"husk-zygote");
    sys::die_with_parent(parent, Signal::SIGKILL)?;
    builder::report_panics();

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
    // libcontainer obeys LISTEN_FDS and others: nothing of the shim's environment is meant for it.
    sys::clear_environment()?;
    nix::unistd::chdir("/")?;
    Ok(socket)
}

fn serve(socket: &OwnedFd) -> io::Result<()> {
    let mut builders: Vec<Builder> = Vec::new();
    loop {
        let (job_came, ended) = wait_for_work(socket, &builders)?;
        let mut at = 0;
        builders.retain(|builder| {
            let keep = !ended.get(at).copied().unwrap_or(false);
            at += 1;
            keep || !forward(socket, builder)
        });
        if !job_came {
            continue;
        }
        match protocol::receive_packet(socket.as_raw_fd()) {
            Ok(packet) => {
                let job = SentJob::from_packet(packet)?;
                let id = job.id;
                match fork_builder(socket, &builders, job) {
                    Ok(builder) => builders.push(builder),
                    Err(error) => {
                        let error = JobError::failed(format!("cannot fork a builder: {error}"));
                        send_error(socket, id, error);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
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

fn fork_builder(socket: &OwnedFd, builders: &[Builder], job: SentJob) -> io::Result<Builder> {
    let (reports, its) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let zygote = std::process::id();
    // SAFETY: the zygote has one thread, so the child's memory is in no half-changed state.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // An init that waits to be started would keep these open: the shim's end must see EOF.
            sys::close(socket.as_raw_fd());
            sys::close(reports.as_raw_fd());
            for builder in builders {
                sys::close(builder.reports.as_raw_fd());
                sys::close(builder.process.fd.as_raw_fd());
            }
            builder::run(zygote, job, &its)
        }
        ForkResult::Parent { child } => {
            let process = Pidfd::open(child.as_raw())?;
            Ok(Builder {
                id: job.id,
                process,
                reports,
            })
        }
    }
}

/// Reaps a builder that has ended, which hands its children to the shim, and only then says what
/// it reported: the shim must be the parent by the time it hears of a process. Whether it has
/// ended.
fn forward(socket: &OwnedFd, builder: &Builder) -> bool {
    let ended = match builder.process.try_wait() {
        Ok(Some(ended)) => ended,
        Ok(None) => return false,
        Err(error) => {
            let error = JobError::failed(format!("cannot wait for a builder: {error}"));
            send_error(socket, builder.id, error);
            return true;
        }
    };
    let mut step = "starting".to_owned();
    while let Ok(Packet { bytes, fds }) = protocol::receive_packet(builder.reports.as_raw_fd()) {
        match bytes.split_first() {
            Some((&REPORTED_STEP, name)) => step = String::from_utf8_lossy(name).into_owned(),
            Some((&REPORTED_RESULT, result)) => {
                let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                send(socket, builder.id, result, &fds);
                return true;
            }
            _ => {}
        }
    }
    let error = format!("the builder of this job {ended} while {step}; it reported no result");
    send_error(socket, builder.id, JobError::failed(error));
    true
}

fn send_error(socket: &OwnedFd, id: u64, error: error::JobError) {
    let (json, _) = protocol::encode_result(&Err(error));
    send(socket, id, &json, &[]);
}

/// Sends a result. Nobody is told of a failure: the shim is gone, and the next poll says so.
fn send(socket: &OwnedFd, id: u64, json: &[u8], fds: &[RawFd]) {
    let _ = protocol::send_packet(socket.as_raw_fd(), &[&id.to_le_bytes(), json], fds);
}
