//! The Sandbox service: what the containers of a pod share (contract 11 to 21).
use std::collections::HashMap;
use std::path::Path;

use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, SandboxStatusRequest, SandboxStatusResponse,
    ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse,
    StopSandboxRequest, StopSandboxResponse,
};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use super::Error;
use super::rpc::Service;

/// A shim's Sandbox service.
#[derive(Clone)]
pub struct Sandbox(pub(super) Service);

impl Sandbox {
    /// Creates the sandbox. `netns` is the pod's network namespace, `None` the node's
    /// (contract 13).
    ///
    /// # Errors
    /// What the shim answered; [`Error::is_unimplemented`] when it has no Sandbox API.
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        netns: Option<&Path>,
        config: Any,
    ) -> Result<(), Error> {
        let request = CreateSandboxRequest {
            sandbox_id: id.into(),
            bundle_path: bundle.to_string_lossy().into_owned(),
            options: MessageField::some(config),
            netns_path: netns
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            ..Default::default()
        };
        self.0
            .call::<CreateSandboxResponse>("CreateSandbox", id, &request)
            .await
            .map(drop)
    }

    /// Starts the sandbox and returns the pid under which its namespaces are named, 0 when no
    /// process holds them (contract 14).
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn start(&self, id: &str) -> Result<u32, Error> {
        let request = StartSandboxRequest {
            sandbox_id: id.into(),
            ..Default::default()
        };
        let answer: StartSandboxResponse = self.0.call("StartSandbox", id, &request).await?;
        Ok(answer.pid)
    }

    /// What the shim says of the sandbox beyond its state, by topic; what each is, is the shim's.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn info(&self, id: &str) -> Result<HashMap<String, String>, Error> {
        let request = SandboxStatusRequest {
            sandbox_id: id.into(),
            verbose: true,
            ..Default::default()
        };
        let answer: SandboxStatusResponse = self.0.call("SandboxStatus", id, &request).await?;
        Ok(answer.info)
    }

    /// Stops the sandbox and what still runs in it.
    ///
    /// # Errors
    /// What the shim answered, or that it did not.
    pub async fn stop(&self, id: &str) -> Result<(), Error> {
        let request = StopSandboxRequest {
            sandbox_id: id.into(),
            ..Default::default()
        };
        self.0
            .call::<StopSandboxResponse>("StopSandbox", id, &request)
            .await
            .map(drop)
    }

    /// Removes the sandbox; the shim exits.
    ///
    /// # Errors
    /// What the shim answered. That it went away before answering is no error.
    pub async fn shutdown(&self, id: &str) -> Result<(), Error> {
        let request = ShutdownSandboxRequest {
            sandbox_id: id.into(),
            ..Default::default()
        };
        match self
            .0
            .call::<ShutdownSandboxResponse>("ShutdownSandbox", id, &request)
            .await
        {
            Ok(_) | Err(Error::NoAnswer { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
