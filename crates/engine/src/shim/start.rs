//! Starting a shim, and connecting to one that runs.
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use ttrpc::asynchronous::Client;

use super::events::ttrpc_address;
use super::log::Drained;
use super::reply::Reply;
use super::rpc::Service;
use super::{Binary, Error, NAMESPACE, Sandbox, Task, log, reply};

/// containerd's own limit for `start` and `delete` is 5 to 10 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a shim is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The shim's binary.
    pub binary: Binary,
    /// The sandbox or container.
    pub id: String,
    /// Its bundle: the shim's working directory, in which its `log` fifo is made.
    pub bundle: PathBuf,
    /// The address of the [`Events`](super::Events) server.
    pub events: String,
    /// Options for the shim, such as [`RuntimeOptions`](super::RuntimeOptions).
    pub options: Option<Any>,
    /// Whether the shim logs at debug level.
    pub debug: bool,
}

/// A shim that runs.
pub struct Shim {
    client: Client,
    version: u32,
    address: String,
    /// Of a shim that this process started: what it logs is copied as long as this is held.
    log: Option<Drained>,
}

impl Start {
    /// Runs the shim's `start` command and connects to the socket it answers with.
    ///
    /// # Errors
    /// What the command said, or why the socket cannot be reached; the shim's `delete` command
    /// has then cleaned up.
    pub async fn run(&self) -> Result<Shim, Error> {
        match self.connected().await {
            Ok(shim) => Ok(shim),
            Err(error) => {
                if let Err(cleanup) = self.delete().await {
                    ::log::debug!("clean-up after {error}: {cleanup}");
                }
                Err(error)
            }
        }
    }

    async fn connected(&self) -> Result<Shim, Error> {
        self.spawn()?.answer().await?.connect().await
    }

    /// Executes the shim's `start` command, its stdout and stderr one stream as containerd has
    /// them (contract 5). [`Start::run`] does this and what follows; in parts it can be timed, and
    /// whatever the shim left when one of them fails is the caller's to clean up with
    /// [`Start::delete`].
    ///
    /// # Errors
    /// The binary cannot be executed, or no log made.
    pub fn spawn(&self) -> Result<Starting<'_>, Error> {
        let log = log::drain(&self.bundle, &self.log())?;
        let failed = |what| Error::io(what, self.binary.path());
        let (reader, writer) = std::io::pipe().map_err(failed("make a pipe for"))?;
        let second = writer.try_clone().map_err(failed("make a pipe for"))?;
        let mut command = self.command();
        if self.debug {
            command.arg("-debug");
        }
        command.arg("start").stdout(writer).stderr(second);
        command.stdin(if self.options.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let child = command.spawn().map_err(failed("run"))?;
        Ok(Starting {
            start: self,
            child,
            output: reader,
            log,
        })
    }

    /// Where what the shim logs is copied to.
    fn log(&self) -> PathBuf {
        self.bundle.join("shim.log")
    }

    /// Runs the shim's `delete` command: containerd's way to remove what a dead shim left
    /// (contract 43 to 45).
    ///
    /// # Errors
    /// What the command said.
    pub async fn delete(&self) -> Result<(), Error> {
        let path = self.binary.path();
        let mut command = self.command();
        command
            .arg("-bundle")
            .arg(&self.bundle)
            .arg("delete")
            .stdin(Stdio::null());
        command.kill_on_drop(true);
        let output = match timeout(PATIENCE, command.output()).await {
            Ok(output) => output.map_err(Error::io("run", path))?,
            Err(_) => {
                return Err(self.failed("delete", "no end within 10 s".into(), String::new()));
            }
        };
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() {
            return Err(self.failed("delete", output.status.to_string(), said));
        }
        if DeleteResponse::parse_from_bytes(&output.stdout).is_err() {
            ::log::warn!("{} delete answered with no DeleteResponse", path.display());
        }
        Ok(())
    }

    /// The flags and variables that containerd gives to every command of a shim.
    fn command(&self) -> Command {
        let own = std::env::current_exe().unwrap_or_default();
        let mut command = Command::new(self.binary.path());
        command
            .args(["-namespace", NAMESPACE, "-address", &self.events])
            .arg("-publish-binary")
            .arg(own)
            .args(["-id", &self.id])
            .current_dir(&self.bundle)
            .env("GOMAXPROCS", "2")
            .env("MAX_SHIM_VERSION", "3")
            .env("TTRPC_ADDRESS", ttrpc_address(&self.events))
            .env("GRPC_ADDRESS", &self.events)
            .env("NAMESPACE", NAMESPACE)
            .process_group(0);
        command
    }

    fn failed(&self, command: &'static str, status: String, output: String) -> Error {
        Error::Command {
            shim: self.binary.path().to_owned(),
            command,
            id: self.id.clone(),
            status,
            output: output.trim().to_owned(),
        }
    }
}

/// A `start` command that runs.
pub struct Starting<'a> {
    start: &'a Start,
    child: Child,
    output: PipeReader,
    log: Drained,
}

impl Starting<'_> {
    /// Gives the command its options and waits for its reply.
    ///
    /// # Errors
    /// What the command said instead, or that it said nothing for 10 s.
    pub async fn answer(mut self) -> Result<Answered, Error> {
        let start = self.start;
        let failed = |what| Error::io(what, start.binary.path());
        if let (Some(options), Some(mut stdin)) = (&start.options, self.child.stdin.take()) {
            let bytes = options.write_to_bytes().unwrap_or_default();
            // A shim that reads no options closes its stdin early; that is its right.
            let _ = stdin.write_all(&bytes).await;
        }
        let mut receiver =
            pipe::Receiver::from_owned_fd(self.output.into()).map_err(failed("read from"))?;
        let mut output = String::new();
        let finished = timeout(PATIENCE, async {
            receiver.read_to_string(&mut output).await?;
            self.child.wait().await
        });
        match finished.await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => {
                let detail = log::tail(&start.log());
                let said = format!("{output}{detail}");
                return Err(start.failed("start", status.to_string(), said));
            }
            Ok(Err(error)) => return Err(failed("run")(error)),
            Err(_) => return Err(start.failed("start", "no end within 10 s".into(), output)),
        }
        match reply::parse(&output) {
            Ok(reply) => Ok(Answered {
                reply,
                log: self.log,
            }),
            Err(problem) => Err(Error::Reply {
                shim: start.binary.path().to_owned(),
                reply: output,
                problem,
            }),
        }
    }
}

/// What a shim answered to `start`.
pub struct Answered {
    reply: Reply,
    log: Drained,
}

impl Answered {
    /// Connects to the socket that the answer names.
    ///
    /// # Errors
    /// A socket that is gone or that nobody listens to.
    pub async fn connect(self) -> Result<Shim, Error> {
        let mut shim = Shim::connect(&self.reply.address, self.reply.version).await?;
        shim.log = Some(self.log);
        Ok(shim)
    }
}

impl Shim {
    /// Connects to a shim that runs. `version` is that of its reply to `start`: 3, or 2 for shims
    /// of containerd 1.x.
    ///
    /// # Errors
    /// A socket that is gone or that nobody listens to.
    pub async fn connect(address: &str, version: u32) -> Result<Self, Error> {
        let client = Client::connect(address)
            .await
            .map_err(|source| Error::Connect {
                address: address.to_owned(),
                source: Box::new(source),
            })?;
        Ok(Self {
            client,
            version,
            address: address.to_owned(),
            log: None,
        })
    }

    /// The socket's address, `unix://PATH`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The version of its reply to `start`.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Its Task service.
    #[must_use]
    pub fn task(&self) -> Task {
        let name = if self.version < 3 {
            "containerd.task.v2.Task"
        } else {
            "containerd.task.v3.Task"
        };
        Task(Service {
            client: self.client.clone(),
            name,
        })
    }

    /// Its Sandbox service, which it may not have.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        let name = "containerd.runtime.sandbox.v1.Sandbox";
        Sandbox(Service {
            client: self.client.clone(),
            name,
        })
    }
}

/// The address of a socket as shims and records write it.
#[must_use]
pub fn address_of(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}
