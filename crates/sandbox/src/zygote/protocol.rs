//! What travels between the shim, the zygote and the builders.
//!
//! Every message is one packet of a `SOCK_SEQPACKET` socket. A job is eight bytes of id, one byte
//! that says which descriptors came along, and as the first descriptor a memfd with the job as
//! JSON: so a job may be of any size, and the zygote does not parse it. A result is eight bytes of
//! id and what the builder reported: JSON, and the descriptors it names.
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::Finished;
use crate::error::{JobError, JobErrorKind};
use crate::job::{Done, Job, Stdio};
use crate::packet::{self, Packet};
use crate::process::Pidfd;

/// A result is one packet, a line of JSON, and an error message is cut to fit.
const LONGEST_ERROR: usize = packet::LONGEST / 4;
const ID: usize = size_of::<u64>();

/// A job as it arrives in the zygote.
pub(super) struct SentJob {
    pub(super) id: u64,
    pub(super) job: OwnedFd,
    stdio: Stdio,
}

/// What of a [`Done`] is not a descriptor.
#[derive(Serialize, Deserialize)]
struct Made {
    pid: Option<i32>,
    started: bool,
    console: bool,
    control: bool,
}

pub(super) fn send_job(socket: RawFd, id: u64, job: &Job, stdio: &Stdio) -> io::Result<()> {
    let mut file = File::from(memfd_create(c"husk-job", MFdFlags::MFD_CLOEXEC)?);
    serde_json::to_writer(io::BufWriter::new(&file), job)?;
    file.flush()?;
    let mut fds = vec![file.as_raw_fd()];
    let mut present = 0u8;
    for (bit, fd) in [&stdio.stdin, &stdio.stdout, &stdio.stderr]
        .into_iter()
        .enumerate()
    {
        if let Some(fd) = fd {
            present |= 1 << bit;
            fds.push(fd.as_raw_fd());
        }
    }
    packet::send(socket, &[&id.to_le_bytes(), &[present]], &fds)
}

impl SentJob {
    pub(super) fn from_packet(packet: Packet) -> io::Result<Self> {
        let malformed = || io::Error::other("a job's packet is malformed");
        let (id, present) = split_id(&packet.bytes).ok_or_else(malformed)?;
        let present = *present.first().ok_or_else(malformed)?;
        let mut fds = packet.fds.into_iter();
        let job = fds.next().ok_or_else(malformed)?;
        let mut next = |bit: u8| {
            if present & (1 << bit) == 0 {
                None
            } else {
                fds.next()
            }
        };
        let stdio = Stdio {
            stdin: next(0),
            stdout: next(1),
            stderr: next(2),
        };
        Ok(Self { id, job, stdio })
    }

    /// Reads the job itself; only the builder does.
    pub(super) fn read(self) -> io::Result<Job> {
        let mut job = read_job(self.job)?;
        job.give_stdio(self.stdio);
        Ok(job)
    }
}

/// Reads a job without its descriptors.
pub(super) fn read_job(job: OwnedFd) -> io::Result<Job> {
    let mut file = File::from(job);
    // The writer's offset, and that of whoever read it before, are shared.
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// A result as a builder reports it: JSON and descriptors.
pub(super) fn encode_result(result: &Result<Done, JobError>) -> (Vec<u8>, Vec<RawFd>) {
    let made = match result {
        Ok(done) => Ok(Made {
            pid: done.process.as_ref().map(|process| process.pid),
            started: done.started.is_some(),
            console: done.console.is_some(),
            control: done.control.is_some(),
        }),
        Err(error) => {
            let mut error = error.clone();
            error
                .message
                .truncate(error.message.floor_char_boundary(LONGEST_ERROR));
            Err(error)
        }
    };
    let fds = result.as_ref().map_or_else(
        |_| Vec::new(),
        |done| {
            let process = done.process.as_ref().map(|process| process.fd.as_raw_fd());
            let started = done.started.as_ref().map(AsRawFd::as_raw_fd);
            let console = done.console.as_ref().map(AsRawFd::as_raw_fd);
            let control = done.control.as_ref().map(AsRawFd::as_raw_fd);
            [process, started, console, control]
                .into_iter()
                .flatten()
                .collect()
        },
    );
    // A struct of an integer and three booleans, or of two strings: it always serializes.
    (serde_json::to_vec(&made).unwrap_or_default(), fds)
}

pub(super) fn receive_result(socket: RawFd) -> io::Result<Finished> {
    let packet = packet::receive(socket)?;
    let (id, json) = split_id(&packet.bytes)
        .ok_or_else(|| io::Error::other("a result's packet is malformed"))?;
    let mut fds = packet.fds.into_iter();
    let result = serde_json::from_slice::<Result<Made, JobError>>(json)
        .map_err(|error| JobError {
            kind: JobErrorKind::Failed,
            message: format!("a builder's report cannot be read: {error}"),
        })
        .flatten()
        .map(|made| Done {
            process: made
                .pid
                .and_then(|pid| fds.next().map(|fd| Pidfd { pid, fd })),
            started: made.started.then(|| fds.next()).flatten(),
            console: made.console.then(|| fds.next()).flatten(),
            control: made.control.then(|| fds.next()).flatten(),
        });
    Ok((id, result))
}

fn split_id(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (id, rest) = bytes.split_at_checked(ID)?;
    Some((u64::from_le_bytes(id.try_into().ok()?), rest))
}
