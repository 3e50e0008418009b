//! The Task service: containers and the processes in them.
use std::path::Path;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, Mount, ResizePtyRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, WaitRequest, WaitResponse,
};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;

use super::Error;
use super::rpc::Service;

/// The typeurl under which containerd sends an exec's OCI process.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// A shim's Task service. Where a method takes an `exec`, the empty string means the container's
/// init.
#[derive(Clone)]
pub struct Task(pub(super) Service);

/// Where a process's input and output go: paths of fifos, or URIs such as `file:///a/log`
/// (contract 39). Empty means nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A terminal rather than pipes; stderr is then unused.
    pub terminal: bool,
    /// Where stdin comes from.
    pub stdin: String,
    /// Where stdout goes.
    pub stdout: String,
    /// Where stderr goes.
    pub stderr: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status, 128 + signal when a signal ended it (contract 36).
    pub code: u32,
    /// When.
    pub at: SystemTime,
}

impl Task {
    /// Makes the container of `bundle` and mounts its root; its init waits for [`Task::start`].
    /// Returns init's pid. `options` are the handler's, for shims that want them with every
    /// container, such as [`RuncOptions`](super::RuncOptions).
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        rootfs: Vec<Mount>,
        stdio: &Stdio,
        options: Option<Any>,
    ) -> Result<u32, Error> {
        let request = CreateTaskRequest {
            id: id.to_owned(),
            options: options.into(),
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs,
            terminal: stdio.terminal,
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            ..CreateTaskRequest::default()
        };
        let answer: CreateTaskResponse = self.0.call("Create", id, &request).await?;
        Ok(answer.pid)
    }

    /// Starts init or an exec, and returns its pid.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn start(&self, id: &str, exec: &str) -> Result<u32, Error> {
        let request = StartRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        let answer: StartResponse = self.0.call("Start", subject(id, exec), &request).await?;
        Ok(answer.pid)
    }

    /// Waits until init or an exec has exited; at once if it has.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<Exit, Error> {
        let request = WaitRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        let answer: WaitResponse = self
            .0
            .call_and_wait("Wait", subject(id, exec), &request)
            .await?;
        Ok(exit(answer.exit_status, &answer.exited_at))
    }

    /// Signals init or an exec; with `all`, every process of the container (contract 32).
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Error> {
        let request = KillRequest {
            id: id.into(),
            exec_id: exec.into(),
            signal,
            all,
            ..Default::default()
        };
        self.0
            .call::<Empty>("Kill", subject(id, exec), &request)
            .await
            .map(drop)
    }

    /// Removes an exited container (unmounting its root) or an exited exec.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn delete(&self, id: &str, exec: &str) -> Result<Exit, Error> {
        let request = DeleteRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        let answer: DeleteResponse = self.0.call("Delete", subject(id, exec), &request).await?;
        Ok(exit(answer.exit_status, &answer.exited_at))
    }

    /// Adds a process to a running container; `process` is an OCI runtime `process` as JSON.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn exec(
        &self,
        id: &str,
        exec: &str,
        process: Vec<u8>,
        stdio: &Stdio,
    ) -> Result<(), Error> {
        let spec = Any {
            type_url: PROCESS_TYPE.into(),
            value: process,
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            terminal: stdio.terminal,
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            spec: MessageField::some(spec),
            ..Default::default()
        };
        self.0.call::<Empty>("Exec", id, &request).await.map(drop)
    }

    /// Tells a terminal its size, in characters.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn resize(&self, id: &str, exec: &str, width: u16, height: u16) -> Result<(), Error> {
        let request = ResizePtyRequest {
            id: id.into(),
            exec_id: exec.into(),
            width: width.into(),
            height: height.into(),
            ..Default::default()
        };
        self.0
            .call::<Empty>("ResizePty", subject(id, exec), &request)
            .await
            .map(drop)
    }

    /// Ends a process's stdin, once what was written to it has been read.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Error> {
        let request = CloseIORequest {
            id: id.into(),
            exec_id: exec.into(),
            stdin: true,
            ..Default::default()
        };
        self.0
            .call::<Empty>("CloseIO", subject(id, exec), &request)
            .await
            .map(drop)
    }

    /// What init or an exec is doing.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn state(&self, id: &str, exec: &str) -> Result<StateResponse, Error> {
        let request = StateRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        self.0.call("State", subject(id, exec), &request).await
    }

    /// The container's use of resources, as the cgroup metrics of its version (contract 30).
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn stats(&self, id: &str) -> Result<Any, Error> {
        let request = StatsRequest {
            id: id.into(),
            ..Default::default()
        };
        let answer: StatsResponse = self.0.call("Stats", id, &request).await?;
        Ok(answer.stats.unwrap_or_default())
    }

    /// Who serves: the shim's pid, and init's if there is one (contract 23).
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn connect(&self, id: &str) -> Result<ConnectResponse, Error> {
        let request = ConnectRequest {
            id: id.into(),
            ..Default::default()
        };
        self.0.call("Connect", id, &request).await
    }

    /// Asks the shim to exit; it does when it has no container and no sandbox left (contract 24).
    ///
    /// # Errors
    /// What the shim answered. That it went away before answering is no error.
    pub async fn shutdown(&self, id: &str) -> Result<(), Error> {
        let request = ShutdownRequest {
            id: id.into(),
            ..Default::default()
        };
        match self.0.call::<Empty>("Shutdown", id, &request).await {
            Ok(_) | Err(Error::NoAnswer { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What an error is about: the exec if it is one.
const fn subject<'a>(id: &'a str, exec: &'a str) -> &'a str {
    if exec.is_empty() { id } else { exec }
}

fn exit(code: u32, at: &MessageField<Timestamp>) -> Exit {
    let since = at.as_ref().map_or(Duration::ZERO, |at| {
        Duration::new(
            u64::try_from(at.seconds).unwrap_or_default(),
            u32::try_from(at.nanos).unwrap_or_default(),
        )
    });
    Exit {
        code,
        at: SystemTime::UNIX_EPOCH + since,
    }
}
