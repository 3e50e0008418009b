//! Logging binaries: `binary:///path?key=value`, as containerd's logging package describes them.
//!
//! The binary gets the output as descriptors 3 and 4, closes 5 when it is ready, and learns whose
//! output it is from its environment.
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use husk_sandbox::process::Pidfd;
use husk_sandbox::spawn;
use log::warn;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout, timeout_at};

use super::target::decode;
use crate::children;
use crate::children::Children;
use crate::failure::Failure;

/// How long the binary may take to say that it is ready.
const READY: Duration = Duration::from_secs(10);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How long it may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// A logging binary and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    path: String,
    args: Vec<String>,
}

impl Binary {
    /// Reads what follows `binary://`. Each `key=value` of the query is two arguments.
    pub(super) fn parse(rest: &str) -> Self {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let args = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .flat_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                [key, value].map(|text| decode(&text.replace('+', " ")))
            })
            .filter(|arg| !arg.is_empty())
            .collect();
        Self {
            path: decode(path),
            args,
        }
    }
}

/// A logging binary that runs.
pub(crate) struct Logger {
    /// What it logs as stdout.
    pub(super) stdout: Option<OwnedFd>,
    /// What it logs as stderr.
    pub(super) stderr: Option<OwnedFd>,
    process: Arc<Pidfd>,
    children: Arc<Children>,
}

impl Logger {
    /// Starts the binary for a container's output and waits until it is ready.
    pub(crate) async fn start(
        binary: &Binary,
        children: &Arc<Children>,
        container: &str,
        namespace: &str,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let path = &binary.path;
            Failure::invalid(format!("cannot start the logging binary {path}: {error}"))
        };
        let (stdout_read, stdout) = io::pipe().map_err(failed)?;
        let (stderr_read, stderr) = io::pipe().map_err(failed)?;
        let (ready, ready_write) = io::pipe().map_err(failed)?;
        let mut command = Command::new(&binary.path);
        command
            .args(&binary.args)
            .env("CONTAINER_ID", container)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let theirs = [stdout_read.into(), stderr_read.into(), ready_write.into()];
        let process = spawn::with_descriptors(command, theirs).map_err(failed)?;
        children.claim(process.pid);
        let logger = Self {
            stdout: Some(stdout.into()),
            stderr: Some(stderr.into()),
            process: Arc::new(process),
            children: Arc::clone(children),
        };
        match wait_until_ready(ready).await {
            Ok(()) => Ok(logger),
            Err(error) => {
                logger.stop(Instant::now()).await;
                Err(failed(error))
            }
        }
    }

    /// Waits for the binary to end, which it does when all output is read; ends it after
    /// `deadline`.
    pub(super) async fn stop(mut self, deadline: Instant) {
        self.stdout = None;
        self.stderr = None;
        let ended = children::ended(&self.process);
        tokio::pin!(ended);
        if timeout_at(deadline, &mut ended).await.is_err() {
            warn!(
                "a logging binary, pid {}, does not end: killing it",
                self.process.pid
            );
            // ESRCH: it has ended meanwhile.
            let _ = self.process.signal(SIGTERM);
            if timeout(GRACE, &mut ended).await.is_err() {
                let _ = self.process.signal(SIGKILL);
                let _ = ended.await;
            }
        }
        self.children.release(self.process.pid);
    }
}

/// EOF says that it is ready; so does any byte.
async fn wait_until_ready(ready: PipeReader) -> io::Result<()> {
    let mut ready = pipe::Receiver::from_owned_fd(ready.into())?;
    let mut byte = [0];
    timeout(READY, ready.read(&mut byte))
        .await
        .map_err(|_| io::Error::other(format!("it was not ready within {READY:?}")))?
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_arguments() {
        let binary = Binary::parse("/bin/log%20it?id=a%26b&flag&x=");
        assert_eq!(binary.path, "/bin/log it");
        assert_eq!(binary.args, ["id", "a&b", "flag", "x"]);
    }
}
