//! `containerd.task.v3.Task` (contract 22 to 32).
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use husk_request::task;
use husk_sandbox::lenient;
use husk_sandbox::rootfs::Mount;
use log::warn;
use oci_spec::runtime::Process as OciProcess;
use ttrpc::Result;
use ttrpc::r#async::TtrpcContext;

use super::{some_timestamp, unexpected};
use crate::failure::Failure;
use crate::io::Stdio;
use crate::metrics;
use crate::pod::state::{Action, ProcessId, Reply, Request, Status, View};
use crate::pod::{NewContainer, Pod};

/// What `ctr task ps` shows of an exec.
const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";

pub(super) struct Service {
    pod: Arc<Pod>,
}

impl Service {
    pub(super) fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }

    async fn done(&self, request: Request) -> Result<api::Empty> {
        match self.pod.ask(request).await? {
            Reply::Done => Ok(api::Empty::default()),
            other => Err(unexpected(&other)),
        }
    }

    async fn perform(&self, id: ProcessId, action: Action) -> Result<Reply> {
        Ok(self.pod.ask(Request::Perform(id, action)).await?)
    }
}

/// An empty exec id is init.
fn process(container: String, exec: String) -> ProcessId {
    ProcessId {
        container,
        exec: Some(exec).filter(|exec| !exec.is_empty()),
    }
}

fn mount(mount: api::Mount) -> Mount {
    Mount {
        kind: mount.type_,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    }
}

fn status(status: Status) -> api::Status {
    match status {
        // UNKNOWN would mean that something is wrong with it.
        Status::Creating | Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Pausing => api::Status::PAUSING,
        Status::Paused => api::Status::PAUSED,
        Status::Stopped => api::Status::STOPPED,
    }
}

fn process_info((pid, exec): (i32, Option<String>)) -> Result<api::ProcessInfo> {
    let info = exec.map(|exec_id| {
        let details = ProcessDetails {
            exec_id,
            ..Default::default()
        };
        let value = details.write_to_bytes();
        value.map(|value| Any {
            type_url: PROCESS_DETAILS.to_owned(),
            value,
            ..Default::default()
        })
    });
    let info = info.transpose().map_err(encoding)?;
    Ok(api::ProcessInfo {
        pid: pid.unsigned_abs(),
        info: MessageField::from_option(info),
        ..Default::default()
    })
}

fn encoding(error: containerd_shim_protos::protobuf::Error) -> Failure {
    Failure::internal(format!("the answer cannot be encoded: {error}"))
}

/// A terminal's size. The kernel keeps it in 16 bits.
fn cells(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, req: api::StateRequest) -> Result<api::StateResponse> {
        let id = process(req.id, req.exec_id);
        let found = self.pod.process(&id);
        let bundle = self.pod.container(&id.container);
        let View {
            status: at,
            pid,
            exit,
        } = match self.pod.ask(Request::State(id.clone())).await? {
            Reply::State(view) => view,
            other => return Err(unexpected(&other)),
        };
        let stdio = found
            .map(|process| process.io.stdio().clone())
            .unwrap_or_default();
        Ok(api::StateResponse {
            id: id.container,
            exec_id: id.exec.unwrap_or_default(),
            bundle: bundle
                .map(|container| container.bundle.display().to_string())
                .unwrap_or_default(),
            pid,
            status: status(at).into(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.map_or_else(MessageField::none, |exit| some_timestamp(exit.at_ms)),
            ..Default::default()
        })
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        req: api::CreateTaskRequest,
    ) -> Result<api::CreateTaskResponse> {
        if !req.checkpoint.is_empty() {
            return Err(Failure::unimplemented("husk cannot restore a checkpoint").into());
        }
        let new = NewContainer {
            id: req.id,
            bundle: req.bundle.into(),
            mounts: req.rootfs.into_iter().map(mount).collect(),
            stdio: Stdio {
                stdin: req.stdin,
                stdout: req.stdout,
                stderr: req.stderr,
                terminal: req.terminal,
            },
        };
        match self.pod.create(new).await? {
            Reply::Pid(pid) => Ok(api::CreateTaskResponse {
                pid,
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn start(&self, _: &TtrpcContext, req: api::StartRequest) -> Result<api::StartResponse> {
        let id = process(req.id, req.exec_id);
        match self.pod.ask(Request::Start(id)).await? {
            Reply::Pid(pid) => Ok(api::StartResponse {
                pid,
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        req: api::DeleteRequest,
    ) -> Result<api::DeleteResponse> {
        let id = process(req.id, req.exec_id);
        match self.pod.ask(Request::Delete(id)).await? {
            Reply::Exited { pid, exit } => Ok(api::DeleteResponse {
                pid,
                exit_status: exit.code,
                exited_at: some_timestamp(exit.at_ms),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn pids(&self, _: &TtrpcContext, req: api::PidsRequest) -> Result<api::PidsResponse> {
        match self.perform(ProcessId::init(&req.id), Action::Pids).await? {
            Reply::Pids(pids) => Ok(api::PidsResponse {
                processes: pids.into_iter().map(process_info).collect::<Result<_>>()?,
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn pause(&self, _: &TtrpcContext, req: api::PauseRequest) -> Result<api::Empty> {
        self.done(Request::Pause(req.id)).await
    }

    async fn resume(&self, _: &TtrpcContext, req: api::ResumeRequest) -> Result<api::Empty> {
        self.done(Request::Resume(req.id)).await
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        _: api::CheckpointTaskRequest,
    ) -> Result<api::Empty> {
        Err(Failure::unimplemented("husk does not checkpoint containers").into())
    }

    async fn kill(&self, _: &TtrpcContext, req: api::KillRequest) -> Result<api::Empty> {
        let signal = task::signal(&req).map_err(Failure::from)?;
        self.done(Request::Kill {
            process: process(req.id, req.exec_id),
            signal,
            all: req.all,
        })
        .await
    }

    async fn exec(&self, _: &TtrpcContext, req: api::ExecProcessRequest) -> Result<api::Empty> {
        let (spec, unknown) = lenient::read::<OciProcess>(&req.spec.value).map_err(|error| {
            Failure::invalid(format!(
                "exec {} of container {}: its spec is no OCI process: {error}",
                req.exec_id, req.id
            ))
        })?;
        if !unknown.is_empty() {
            let (exec, id) = (&req.exec_id, &req.id);
            warn!(
                "exec {exec} of container {id} names capabilities that do not exist, left out: {unknown:?}"
            );
        }
        let stdio = Stdio {
            stdin: req.stdin,
            stdout: req.stdout,
            stderr: req.stderr,
            terminal: req.terminal,
        };
        let added = self.pod.add_exec(&req.id, &req.exec_id, spec, stdio).await;
        match added? {
            Reply::Done => Ok(api::Empty::default()),
            other => Err(unexpected(&other)),
        }
    }

    async fn resize_pty(&self, _: &TtrpcContext, req: api::ResizePtyRequest) -> Result<api::Empty> {
        let action = Action::Resize {
            width: cells(req.width),
            height: cells(req.height),
        };
        let id = process(req.id, req.exec_id);
        self.done(Request::Perform(id, action)).await
    }

    async fn close_io(&self, _: &TtrpcContext, req: api::CloseIORequest) -> Result<api::Empty> {
        let id = process(req.id, req.exec_id);
        if !req.stdin {
            return Ok(api::Empty::default());
        }
        self.done(Request::Perform(id, Action::CloseIo)).await
    }

    async fn update(&self, _: &TtrpcContext, req: api::UpdateTaskRequest) -> Result<api::Empty> {
        let id = ProcessId::init(&req.id);
        let resources = task::update_resources(req).map_err(Failure::from)?;
        self.done(Request::Perform(id, Action::Update(resources)))
            .await
    }

    async fn wait(&self, _: &TtrpcContext, req: api::WaitRequest) -> Result<api::WaitResponse> {
        let id = process(req.id, req.exec_id);
        match self.pod.ask(Request::Wait(id)).await? {
            Reply::Exited { exit, .. } => Ok(api::WaitResponse {
                exit_status: exit.code,
                exited_at: some_timestamp(exit.at_ms),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn stats(&self, _: &TtrpcContext, req: api::StatsRequest) -> Result<api::StatsResponse> {
        match self
            .perform(ProcessId::init(&req.id), Action::Stats)
            .await?
        {
            Reply::Stats(stats) => Ok(api::StatsResponse {
                stats: MessageField::some(metrics::any(&stats).map_err(encoding)?),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Answers for any id (contract 23).
    async fn connect(
        &self,
        _: &TtrpcContext,
        req: api::ConnectRequest,
    ) -> Result<api::ConnectResponse> {
        let task = self.pod.container(&req.id).and_then(|found| found.pid());
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.map_or(0, i32::unsigned_abs),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> Result<api::Empty> {
        self.done(Request::Shutdown).await
    }
}
