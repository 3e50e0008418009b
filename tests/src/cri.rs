//! Pods, as the kubelet makes them: over CRI, and with the cgroup that the kubelet makes for each.
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatsRequest, ContainerStatus,
    ContainerStatusRequest, CreateContainerRequest, DnsConfig, ExecSyncRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxPodSandboxStats, LinuxSandboxSecurityContext,
    ListPodSandboxRequest, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxState, PodSandboxStatsRequest, PodSandboxStatus, PodSandboxStatusRequest,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopPodSandboxRequest, UpdateContainerResourcesRequest,
};
use nix::unistd::Pid;
use std::cell::RefCell;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::command::{DEADLINE, Output, poll, until};
use crate::containerd::Containerd;
use crate::ctr::unique;
use crate::{cgroup, image, residue};

/// The two ways into a pod (the handler's `sandboxer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `podsandbox`: containerd makes a pause container.
    Podsandbox,
    /// `shim`: the shim makes the sandbox.
    SandboxApi,
}

/// A client of containerd's CRI service.
#[derive(Debug)]
pub struct Cri<'a> {
    containerd: &'a Containerd,
    runtime: Runtime,
}

impl<'a> Cri<'a> {
    pub(crate) fn new(containerd: &'a Containerd) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            containerd,
            runtime,
        }
    }

    /// A call of the service, over a connection of its own, as containerd may have been restarted:
    /// `cri.call(async |mut client| client.version(request).await)`.
    ///
    /// # Errors
    /// What the service answers.
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let socket = self.containerd.socket();
        let endpoint = Endpoint::from_static("http://containerd").timeout(DEADLINE);
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        self.runtime.block_on(async {
            let channel = endpoint.connect_with_connector(connector).await;
            let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let answer = call(RuntimeServiceClient::new(channel)).await?;
            Ok(answer.into_inner())
        })
    }

    /// A pod of the handler `husk`, not yet made.
    #[must_use]
    pub fn pod(&'a self, mode: Mode) -> PodBuilder<'a> {
        self.pod_of("husk", mode)
    }

    /// A pod of this handler, not yet made.
    #[must_use]
    pub fn pod_of(&'a self, handler: &str, mode: Mode) -> PodBuilder<'a> {
        let name = unique("pod");
        let suffix = match mode {
            Mode::Podsandbox => "",
            Mode::SandboxApi => "-api",
        };
        let logs = self.containerd.lab().run.join("logs").join(&name);
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "the-pod".into(),
            log_directory: logs.to_string_lossy().into_owned(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["lab.test".into()],
                options: vec!["ndots:5".into()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/{name}", self.containerd.lab().tag()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        PodBuilder {
            cri: self,
            name,
            handler: format!("{handler}{suffix}"),
            config,
        }
    }
}

/// What a pod gets when it asks for nothing: network and ipc are the pod's, pid the container's.
#[must_use]
pub fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Pod.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

/// A pod that is not yet made.
#[derive(Debug)]
pub struct PodBuilder<'a> {
    cri: &'a Cri<'a>,
    name: String,
    handler: String,
    /// What the kubelet would send.
    pub config: PodSandboxConfig,
}

impl<'a> PodBuilder<'a> {
    /// Changes what is sent.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut PodSandboxConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the namespaces of the sandbox; its containers ask for the same.
    #[must_use]
    pub fn namespaces(self, change: impl FnOnce(&mut NamespaceOption)) -> Self {
        self.security(|security| {
            change(security.namespace_options.get_or_insert_with(namespaces));
        })
    }

    /// Changes the security context of the sandbox.
    #[must_use]
    pub fn security(mut self, change: impl FnOnce(&mut LinuxSandboxSecurityContext)) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        change(linux.security_context.get_or_insert_default());
        self
    }

    /// Makes it.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Pod<'a> {
        let containerd = self.cri.containerd;
        let name = self.name.clone();
        match self.try_run() {
            Ok(pod) => pod,
            Err(error) => panic!(
                "RunPodSandbox: {error}\ncontainerd said:\n{}",
                containerd.log_about(&[name])
            ),
        }
    }

    /// Makes it, or says why not; then nothing of it may be left.
    ///
    /// # Errors
    /// What `RunPodSandbox` answers.
    #[track_caller]
    pub fn try_run(self) -> Result<Pod<'a>, Status> {
        let cgroup = self.cgroup();
        if !cgroup.ends_with(".slice") {
            cgroup::make(&cgroup);
        }
        fs::create_dir_all(&self.config.log_directory).unwrap();
        match self.ask() {
            Ok(id) => Ok(self.pod(id)),
            Err(error) => {
                self.assert_nothing_is_left();
                Err(error)
            }
        }
    }

    /// Asks for it, lets `recover` undo what was done to containerd meanwhile, and then finds, as
    /// the kubelet does, what there is of it: nothing, which leaves nothing, or pods to be removed.
    ///
    /// # Panics
    /// If containerd does not list its pods.
    #[must_use]
    pub fn run_while_it_fails(self, recover: impl FnOnce()) -> Vec<Pod<'a>> {
        cgroup::make(&self.cgroup());
        fs::create_dir_all(&self.config.log_directory).unwrap();
        // Whether it was made is what the list says.
        let _ = self.ask();
        recover();
        let request = ListPodSandboxRequest::default();
        let listed = self
            .cri
            .call(async |mut client| client.list_pod_sandbox(request).await)
            .unwrap();
        let pods: Vec<_> = listed
            .items
            .into_iter()
            .filter(|pod| pod.metadata.as_ref().is_some_and(|it| it.name == self.name))
            .map(|pod| self.pod(pod.id))
            .collect();
        if pods.is_empty() {
            self.assert_nothing_is_left();
        }
        pods
    }

    fn cgroup(&self) -> String {
        let linux = self.config.linux.as_ref();
        linux
            .map(|linux| linux.cgroup_parent.clone())
            .unwrap_or_default()
    }

    fn ask(&self) -> Result<String, Status> {
        let request = RunPodSandboxRequest {
            config: Some(self.config.clone()),
            runtime_handler: self.handler.clone(),
        };
        let answer = self
            .cri
            .call(async |mut client| client.run_pod_sandbox(request).await);
        Ok(answer?.pod_sandbox_id)
    }

    fn pod(&self, id: String) -> Pod<'a> {
        Pod {
            cri: self.cri,
            id,
            config: self.config.clone(),
            cgroup: self.cgroup(),
            containers: RefCell::new(Vec::new()),
        }
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        cgroup::remove(&self.cgroup());
        let socket = self.cri.containerd.socket();
        residue::assert_none(&socket, "k8s.io", std::slice::from_ref(&self.name));
    }
}

/// A pod. Dropping it stops and removes it, and then nothing of it may be left.
#[derive(Debug)]
pub struct Pod<'a> {
    cri: &'a Cri<'a>,
    /// The sandbox's id.
    pub id: String,
    /// What was sent to make it.
    pub config: PodSandboxConfig,
    cgroup: String,
    containers: RefCell<Vec<String>>,
}

impl<'a> Pod<'a> {
    /// A container of the busybox image, not yet made.
    #[must_use]
    pub fn container<'p>(&'p self, name: &str, words: &[&str]) -> ContainerBuilder<'a, 'p> {
        let linux = self.config.linux.clone().unwrap_or_default();
        let sandbox = linux.security_context.unwrap_or_default();
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.into(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: image::BUSYBOX.into(),
                ..Default::default()
            }),
            command: words.iter().map(ToString::to_string).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: sandbox.namespace_options,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        ContainerBuilder { pod: self, config }
    }

    /// A container that sleeps until it is stopped.
    #[must_use]
    #[track_caller]
    pub fn sleeper<'p>(&'p self, name: &str) -> Container<'a, 'p> {
        self.container(name, &SLEEP).start()
    }

    /// The sandbox's status and what more its shim tells (JSON).
    ///
    /// # Errors
    /// What `PodSandboxStatus` answers.
    pub fn status(&self) -> Result<(PodSandboxStatus, serde_json::Value), Status> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: true,
        };
        let answer = self
            .cri
            .call(async |mut client| client.pod_sandbox_status(request).await)?;
        Ok((answer.status.unwrap(), information(&answer.info)))
    }

    /// Whether CRI calls it ready; while its shim is gone, it may not even say.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status()
            .is_ok_and(|(status, _)| status.state() == PodSandboxState::SandboxReady)
    }

    /// Its use of the machine, as the kubelet asks for it.
    ///
    /// # Panics
    /// If there are no statistics.
    #[must_use]
    #[track_caller]
    pub fn stats(&self) -> LinuxPodSandboxStats {
        let request = PodSandboxStatsRequest {
            pod_sandbox_id: self.id.clone(),
        };
        let answer = self
            .cri
            .call(async |mut client| client.pod_sandbox_stats(request).await)
            .unwrap();
        answer.stats.and_then(|stats| stats.linux).unwrap()
    }

    /// The folder of its cgroup for a v1 controller, or with v2.
    #[must_use]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        cgroup::folder(controller, &self.cgroup)
    }

    /// Stops it.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn stop(&self) {
        self.try_stop().unwrap();
    }

    fn try_stop(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri
            .call(async |mut client| client.stop_pod_sandbox(request).await)
            .map(drop)
    }

    fn try_remove(&self) -> Result<(), Status> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri
            .call(async |mut client| client.remove_pod_sandbox(request).await)
            .map(drop)
    }

    /// The ids that nothing may be named after once the pod is removed.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let mut ids = self.containers.borrow().clone();
        ids.push(self.id.clone());
        // Its name is that of its cgroup.
        let name = self.config.metadata.as_ref().map(|metadata| &metadata.name);
        ids.extend(name.cloned());
        ids
    }

    /// The containerd it runs under.
    #[must_use]
    pub fn containerd(&self) -> &Containerd {
        self.cri.containerd
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.cri.containerd.log_about(&self.ids());
            eprintln!("containerd said:\n{log}");
        }
        // As often as it takes, like the kubelet.
        let again = Duration::from_secs(10);
        poll(again, || self.try_stop().ok());
        poll(again, || self.try_remove().ok());
        let (stopped, removed) = (self.try_stop(), self.try_remove());
        cgroup::remove(&self.cgroup);
        if !thread::panicking() {
            stopped.expect("StopPodSandbox");
            removed.expect("RemovePodSandbox");
            residue::assert_none(&self.cri.containerd.socket(), "k8s.io", &self.ids());
        }
    }
}

const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"];

/// A container of a pod that is not yet made.
#[derive(Debug)]
pub struct ContainerBuilder<'a, 'p> {
    pod: &'p Pod<'a>,
    /// What the kubelet would send.
    pub config: ContainerConfig,
}

impl<'a, 'p> ContainerBuilder<'a, 'p> {
    /// Changes what is sent.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes its security context.
    #[must_use]
    pub fn security(mut self, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        change(linux.security_context.get_or_insert_default());
        self
    }

    /// Changes its namespaces.
    #[must_use]
    pub fn namespaces(self, change: impl FnOnce(&mut NamespaceOption)) -> Self {
        self.security(|security| {
            change(security.namespace_options.get_or_insert_with(namespaces));
        })
    }

    /// Changes its resources.
    #[must_use]
    pub fn resources(mut self, change: impl FnOnce(&mut LinuxContainerResources)) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        change(linux.resources.get_or_insert_default());
        self
    }

    /// Makes it, without starting it.
    ///
    /// # Errors
    /// What `CreateContainer` answers.
    pub fn try_create(self) -> Result<Container<'a, 'p>, Status> {
        let name = self.config.metadata.clone().unwrap_or_default().name;
        let request = CreateContainerRequest {
            pod_sandbox_id: self.pod.id.clone(),
            config: Some(self.config),
            sandbox_config: Some(self.pod.config.clone()),
        };
        let cri = self.pod.cri;
        let answer = cri.call(async |mut client| client.create_container(request).await)?;
        let id = answer.container_id;
        self.pod.containers.borrow_mut().push(id.clone());
        Ok(Container {
            pod: self.pod,
            name,
            id,
        })
    }

    /// Makes it, without starting it.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    #[track_caller]
    pub fn create(self) -> Container<'a, 'p> {
        self.try_create().unwrap()
    }

    /// Makes and starts it.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Container<'a, 'p> {
        let container = self.create();
        container.try_start().unwrap();
        container
    }
}

/// A container of a pod; it goes with the pod.
#[derive(Debug)]
pub struct Container<'a, 'p> {
    pod: &'p Pod<'a>,
    name: String,
    /// Its id.
    pub id: String,
}

impl Container<'_, '_> {
    /// Starts it.
    ///
    /// # Errors
    /// What `StartContainer` answers.
    pub fn try_start(&self) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: self.id.clone(),
        };
        let cri = self.pod.cri;
        cri.call(async |mut client| client.start_container(request).await)
            .map(drop)
    }

    /// Runs a command in it.
    ///
    /// # Errors
    /// What `ExecSync` answers.
    pub fn try_exec(&self, words: &[&str]) -> Result<Output, Status> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: words.iter().map(ToString::to_string).collect(),
            timeout: i64::try_from(DEADLINE.as_secs()).unwrap(),
        };
        let cri = self.pod.cri;
        let answer = cri.call(async |mut client| client.exec_sync(request).await)?;
        Ok(Output {
            code: answer.exit_code,
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
        })
    }

    /// Runs a command in it.
    ///
    /// # Panics
    /// If it cannot be run.
    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> Output {
        self.try_exec(words).unwrap()
    }

    /// Runs a line of shell in it, which must succeed, and gives its output without the last line
    /// feed.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.exec(&["sh", "-c", line]).ok();
        output.trim_end().to_owned()
    }

    fn inspect(&self) -> (ContainerStatus, serde_json::Value) {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            verbose: true,
        };
        let cri = self.pod.cri;
        let answer = cri
            .call(async |mut client| client.container_status(request).await)
            .unwrap();
        (answer.status.unwrap(), information(&answer.info))
    }

    /// Its status.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> ContainerStatus {
        self.inspect().0
    }

    /// The pid of its init.
    ///
    /// # Panics
    /// If it never started.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> Pid {
        let (_, information) = self.inspect();
        let pid = information["pid"].as_i64().expect("a pid");
        Pid::from_raw(i32::try_from(pid).unwrap())
    }

    /// Waits until it has exited, and gives its status then.
    ///
    /// # Panics
    /// If it does not exit.
    #[track_caller]
    pub fn until_exited(&self) -> ContainerStatus {
        until(&format!("container {} has exited", self.name), || {
            self.status().state() == ContainerState::ContainerExited
        });
        self.status()
    }

    /// What it wrote: `stdout` and `stderr` in one, as the kubelet's log has it.
    #[must_use]
    pub fn log(&self) -> String {
        let folder = PathBuf::from(&self.pod.config.log_directory);
        let log = fs::read_to_string(folder.join(format!("{}.log", self.name)));
        log.unwrap_or_default()
            .lines()
            .filter_map(|line| line.splitn(4, ' ').nth(3))
            .map(|text| format!("{text}\n"))
            .collect()
    }

    /// Stops it; SIGKILL follows after this many seconds.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn stop(&self, seconds: i64) {
        let request = StopContainerRequest {
            container_id: self.id.clone(),
            timeout: seconds,
        };
        let cri = self.pod.cri;
        cri.call(async |mut client| client.stop_container(request).await)
            .unwrap();
    }

    /// Removes it.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn remove(&self) {
        let request = RemoveContainerRequest {
            container_id: self.id.clone(),
        };
        let cri = self.pod.cri;
        cri.call(async |mut client| client.remove_container(request).await)
            .unwrap();
    }

    /// Changes its resources while it runs.
    ///
    /// # Errors
    /// What `UpdateContainerResources` answers.
    pub fn update(&self, resources: LinuxContainerResources) -> Result<(), Status> {
        let request = UpdateContainerResourcesRequest {
            container_id: self.id.clone(),
            linux: Some(resources),
            ..Default::default()
        };
        let cri = self.pod.cri;
        cri.call(async |mut client| client.update_container_resources(request).await)
            .map(drop)
    }

    /// Its use of memory now, in bytes.
    ///
    /// # Panics
    /// If there are no statistics.
    #[must_use]
    #[track_caller]
    pub fn memory_in_use(&self) -> u64 {
        let request = ContainerStatsRequest {
            container_id: self.id.clone(),
        };
        let cri = self.pod.cri;
        let answer = cri
            .call(async |mut client| client.container_stats(request).await)
            .unwrap();
        let memory = answer.stats.and_then(|stats| stats.memory);
        let bytes = memory.and_then(|memory| memory.working_set_bytes);
        bytes.expect("memory statistics").value
    }
}

/// The verbose answer of a status call: one string of JSON under `info`.
fn information(info: &HashMap<String, String>) -> serde_json::Value {
    info.get("info")
        .map(|text| serde_json::from_str(text).unwrap())
        .unwrap_or_default()
}

/// The time that the guest and a busy machine need before "nothing happens" means anything.
pub const A_WHILE: Duration = Duration::from_millis(500);
