//! A pod at a shim, made as containerd makes it: by the Sandbox API where the shim has it, else
//! with a pause container.
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use husk_engine::shim::{NamespaceMode, PodSandboxConfig, Shim, Stdio, Task};
use husk_engine::spec;
use husk_node::process::{self, Process};
use oci_spec::runtime::Spec;

use crate::maker::{Maker, socket};

const SIGKILL: u32 = 9;

/// The annotation in which CRI puts a container's name.
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

/// How long a shim may take to end after Shutdown, and how often it is looked for.
const ENDING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(1);

/// What a container that stays runs.
pub(crate) const STAY: [&str; 2] = ["/bin/sleep", "1000000"];
/// What a container that lives as short as it can runs.
pub(crate) const END: [&str; 1] = ["/bin/true"];

/// A pod whose shim runs.
pub(crate) struct Pod<'a> {
    maker: &'a Maker<'a>,
    id: String,
    shim: Shim,
    /// Pids of containers' inits, which are not the pod's own processes.
    inits: Vec<i32>,
    containers: Vec<String>,
}

impl<'a> Pod<'a> {
    /// A pod whose shim has just been started.
    pub(crate) const fn new(maker: &'a Maker<'a>, id: String, shim: Shim) -> Self {
        Self {
            maker,
            id,
            shim,
            inits: Vec::new(),
            containers: Vec::new(),
        }
    }

    /// Makes the sandbox.
    pub(crate) async fn make_sandbox(&self) -> Result<(), husk_engine::shim::Error> {
        let (maker, id) = (self.maker, &self.id);
        let bundle = maker.bed.bundle(id);
        if !maker.api {
            let options = maker.candidate.runc_options();
            let task = self.shim.task();
            task.create(id, &bundle, Vec::new(), &Stdio::default(), options)
                .await?;
            return task.start(id, "").await.map(drop);
        }
        let config = PodSandboxConfig {
            name: id.clone(),
            uid: id.clone(),
            namespace: "default".into(),
            hostname: "bench".into(),
            cgroup_parent: maker.cgroup(id),
            pid: NamespaceMode::Container,
            ..PodSandboxConfig::default()
        };
        let (sandbox, network) = (self.shim.sandbox(), maker.bed.network());
        sandbox
            .create(id, &bundle, Some(&network), config.to_any())
            .await?;
        sandbox.start(id).await.map(drop)
    }

    /// Writes the bundle of a container. Returns its id.
    pub(crate) fn prepare(&self, name: &str, args: &[&str]) -> Result<String> {
        let id = format!("{}-{name}", self.id);
        let mut spec = self.spec(&id, args)?;
        // By which a handler's configuration knows it.
        if let Some(annotations) = spec.annotations_mut() {
            annotations.insert(CONTAINER_NAME.to_owned(), name.to_owned());
        }
        self.maker.bed.write_bundle(&id, Some(&spec))?;
        Ok(id)
    }

    fn spec(&self, id: &str, args: &[&str]) -> Result<Spec> {
        let cgroup = format!("{}/{id}", self.maker.cgroup(&self.id));
        Ok(spec::alone(&self.id, &cgroup, args)?)
    }

    /// Create and Start. Returns init's pid.
    async fn run(&self, id: &str) -> Result<u32, husk_engine::shim::Error> {
        let bundle = self.maker.bed.bundle(id);
        let options = self.maker.candidate.runc_options();
        let task = self.task();
        task.create(id, &bundle, Vec::new(), &Stdio::default(), options)
            .await?;
        task.start(id, "").await
    }

    /// The whole life of a container that ends by itself.
    pub(crate) async fn live(&self, id: &str) -> Result<()> {
        self.run(id).await?;
        let exit = self.task().wait(id, "").await?;
        self.task().delete(id, "").await?;
        ensure!(exit.code == 0, "container {id} exited with {}", exit.code);
        Ok(())
    }

    /// Starts a container that stays until the pod ends.
    pub(crate) async fn stay(&mut self, id: String) -> Result<()> {
        let pid = self.run(&id).await?;
        self.inits.push(i32::try_from(pid)?);
        self.containers.push(id);
        Ok(())
    }

    /// The process of an exec, as JSON.
    pub(crate) fn exec(&self, args: &[&str]) -> Result<Vec<u8>> {
        let spec = self.spec("exec", args)?;
        Ok(serde_json::to_vec(spec.process())?)
    }

    /// The whole life of an exec that ends by itself.
    pub(crate) async fn live_exec(
        &self,
        container: &str,
        exec: &str,
        process: Vec<u8>,
    ) -> Result<()> {
        let task = self.task();
        task.exec(container, exec, process, &Stdio::default())
            .await?;
        task.start(container, exec).await?;
        let exit = task.wait(container, exec).await?;
        task.delete(container, exec).await?;
        ensure!(exit.code == 0, "exec {exec} exited with {}", exit.code);
        Ok(())
    }

    /// The shim's Task service.
    pub(crate) fn task(&self) -> Task {
        self.shim.task()
    }

    /// The inits of its containers.
    pub(crate) fn inits(&self) -> &[i32] {
        &self.inits
    }

    /// Ends the containers, the sandbox and the shim, and waits until the shim is gone.
    pub(crate) async fn end(mut self) -> Result<()> {
        for id in std::mem::take(&mut self.containers) {
            self.kill(&id).await?;
            self.maker.bed.remove_bundle(&id)?;
        }
        let shim = self.process().await;
        if self.maker.api {
            self.shim.sandbox().stop(&self.id).await?;
            self.shim.sandbox().shutdown(&self.id).await?;
        } else {
            self.kill(&self.id).await?;
            self.task().shutdown(&self.id).await?;
        }
        self.let_go(shim).await
    }

    async fn kill(&self, id: &str) -> Result<()> {
        let task = self.task();
        task.kill(id, "", SIGKILL, false).await?;
        task.wait(id, "").await?;
        task.delete(id, "").await?;
        Ok(())
    }

    /// Ends a shim that has neither sandbox nor container.
    pub(crate) async fn end_unused(self) -> Result<()> {
        let shim = self.process().await;
        self.task().shutdown(&self.id).await?;
        self.let_go(shim).await
    }

    /// The shim's process, told from a later one of the same pid.
    async fn process(&self) -> Option<Process> {
        let answer = self.task().connect(&self.id).await.ok()?;
        process::by_pid(i32::try_from(answer.shim_pid).ok()?)
    }

    /// Closes the connection, as containerd does, and waits until the shim is gone.
    async fn let_go(self, shim: Option<Process>) -> Result<()> {
        let socket = socket(&self.shim);
        let Self {
            maker,
            id,
            shim: connection,
            ..
        } = self;
        drop(connection);
        let deadline = Instant::now() + ENDING;
        while socket.exists() || shim.is_some_and(process::is_alive) {
            ensure!(
                Instant::now() < deadline,
                "the shim of {} did not exit after Shutdown",
                maker.candidate.name
            );
            tokio::time::sleep(LOOK).await;
        }
        maker.forget(&id)
    }
}
