//! Pipes, for as long as data is in flight.
use std::os::fd::OwnedFd;

use rustix::io;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// How many empty pipes are kept for the next data.
const KEPT: usize = 4;

/// How much a pipe may hold, in bytes, where the kernel allows it: an unprivileged user's pipes count
/// against fs.pipe-user-pages-soft.
const SIZE: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) out: OwnedFd,
    pub(crate) into: OwnedFd,
}

#[derive(Debug, Default)]
pub(crate) struct Pipes(Vec<Pipe>);

impl Pipes {
    pub(crate) fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller one does, too.
        let _ = fcntl_setpipe_size(&into, SIZE);
        Ok(Pipe { out, into })
    }

    /// Takes back a pipe that is empty.
    pub(crate) fn give(&mut self, pipe: Pipe) {
        if self.0.len() < KEPT {
            self.0.push(pipe);
        }
    }
}
