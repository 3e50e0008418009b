//! One hook, from its fork to its end.
use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::Hook;

use super::Confine;
use crate::process::Pidfd;
use crate::{sys, workload};

/// How much of a hook's output is kept for the error, in bytes: its end.
const OUTPUT: usize = 1024;
/// How much is read at once, in bytes.
const PART: usize = 4096;
/// What a pipe holds, in bytes; see pipe(7).
const PIPE: usize = 65536;
/// How long a killed hook may take to die. One that is someone else's by now may not.
const DEATH: Duration = Duration::from_secs(1);

/// Why a hook counts as failed. It completes "the hook …".
#[derive(Debug)]
pub(super) enum Failure {
    NotExecuted(io::Error),
    NotWaitedFor(io::Error),
    Ended(ExitStatus, String),
    TooLong(Duration, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = match self {
            Self::NotExecuted(error) => return write!(f, "cannot be executed: {error}"),
            Self::NotWaitedFor(error) => return write!(f, "cannot be waited for: {error}"),
            Self::Ended(status, output) => {
                match (status.code(), status.signal()) {
                    (Some(code), _) => write!(f, "exited with status {code}")?,
                    (None, Some(signal)) => write!(f, "was killed by signal {signal}")?,
                    (None, None) => write!(f, "ended: {status}")?,
                }
                output
            }
            Self::TooLong(limit, output) => {
                write!(f, "did not end within {limit:?} and was killed")?;
                output
            }
        };
        match output.as_str() {
            "" => Ok(()),
            output => write!(f, "; the end of its output: {output:?}"),
        }
    }
}

/// Runs a hook to its end. `confine` is the last that its process does before it is the hook.
pub(super) fn run(
    hook: &Hook,
    state: &[u8],
    directory: Option<&Path>,
    limit: Option<Duration>,
    confine: &Confine,
) -> Result<(), Failure> {
    let mut command = command(hook, directory);
    let confine = Arc::clone(confine);
    // SAFETY: system calls alone, and what `confine` does: where that needs memory, it is called in
    // a process with one thread.
    unsafe {
        command.pre_exec(move || {
            sys::close_on_exec_from(3)?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            workload::reset_signals();
            confine()
        });
    }
    Running::begin(command, state)
        .map_err(Failure::NotExecuted)?
        .wait(limit)
}

fn command(hook: &Hook, directory: Option<&Path>) -> Command {
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook
        .args()
        .iter()
        .flatten()
        .collect::<Vec<_>>()
        .split_first()
    {
        command.arg0(name).args(args);
    }
    command.env_clear().process_group(0);
    let env = hook.env().iter().flatten();
    command.envs(env.filter_map(|entry| entry.split_once('=')));
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    command
}

struct Running<'a> {
    child: Child,
    process: Pidfd,
    /// What of the state it was not told yet, and where that goes.
    state: &'a [u8],
    teller: Option<PipeWriter>,
    /// The end that the hook reads the state from: while this process has it too, to write into a
    /// pipe that the hook has closed is no SIGPIPE.
    _told: PipeReader,
    heard: Option<PipeReader>,
    /// The end of what it said.
    output: Vec<u8>,
}

impl<'a> Running<'a> {
    fn begin(mut command: Command, state: &'a [u8]) -> io::Result<Self> {
        let (told, teller) = io::pipe()?;
        let (heard, says) = io::pipe()?;
        for fd in [heard.as_fd(), teller.as_fd()] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        command
            .stdin(told.try_clone()?)
            .stdout(says.try_clone()?)
            .stderr(says);
        let child = command.spawn()?;
        let process = Pidfd::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
        Ok(Self {
            child,
            process,
            state,
            teller: Some(teller),
            _told: told,
            heard: Some(heard),
            output: Vec::new(),
        })
    }

    fn wait(mut self, limit: Option<Duration>) -> Result<(), Failure> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        if !self.attend(deadline).map_err(Failure::NotWaitedFor)? {
            self.kill();
            // It may have become somebody whom this process may not kill: then it is left.
            let dead = self.attend(Instant::now().checked_add(DEATH));
            if dead.unwrap_or(false) {
                let _ = self.child.wait();
            }
            return Err(Failure::TooLong(limit.unwrap_or_default(), self.said()));
        }
        match self.child.wait().map_err(Failure::NotWaitedFor)? {
            status if status.success() => Ok(()),
            status => Err(Failure::Ended(status, self.said())),
        }
    }

    /// Tells and listens until the hook has ended: whether it did before the deadline. What it has
    /// forked may keep its pipes open for as long as it likes.
    fn attend(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            self.tell();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // poll(2) counts milliseconds: not one too few.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = vec![PollFd::new(self.process.fd.as_fd(), PollFlags::POLLIN)];
            let heard = self.heard.as_ref();
            fds.extend(heard.map(|heard| PollFd::new(heard.as_fd(), PollFlags::POLLIN)));
            let teller = self.teller.as_ref();
            fds.extend(teller.map(|teller| PollFd::new(teller.as_fd(), PollFlags::POLLOUT)));
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => continue,
                answer => answer?,
            };
            let ended = fds.first().and_then(PollFd::any).unwrap_or(false);
            self.listen();
            if ended || left.is_some_and(|left| left.is_zero()) {
                return Ok(ended);
            }
        }
    }

    /// Writes as much of the state as there is room for, and says when that was all.
    fn tell(&mut self) {
        let Some(teller) = &mut self.teller else {
            return;
        };
        match teller.write(self.state) {
            Ok(written) => self.state = self.state.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.state = &[],
        }
        if self.state.is_empty() {
            self.teller = None;
        }
    }

    /// Reads some of what was said, and keeps its end.
    fn listen(&mut self) {
        let Some(heard) = &mut self.heard else { return };
        let mut part = [0; PART];
        match heard.read(&mut part) {
            Ok(read) if read > 0 => {
                let said = part.get(..read).unwrap_or_default();
                self.output.extend_from_slice(said);
                let surplus = self.output.len().saturating_sub(OUTPUT);
                self.output.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody can say more.
            _ => self.heard = None,
        }
    }

    /// The whole group: a shell that waits for its command is not enough.
    fn kill(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // ESRCH: it has just ended.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// The end of its output. What it said last may still be in the pipe, which holds no more than
    /// this.
    fn said(&mut self) -> String {
        for _ in 0..PIPE / PART {
            self.listen();
        }
        String::from_utf8_lossy(&self.output).trim().to_owned()
    }
}
