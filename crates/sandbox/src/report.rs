//! What a builder says on its way.
use std::io;
use std::os::fd::RawFd;

use crate::packet;

/// The first byte of a report that names the step a builder is at.
pub(crate) const STEP: u8 = b's';
/// The first byte of a report that is the result.
pub(crate) const RESULT: u8 = b'r';

/// The way from a builder to the zygote.
pub(crate) struct Report {
    socket: RawFd,
    tether: RawFd,
}

impl Report {
    /// `socket` leads to the zygote; `tether` is what [`Report::tether`] answers.
    pub(crate) fn new(socket: RawFd, tether: RawFd) -> Self {
        Self { socket, tether }
    }

    /// Says what is done next: completes "the builder died while …".
    pub(crate) fn step(&self, name: &str) {
        // Only a help in the error of a builder that dies: losing it is no failure of the job.
        let _ = packet::send(self.socket, &[&[STEP], name.as_bytes()], &[]);
    }

    /// What a process that a builder makes keeps open until it executes, to be found by if the
    /// builder dies: an end of a pipe that nobody reads or writes, since a container may get at it.
    pub(crate) fn tether(&self) -> RawFd {
        self.tether
    }

    /// Says what came of the job, once.
    pub(crate) fn result(&self, json: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
        packet::send(self.socket, &[&[RESULT], json], descriptors)
    }
}
