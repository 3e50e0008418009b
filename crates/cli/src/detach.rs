//! `husk run --detach`: a process of its own watches over the pod.
//!
//! It restarts containers, serves the shim's events and reads its log. The pod outlives it: output
//! goes to files, and `husk rm` needs only the record.
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _, stdout};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use husk_engine::pod::{Notice, Observer, Paths, Record};
use nix::errno::Errno;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::printer::Printer;

/// Starts the supervisor and waits until it says that the pod runs; prints the pod's id.
pub(crate) fn start(pod: &str) -> Result<ExitCode> {
    let own = env::current_exe().context("cannot find husk's own binary")?;
    let arguments = env::args_os()
        .skip(1)
        .filter(|a| a != "-d" && a != "--detach");
    let mut supervisor = Command::new(own)
        .args(arguments)
        .arg("--supervise")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the pod's supervisor")?;
    let mut id = String::new();
    if let Some(mut said) = supervisor.stdout.take() {
        said.read_to_string(&mut id)
            .context("cannot read from the pod's supervisor")?;
    }
    if id.is_empty() {
        let status = supervisor.wait()?;
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            // It has said why on stderr.
            Some(code) if code != 0 => return Ok(ExitCode::from(code)),
            Some(_) => bail!("pod {pod} was stopped before every container ran"),
            None => bail!("the supervisor of pod {pod} ended by {status}"),
        }
    }
    write!(stdout(), "{id}")?;
    Ok(ExitCode::SUCCESS)
}

/// So that Ctrl-C and a hang-up of the terminal do not reach the supervisor.
pub(crate) fn leave_the_terminal_s_session() -> Result<()> {
    match setsid() {
        // EPERM: a session leader already.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("cannot leave the terminal's session"),
    }
}

/// Tells what happens until the pod runs, then lets go of the terminal.
pub(crate) struct Reporter {
    printer: Printer,
    paths: Paths,
}

impl Reporter {
    pub(crate) fn new(printer: Printer, paths: &Paths) -> Self {
        Self {
            printer,
            paths: paths.clone(),
        }
    }

    /// Says the id on stdout, whose end is the sign that the pod runs; what follows goes to a
    /// file beside the containers' logs.
    fn ready(&self, record: &Record) -> Result<()> {
        writeln!(stdout(), "{}", record.id)?;
        let log = self.paths.log(&record.id, "supervisor");
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(&log)?;
        dup2_stderr(&log)?;
        Ok(())
    }
}

impl Observer for Reporter {
    fn notice(&self, notice: &Notice<'_>) {
        self.printer.notice(notice);
        if let Notice::Ready { record } = notice
            && let Err(error) = self.ready(record)
        {
            log::warn!("cannot let go of the terminal: {error}");
        }
    }
}
