//! `containerd.runtime.sandbox.v1.Sandbox` (contract 11 to 21).
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::sandbox_async::Sandbox;
use ttrpc::Result;
use ttrpc::r#async::TtrpcContext;

use super::{some_timestamp, unexpected};
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::metrics;
use crate::pod::state::{Reply, Request, SandboxLife};
use crate::pod::{NewSandbox, Pod};
use husk_request::cri::SandboxConfig;

/// CRI compares these words (contract 18).
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// How containerd names an OCI runtime spec; the value is JSON.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

pub(super) struct Service {
    pod: Arc<Pod>,
}

impl Service {
    pub(super) fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }

    async fn done(&self, request: Request) -> Result<()> {
        match self.pod.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What is said of a pod beyond its state: its record, and what its links have carried.
    async fn info(&self) -> Result<HashMap<String, String>> {
        let links = serde_json::to_string(&self.pod.carried().await)
            .map_err(|error| Failure::internal(format!("links cannot be written: {error}")))?;
        Ok(HashMap::from([
            ("pod".to_owned(), self.pod.record_json()?),
            ("links".to_owned(), links),
        ]))
    }
}

/// This build's platform, in Go's words.
fn platform() -> containerd_shim_protos::types::platform::Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "x86" => ("386", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    containerd_shim_protos::types::platform::Platform {
        os: std::env::consts::OS.to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        ..Default::default()
    }
}

#[async_trait]
impl Sandbox for Service {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        req: api::CreateSandboxRequest,
    ) -> Result<api::CreateSandboxResponse> {
        let new = NewSandbox {
            config: SandboxConfig::decode(req.options.as_ref()).map_err(Failure::from)?,
            network: req.netns_path.into(),
        };
        match self.pod.create_sandbox(new).await? {
            Reply::Done => Ok(api::CreateSandboxResponse::default()),
            other => Err(unexpected(&other)),
        }
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        _: api::StartSandboxRequest,
    ) -> Result<api::StartSandboxResponse> {
        match self.pod.ask(Request::StartSandbox).await? {
            Reply::Pid(pid) => Ok(api::StartSandboxResponse {
                pid,
                created_at: some_timestamp(self.pod.created_ms()),
                spec: MessageField::some(Any {
                    type_url: SPEC.to_owned(),
                    value: self.pod.sandbox_spec().to_string().into_bytes(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn platform(
        &self,
        _: &TtrpcContext,
        _: api::PlatformRequest,
    ) -> Result<api::PlatformResponse> {
        Ok(api::PlatformResponse {
            platform: MessageField::some(platform()),
            ..Default::default()
        })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        _: api::StopSandboxRequest,
    ) -> Result<api::StopSandboxResponse> {
        self.done(Request::StopSandbox).await?;
        Ok(api::StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        _: api::WaitSandboxRequest,
    ) -> Result<api::WaitSandboxResponse> {
        match self.pod.ask(Request::WaitSandbox).await? {
            Reply::Exited { exit, .. } => Ok(api::WaitSandboxResponse {
                exit_status: exit.code,
                exited_at: some_timestamp(exit.at_ms),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        req: api::SandboxStatusRequest,
    ) -> Result<api::SandboxStatusResponse> {
        let info = if req.verbose {
            self.info().await?
        } else {
            HashMap::new()
        };
        let view = match self.pod.ask(Request::SandboxStatus).await {
            Ok(Reply::Sandbox(view)) => view,
            Ok(other) => return Err(unexpected(&other)),
            // A pod whose first container is its sandbox has no state of its own to tell.
            Err(_) if req.verbose && !self.pod.is_of_the_sandbox_api() => {
                return Ok(api::SandboxStatusResponse {
                    sandbox_id: req.sandbox_id,
                    state: READY.to_owned(),
                    info,
                    created_at: some_timestamp(self.pod.created_ms()),
                    ..Default::default()
                });
            }
            Err(failure) => return Err(failure.into()),
        };
        let (state, exited_at) = match view.life {
            SandboxLife::Ready => (READY, MessageField::none()),
            SandboxLife::Stopped(exit) => (NOT_READY, some_timestamp(exit.at_ms)),
            _ => (NOT_READY, MessageField::none()),
        };
        Ok(api::SandboxStatusResponse {
            sandbox_id: req.sandbox_id,
            pid: view.pid,
            state: state.to_owned(),
            info,
            created_at: some_timestamp(self.pod.created_ms()),
            exited_at,
            ..Default::default()
        })
    }

    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        _: api::PingRequest,
    ) -> Result<api::PingResponse> {
        self.pod.ask(Request::SandboxStatus).await?;
        Ok(api::PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        _: api::ShutdownSandboxRequest,
    ) -> Result<api::ShutdownSandboxResponse> {
        self.done(Request::ShutdownSandbox).await?;
        Ok(api::ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        req: api::SandboxMetricsRequest,
    ) -> Result<api::SandboxMetricsResponse> {
        let stats = self.pod.sandbox_stats().await?;
        let data = metrics::any(&stats).map_err(|error| {
            Failure::internal(format!("the numbers cannot be encoded: {error}"))
        })?;
        let mut response = api::SandboxMetricsResponse::default();
        // The type of this field has no public name.
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = some_timestamp(now_ms());
        metric.id = req.sandbox_id;
        metric.data = MessageField::some(data);
        Ok(response)
    }
}
