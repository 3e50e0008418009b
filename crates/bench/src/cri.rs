//! A client of containerd's CRI service, as the kubelet is one.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use husk_engine::account;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, ListPodSandboxRequest, NamespaceMode, NamespaceOption, PodSandbox,
    PodSandboxConfig, PodSandboxMetadata, RemoveContainerRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
    VersionRequest,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::handler::Handler;

/// Whose network a pod is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The node's.
    Node,
    /// Its own, which CNI makes.
    Cni,
}

/// A connection to a containerd.
#[derive(Clone)]
pub(crate) struct Cri {
    client: RuntimeServiceClient<Channel>,
    /// The cgroup of containerd and of the shims it starts.
    pub(crate) cgroup: PathBuf,
    image: String,
}

/// A pod over CRI.
pub(crate) struct CriPod {
    cri: Cri,
    config: PodSandboxConfig,
    id: String,
    container: String,
}

impl Cri {
    /// Connects, and finds out where containerd's processor time is counted.
    ///
    /// # Errors
    /// No containerd, or one in the root cgroup.
    pub(crate) async fn connect(socket: &Path, image: &str) -> Result<Self> {
        let probe = UnixStream::connect(socket).await;
        let probe = probe.with_context(|| format!("connect to {}", socket.display()))?;
        let pid = probe.peer_cred()?.pid().context("containerd has no pid")?;
        let cgroup = account::of_process(pid)?.with_context(|| {
            format!(
                "containerd (process {pid}) is in the root cgroup, where its time cannot be told \
                 from everything else's: start it in one of its own, as systemd does"
            )
        })?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://containerd")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("speak gRPC to {}", socket.display()))?;
        Ok(Self {
            client: RuntimeServiceClient::new(channel),
            cgroup,
            image: image.to_owned(),
        })
    }

    /// The containerd's name and version.
    pub(crate) async fn version(&self) -> Result<String> {
        let mut client = self.client.clone();
        let answer = client.version(VersionRequest::default()).await;
        let answer = answer.map_err(said("Version"))?.into_inner();
        Ok(format!(
            "{} {}",
            answer.runtime_name, answer.runtime_version
        ))
    }

    /// Stops and removes all pods whose names begin so.
    pub(crate) async fn remove_pods(&self, prefix: &str) -> Result<()> {
        let mut client = self.client.clone();
        let answer = client
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await;
        let pods = answer.map_err(said("ListPodSandbox"))?.into_inner().items;
        let ours = |pod: &PodSandbox| {
            let metadata = pod.metadata.as_ref();
            metadata.is_some_and(|metadata| metadata.name.starts_with(prefix))
        };
        for pod in pods.into_iter().filter(ours) {
            self.remove_pod(pod.id).await?;
        }
        Ok(())
    }

    async fn remove_pod(&self, pod_sandbox_id: String) -> Result<()> {
        let mut client = self.client.clone();
        let request = StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        let stopped = client.stop_pod_sandbox(request).await;
        stopped.map_err(said("StopPodSandbox"))?;
        let request = RemovePodSandboxRequest { pod_sandbox_id };
        let removed = client.remove_pod_sandbox(request.clone()).await;
        let Err(error) = removed.map_err(said("RemovePodSandbox")) else {
            return Ok(());
        };
        // The kubelet tries again, too; but whoever measures should know.
        log::warn!("{error}; trying again");
        let removed = client.remove_pod_sandbox(request).await;
        removed.map_err(said("RemovePodSandbox"))?;
        Ok(())
    }

    /// A pod of this handler that is not yet made; its cgroup is below `parent`.
    pub(crate) fn pod(&self, name: &str, parent: &str, logs: &Path, network: Network) -> CriPod {
        let network = match network {
            Network::Node => NamespaceMode::Node,
            Network::Cni => NamespaceMode::Pod,
        };
        let namespaces = NamespaceOption {
            network: network.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Pod.into(),
            ..NamespaceOption::default()
        };
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces),
            ..LinuxSandboxSecurityContext::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: if network == NamespaceMode::Node {
                String::new()
            } else {
                "bench".into()
            },
            log_directory: logs.to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{parent}/{name}"),
                security_context: Some(security),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        CriPod {
            cri: self.clone(),
            config,
            id: String::new(),
            container: String::new(),
        }
    }
}

impl CriPod {
    /// The pod, and a container in it that stays.
    pub(crate) async fn run(&mut self, handler: &Handler) -> Result<()> {
        let mut client = self.cri.client.clone();
        let request = RunPodSandboxRequest {
            config: Some(self.config.clone()),
            runtime_handler: handler.handler.clone(),
        };
        let answer = client.run_pod_sandbox(request).await;
        self.id = answer
            .map_err(said("RunPodSandbox"))?
            .into_inner()
            .pod_sandbox_id;
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(self.container_config()),
            sandbox_config: Some(self.config.clone()),
        };
        let answer = client.create_container(request).await;
        let container_id = answer
            .map_err(said("CreateContainer"))?
            .into_inner()
            .container_id;
        self.container.clone_from(&container_id);
        let started = client
            .start_container(StartContainerRequest { container_id })
            .await;
        started.map_err(said("StartContainer"))?;
        Ok(())
    }

    fn container_config(&self) -> ContainerConfig {
        let linux = self.config.linux.clone().unwrap_or_default();
        let sandbox = linux.security_context.unwrap_or_default();
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "only".into(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: self.cri.image.clone(),
                ..ImageSpec::default()
            }),
            command: vec!["sleep".into(), "1000000".into()],
            log_path: "only.log".into(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: sandbox.namespace_options,
                    ..LinuxContainerSecurityContext::default()
                }),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        }
    }

    /// An exec of `true`.
    pub(crate) async fn exec(&self) -> Result<()> {
        let request = ExecSyncRequest {
            container_id: self.container.clone(),
            cmd: vec!["true".into()],
            timeout: 60,
        };
        let answer = self.cri.client.clone().exec_sync(request).await;
        let code = answer.map_err(said("ExecSync"))?.into_inner().exit_code;
        ensure!(code == 0, "the exec exited with {code}");
        Ok(())
    }

    /// Stops and removes the container and the pod.
    pub(crate) async fn end(&self) -> Result<()> {
        let mut client = self.cri.client.clone();
        let request = StopContainerRequest {
            container_id: self.container.clone(),
            timeout: 0,
        };
        let stopped = client.stop_container(request).await;
        stopped.map_err(said("StopContainer"))?;
        let request = RemoveContainerRequest {
            container_id: self.container.clone(),
        };
        let removed = client.remove_container(request).await;
        removed.map_err(said("RemoveContainer"))?;
        self.cri.remove_pod(self.id.clone()).await
    }
}

/// A refusal with the call that was refused; containerd's own words say the rest.
fn said(call: &'static str) -> impl Fn(tonic::Status) -> anyhow::Error {
    move |status| anyhow::anyhow!("{call}: {}", status.message())
}
