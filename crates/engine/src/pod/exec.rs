//! A further process in a running container.
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use oci_spec::runtime::Spec;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep};

use super::Error;
use crate::shim::{self, Exit, Stdio, Task};

/// How long a shim may take to open the input of a process it has started, and how often to look.
const STDIN_OPENS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Request {
    /// The container's id at the shim.
    pub container: String,
    /// The container's bundle, whose config.json says whom and with what it runs.
    pub bundle: PathBuf,
    /// The command.
    pub args: Vec<String>,
    /// Whether stdin is given.
    pub stdin: bool,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

/// A process that runs in a container, with its input and output.
pub struct Exec {
    task: Task,
    container: String,
    id: String,
    /// Where its input is written, if it was asked for.
    pub stdin: Option<pipe::Sender>,
    /// What it writes to stdout, or to its terminal.
    pub stdout: pipe::Receiver,
    /// What it writes to stderr; nothing with a terminal.
    pub stderr: Option<pipe::Receiver>,
}

impl Exec {
    /// Starts a process; its fifos are made in `dir` and removed again before this returns.
    ///
    /// # Errors
    /// What the shim answered, such as that the container does not run.
    pub async fn start(task: Task, request: &Request, dir: &Path) -> Result<Self, Error> {
        let id = format!("exec-{}", std::process::id());
        let process = process_of(&request.bundle, &request.args, request.terminal)?;
        let fifos = Fifos::create(dir, &id, request)?;
        let stdout = fifos.receiver(&fifos.stdio.stdout)?;
        let stderr = match fifos.stdio.stderr.as_str() {
            "" => None,
            path => Some(fifos.receiver(path)?),
        };
        // Reading a fifo that nobody has open for writing ends at once: hold it until the shim does.
        let held = [fifos.stdio.stdout.as_str(), fifos.stdio.stderr.as_str()];
        let held: Vec<_> = held
            .into_iter()
            .filter(|path| !path.is_empty())
            .map(|path| pipe::OpenOptions::new().open_sender(path))
            .collect();
        let refused = Error::container(&request.container);
        let started = async {
            task.exec(&request.container, &id, process, &fifos.stdio)
                .await?;
            match task.start(&request.container, &id).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    if let Err(undoing) = task.delete(&request.container, &id).await {
                        log::debug!("removing exec {id}: {undoing}");
                    }
                    Err(error)
                }
            }
        };
        started.await.map_err(refused)?;
        drop(held);
        let stdin = match fifos.stdio.stdin.as_str() {
            "" => None,
            path => Some(
                open_stdin(path)
                    .await
                    .map_err(Error::io("open the fifo", path))?,
            ),
        };
        Ok(Self {
            task,
            container: request.container.clone(),
            id,
            stdin,
            stdout,
            stderr,
        })
    }

    /// What controls the process while its input and output are being copied.
    #[must_use]
    pub fn control(&self) -> Control {
        Control {
            task: self.task.clone(),
            container: self.container.clone(),
            id: self.id.clone(),
        }
    }
}

/// Controls a process started by [`Exec::start`].
#[derive(Clone)]
pub struct Control {
    task: Task,
    container: String,
    id: String,
}

impl Control {
    /// Tells its terminal its size, in characters.
    ///
    /// # Errors
    /// What the shim answered.
    pub async fn resize(&self, width: u16, height: u16) -> Result<(), shim::Error> {
        self.task
            .resize(&self.container, &self.id, width, height)
            .await
    }

    /// Ends its input.
    ///
    /// # Errors
    /// What the shim answered.
    pub async fn close_stdin(&self) -> Result<(), shim::Error> {
        self.task.close_stdin(&self.container, &self.id).await
    }

    /// Waits for its exit and removes it, upon which its output ends.
    ///
    /// # Errors
    /// What the shim answered.
    pub async fn wait(&self) -> Result<Exit, shim::Error> {
        let exit = self.task.wait(&self.container, &self.id).await?;
        self.task.delete(&self.container, &self.id).await?;
        Ok(exit)
    }
}

/// Opens the fifo of a started process's input. The runc shim opens its end in its own time, maybe
/// after it has answered; until then there is nobody to write to.
async fn open_stdin(path: &str) -> io::Result<pipe::Sender> {
    let deadline = Instant::now() + STDIN_OPENS;
    loop {
        match pipe::OpenOptions::new().open_sender(path) {
            Err(error)
                if error.raw_os_error() == Some(Errno::ENXIO as i32)
                    && Instant::now() < deadline =>
            {
                sleep(PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// The container's own process with another command, as JSON.
pub(super) fn process_of(bundle: &Path, args: &[String], terminal: bool) -> Result<Vec<u8>, Error> {
    let file = bundle.join("config.json");
    let read = Error::io("read", &file);
    let spec = Spec::load(&file).map_err(|error| std::io::Error::other(error.to_string()));
    let mut process = spec.map_err(read)?.process().clone().unwrap_or_default();
    process.set_args(Some(args.to_vec()));
    process.set_terminal(Some(terminal));
    serde_json::to_vec(&process).map_err(|error| Error::io("write", &file)(error.into()))
}

/// The fifos of one exec, removed when dropped: both sides have them open by then.
struct Fifos {
    stdio: Stdio,
}

impl Fifos {
    fn create(dir: &Path, id: &str, request: &Request) -> Result<Self, Error> {
        let path = |name: &str| {
            dir.join(format!("{id}-{name}"))
                .to_string_lossy()
                .into_owned()
        };
        let unless = |not: bool, name: &str| if not { String::new() } else { path(name) };
        let stdio = Stdio {
            terminal: request.terminal,
            stdin: unless(!request.stdin, "stdin"),
            stdout: path("stdout"),
            stderr: unless(request.terminal, "stderr"),
        };
        let fifos = Self { stdio };
        for path in fifos.paths() {
            mkfifo(path, Mode::from_bits_truncate(0o600))
                .map_err(|errno| Error::io("make the fifo", path)(errno.into()))?;
        }
        Ok(fifos)
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        let Stdio {
            stdin,
            stdout,
            stderr,
            ..
        } = &self.stdio;
        [stdin, stdout, stderr]
            .into_iter()
            .map(String::as_str)
            .filter(|path| !path.is_empty())
    }

    fn receiver(&self, path: &str) -> Result<pipe::Receiver, Error> {
        pipe::OpenOptions::new()
            .open_receiver(path)
            .map_err(Error::io("open the fifo", path))
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        for path in self.paths() {
            if let Err(error) = fs::remove_file(path) {
                log::debug!("removing {path}: {error}");
            }
        }
    }
}
