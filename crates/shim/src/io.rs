//! A process's stdin, stdout, stderr or terminal, copied to and from where containerd wants them.
//!
//! Each fifo is held open at both ends, so that a containerd restart causes neither EPIPE nor EOF
//! (contract 40): stdin by `containerd_shim`'s `IoTasks`, output by [`fifo`]. What is left is
//! drained for at most 10 s (contract 41).
mod binary;
mod fifo;
mod target;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use containerd_shim::asynchronous::io::{IoTasks, Pty};
use husk_sandbox::job;
use husk_sandbox::terminal;
use log::{debug, warn};
use tokio::io::AsyncRead;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::binary::Logger;
use self::fifo::{Fifo, Gauge};
pub(crate) use self::target::Stdio;
use self::target::Target;
use crate::failure::Failure;
use crate::sync::lock;

/// How long output may still be copied once the process is to be deleted (contract 41).
const DRAIN: Duration = Duration::from_secs(10);

/// How long an end is kept back for output that is unread, and how often to look.
const READ_OUT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// The I/O of one process.
#[derive(Default)]
pub(crate) struct Io {
    stdio: Stdio,
    fifos: IoTasks,
    /// Copies of output.
    copies: Mutex<Vec<JoinHandle<()>>>,
    /// Fifos for output, by path, until the copies begin.
    outputs: Mutex<Vec<(String, Fifo)>>,
    /// Of the fifos that output goes to.
    gauges: Mutex<Vec<Gauge>>,
    console: Mutex<Option<Pty>>,
    logger: Mutex<Option<Logger>>,
}

/// The shim's ends of a process's pipes, until the copies begin.
#[derive(Default)]
pub(crate) struct Ends {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
}

impl Io {
    pub(crate) fn new(stdio: Stdio) -> Self {
        Self {
            stdio,
            ..Self::default()
        }
    }

    /// What containerd asked for.
    pub(crate) fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// Makes the process's ends. With a terminal there are none: the zygote makes it.
    ///
    /// A logging binary is started here, so that it is ready before the process is.
    pub(crate) async fn open(
        &self,
        start_logger: impl AsyncFnOnce(&binary::Binary) -> Result<Logger, Failure>,
    ) -> Result<(job::Stdio, Ends), Failure> {
        let stdout = Target::parse(&self.stdio.stdout)?;
        let stderr = Target::parse(&self.stdio.stderr)?;
        let mut theirs = job::Stdio::default();
        let mut ours = Ends::default();
        if let Target::Binary(binary) = &stdout {
            let mut logger = start_logger(binary).await?;
            if !self.stdio.terminal {
                theirs.stdout = logger.stdout.take();
                theirs.stderr = logger.stderr.take();
            }
            *lock(&self.logger) = Some(logger);
        }
        let outputs = if self.stdio.terminal {
            [Some(&stdout), None]
        } else {
            [Some(&stdout), Some(&stderr)]
        };
        for target in outputs.into_iter().flatten() {
            if let Target::Fifo(path) = target {
                let fifo = Fifo::open(path)
                    .await
                    .map_err(|error| cannot_write(path, &error))?;
                lock(&self.outputs).push((path.clone(), fifo));
            }
        }
        if self.stdio.terminal {
            return Ok((theirs, ours));
        }
        if matches!(Target::parse(&self.stdio.stdin)?, Target::Fifo(_)) {
            let (read, write) = pipe_ends()?;
            (theirs.stdin, ours.stdin) = (Some(read.into()), Some(write));
        }
        if matches!(stdout, Target::Fifo(_) | Target::File(_)) {
            let (read, write) = pipe_ends()?;
            (theirs.stdout, ours.stdout) = (Some(write.into()), Some(read));
        }
        if matches!(stderr, Target::Fifo(_) | Target::File(_)) {
            let (read, write) = pipe_ends()?;
            (theirs.stderr, ours.stderr) = (Some(write.into()), Some(read));
        }
        Ok((theirs, ours))
    }

    /// Begins to copy, once the process is made.
    pub(crate) fn start(&self, ends: Ends, console: Option<OwnedFd>) -> Result<(), Failure> {
        if let Some(console) = console {
            return self.start_console(console);
        }
        if let Some(end) = ends.stdin {
            let to = pipe::Sender::from_owned_fd(end.into()).map_err(failed("watch a pipe"))?;
            self.copy_in(to)?;
        }
        for (end, uri) in [
            (ends.stdout, &self.stdio.stdout),
            (ends.stderr, &self.stdio.stderr),
        ] {
            if let Some(end) = end {
                let from = pipe::Receiver::from_owned_fd(end.into());
                self.copy_out(from.map_err(failed("watch a pipe"))?, uri)?;
            }
        }
        Ok(())
    }

    fn start_console(&self, console: OwnedFd) -> Result<(), Failure> {
        let pty = Pty::new(console.into())
            .map_err(|error| Failure::internal(format!("cannot watch the terminal: {error}")))?;
        *lock(&self.console) = Some(pty.clone());
        if !self.stdio.stdin.is_empty() {
            self.copy_in(pty.clone())?;
        }
        let logger = lock(&self.logger)
            .as_mut()
            .and_then(|logger| logger.stdout.take());
        match logger {
            None => self.copy_out(pty, &self.stdio.stdout),
            Some(end) => {
                let to = pipe::Sender::from_owned_fd(end).map_err(failed("watch a pipe"))?;
                self.copy(pty, to);
                Ok(())
            }
        }
    }

    fn copy_in<W>(&self, to: W) -> Result<(), Failure>
    where
        W: tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let Target::Fifo(path) = Target::parse(&self.stdio.stdin)? else {
            return Ok(());
        };
        self.fifos
            .copy_from_fifo(&path, to)
            .map_err(|error| Failure::internal(format!("cannot read stdin {path}: {error}")))
    }

    fn copy_out<R>(&self, from: R, uri: &str) -> Result<(), Failure>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        match Target::parse(uri)? {
            // Nobody wants it, but a terminal that is not read stops its process.
            Target::Null | Target::Binary(_) => {
                self.copy(from, tokio::io::sink());
                Ok(())
            }
            Target::Fifo(path) => {
                let mut outputs = lock(&self.outputs);
                let at = outputs.iter().position(|(opened, _)| *opened == path);
                let (_, fifo) = outputs.swap_remove(at.ok_or_else(|| {
                    Failure::internal(format!("output to {path} was not opened"))
                })?);
                lock(&self.gauges).push(fifo.gauge());
                lock(&self.copies).push(tokio::spawn(fifo.copy(from)));
                Ok(())
            }
            Target::File(path) => {
                let file = append_to(Path::new(&path))
                    .map_err(|error| Failure::invalid(format!("cannot open {path}: {error}")))?;
                self.copy(from, tokio::fs::File::from_std(file));
                Ok(())
            }
        }
    }

    fn copy<R, W>(&self, mut from: R, mut to: W)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let copy = tokio::spawn(async move {
            // A terminal that hangs up answers EIO: that is how it ends (contract 42).
            if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
                debug!("output ended: {error}");
            }
            let _ = tokio::io::AsyncWriteExt::flush(&mut to).await;
        });
        lock(&self.copies).push(copy);
    }

    /// Resizes the terminal.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Result<(), Failure> {
        match &*lock(&self.console) {
            None => Err(Failure::precondition("the process has no terminal")),
            Some(pty) => {
                terminal::resize(pty.as_fd(), width, height).map_err(failed("resize the terminal"))
            }
        }
    }

    /// Closes stdin once what was written is read; may come before the copy began (contract 41).
    pub(crate) fn close_stdin(&self) {
        self.fifos.close_input();
    }

    /// Waits until what the process has written is read, or a second has passed.
    ///
    /// Before its end is told: containerd's clients close their ends of the fifos as soon as they
    /// hear of it, whether or not they have read what is in them.
    pub(crate) async fn read_out(&self) {
        let deadline = Instant::now() + READ_OUT;
        let mut was_read = false;
        while Instant::now() < deadline {
            let unread: Vec<_> = lock(&self.gauges)
                .iter()
                .filter_map(Gauge::has_unread)
                .collect();
            let is_read = !unread.contains(&true);
            // A process that was left in the background may keep the copy going. Between two looks
            // whatever had been written by the end has been copied.
            if unread.is_empty() || is_read && was_read {
                return;
            }
            was_read = is_read;
            sleep(LOOK).await;
        }
    }

    /// Lets output flow for at most 10 s more, then lets go of everything.
    pub(crate) async fn drain(&self) {
        self.drain_within(DRAIN).await;
    }

    async fn drain_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let copies = std::mem::take(&mut *lock(&self.copies));
        let files = async {
            for mut copy in copies {
                if timeout_at(deadline, &mut copy).await.is_err() {
                    warn!("output is still written after {limit:?}: no longer copied");
                    copy.abort();
                }
            }
        };
        tokio::join!(self.fifos.shutdown(), files);
        self.release(deadline).await;
    }

    /// Lets go of everything at once: the process was never made.
    pub(crate) async fn abort(&self) {
        for copy in std::mem::take(&mut *lock(&self.copies)) {
            copy.abort();
        }
        self.fifos.abort().await;
        self.release(Instant::now()).await;
    }

    async fn release(&self, deadline: Instant) {
        lock(&self.outputs).clear();
        lock(&self.console).take();
        let logger = lock(&self.logger).take();
        if let Some(logger) = logger {
            logger.stop(deadline).await;
        }
    }
}

/// Opens a file, made with its directory if there is none, as containerd's own shim makes it.
/// Appended, so that stdout and stderr may name the same file (contract 39).
fn append_to(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().append(true).create(true).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
            open()
        }
        (opened, _) => opened,
    }
}

fn pipe_ends() -> Result<(PipeReader, PipeWriter), Failure> {
    io::pipe().map_err(failed("make a pipe"))
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::internal(format!("cannot {what}: {error}"))
}

fn cannot_write(path: &str, error: &io::Error) -> Failure {
    Failure::internal(format!("cannot write to {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant as Clock;

    use super::*;
    use crate::children::Children;
    use std::sync::Arc;

    fn io(stdout: String, stderr: String) -> Io {
        Io::new(Stdio {
            stdout,
            stderr,
            ..Stdio::default()
        })
    }

    async fn no_logger(_: &binary::Binary) -> Result<Logger, Failure> {
        panic!("no logging binary was asked for")
    }

    fn file(end: Option<OwnedFd>) -> fs::File {
        end.unwrap().into()
    }

    /// Contract 39: both may name the same file, to which both are appended.
    #[tokio::test]
    async fn stdout_and_stderr_may_be_one_file() {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), "before\n").unwrap();
        let uri = format!("file://{}", log.path().display());
        let io = io(uri.clone(), uri);
        let (theirs, ours) = io.open(no_logger).await.unwrap();
        io.start(ours, None).unwrap();
        file(theirs.stdout).write_all(b"out\n").unwrap();
        file(theirs.stderr).write_all(b"err\n").unwrap();
        io.drain().await;
        let text = fs::read_to_string(log.path()).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.remove(0), "before");
        lines.sort_unstable();
        assert_eq!(lines, ["err", "out"]);
    }

    /// Contract 41: a background grandchild may hold the pipe; the wait for it has an end.
    #[tokio::test]
    async fn draining_ends_while_the_pipe_is_held() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let io = io(format!("file://{}", log.path().display()), String::new());
        let (theirs, ours) = io.open(no_logger).await.unwrap();
        io.start(ours, None).unwrap();
        let limit = Duration::from_millis(100);
        let began = Clock::now();
        io.drain_within(limit).await;
        assert!(began.elapsed() >= limit);
        drop(theirs);
    }

    #[tokio::test]
    async fn without_a_target_there_is_no_pipe() {
        let (theirs, _) = Io::default().open(no_logger).await.unwrap();
        assert!(theirs.stdin.is_none() && theirs.stdout.is_none() && theirs.stderr.is_none());
    }

    #[tokio::test]
    async fn a_logging_binary_gets_the_output_and_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("log");
        let text =
            "#!/bin/sh\nexec 5>&-\ncat <&3 >$2\necho $CONTAINER_ID $CONTAINER_NAMESPACE >>$2";
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let log = dir.path().join("the log");
        let uri = format!(
            "binary://{}?to={}",
            script.display(),
            log.display().to_string().replace(' ', "%20")
        );
        let children = Arc::new(Children::default());
        let start = async |binary: &_| Logger::start(binary, &children, "c", "ns").await;

        let io = io(uri.clone(), uri);
        let (theirs, ours) = io.open(start).await.unwrap();
        io.start(ours, None).unwrap();
        file(theirs.stdout).write_all(b"hello\n").unwrap();
        drop(theirs.stderr);
        let began = Clock::now();
        io.drain().await;
        assert!(began.elapsed() < DRAIN, "it was killed");
        assert_eq!(fs::read_to_string(log).unwrap(), "hello\nc ns\n");

        let io = self::io("binary:///no/such/binary".to_owned(), String::new());
        let error = io.open(start).await.err().unwrap();
        assert!(error.message.contains("/no/such/binary"), "{error}");
    }
}
