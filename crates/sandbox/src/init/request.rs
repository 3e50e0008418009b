//! What a process on its way into a container has its builder do, which may do what it may not.
//!
//! It asks with a byte, and goes on when there is one to read in answer. The process is init, or the
//! maker of init; what it asks for, it does while it is in nobody's hands.
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError};
use crate::hooks::OnNode;
use crate::id_map::IdMap;
use crate::process::Pidfd;
use crate::report::Report;

/// Written by init when all that is left is to execute.
pub(super) const READY: u8 = b'+';
const DONE: u8 = b'+';

/// What there is to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To be somebody in its new user namespace, and in its cgroup.
    Identity,
    /// All is mounted: the hooks that run on the node.
    Hooks,
}

impl Request {
    const ALL: [Self; 2] = [Self::Identity, Self::Hooks];

    fn byte(self) -> u8 {
        match self {
            Self::Identity => b'i',
            Self::Hooks => b'h',
        }
    }
}

/// The end of who asks.
pub(super) struct Asking {
    requests: PipeWriter,
    answers: PipeReader,
}

/// The builder's end, and what it needs to do what it is asked for.
pub(super) struct Answering {
    requests: PipeReader,
    answers: PipeWriter,
    able: Able,
}

/// What a builder can do for who asks.
pub(super) struct Able {
    /// Runs hooks, if there are any that run on the node.
    pub(super) on_node: Option<OnNode>,
    /// The ids of a new user namespace, if there is one.
    pub(super) id_map: Option<IdMap>,
    pub(super) cgroup: Cgroup,
}

pub(super) fn pair(able: Able) -> Result<(Answering, Asking), JobError> {
    let (requests, its_requests) = io::pipe().doing(|| "make a pipe")?;
    let (its_answers, answers) = io::pipe().doing(|| "make a pipe")?;
    let answering = Answering {
        requests,
        answers,
        able,
    };
    let asking = Asking {
        requests: its_requests,
        answers: its_answers,
    };
    Ok((answering, asking))
}

impl Asking {
    /// Waits until the builder has done it.
    pub(super) fn ask(&mut self, request: Request) -> Result<(), JobError> {
        let what = || "hear from the builder";
        self.requests.write_all(&[request.byte()]).doing(what)?;
        // An end of file: it has failed, and says so itself.
        self.answers.read_exact(&mut [0]).doing(what)
    }
}

impl Answering {
    /// Does what is asked for until there is nothing more, or nobody.
    pub(super) fn serve(mut self, process: &Pidfd, report: &Report) -> Result<(), JobError> {
        let mut byte = [0];
        while self.requests.read(&mut byte).doing(|| "hear from init")? == 1 {
            for request in Request::ALL {
                if [request.byte()] == byte {
                    self.answer(request, process, report)?;
                }
            }
            // If it has died, its outcome says so.
            let _ = self.answers.write_all(&[DONE]);
        }
        Ok(())
    }

    fn answer(
        &mut self,
        request: Request,
        process: &Pidfd,
        report: &Report,
    ) -> Result<(), JobError> {
        match request {
            Request::Identity => {
                report.step("mapping ids");
                self.able.cgroup.join(process.pid)?;
                self.able
                    .id_map
                    .as_ref()
                    .map_or(Ok(()), |map| map.write(process.pid))
            }
            Request::Hooks => {
                report.step("running hooks");
                let on_node = self.able.on_node.as_mut();
                on_node.map_or(Ok(()), |on_node| on_node.run(process.pid))
            }
        }
    }
}

/// Says that init is ready.
pub(super) fn say_ready(mut outcome: &PipeWriter) -> Result<(), JobError> {
    outcome
        .write_all(&[READY])
        .doing(|| "say that init is ready")
}
