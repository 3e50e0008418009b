//! What is measured through containerd.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use husk_engine::account::{Account, settled};

use crate::cri::{Cri, CriPod, Network};
use crate::handler::Handler;
use crate::shims::times;
use crate::stats::Sample;

/// A handler, its pods' cgroup, and a number for each pod.
pub(crate) struct Kubelet {
    cri: Cri,
    handler: Handler,
    account: Account,
    logs: PathBuf,
    count: usize,
}

impl Kubelet {
    /// For pods of a handler; their logs go below `logs`.
    pub(crate) fn new(cri: Cri, handler: Handler, account: Account, logs: PathBuf) -> Self {
        Self {
            cri,
            handler,
            account,
            logs,
            count: 0,
        }
    }

    /// A pod's life: RunPodSandbox, one container, one exec, and the end of both.
    pub(crate) async fn life(&mut self, network: Network) -> Result<Sample> {
        let mut pod = self.pod(network)?;
        let before = self.used().await?;
        let begun = Instant::now();
        pod.run(&self.handler).await?;
        pod.exec().await?;
        pod.end().await?;
        let wall = begun.elapsed();
        Ok(times(wall, self.used().await?.saturating_sub(before)))
    }

    /// So many pods with a container each, made at once: wall time until all run; processor time
    /// for each.
    pub(crate) async fn pods(&mut self, count: usize) -> Result<Sample> {
        let pods = (0..count).map(|_| self.pod(Network::Cni));
        let mut pods = pods.collect::<Result<Vec<_>>>()?;
        let before = self.used().await?;
        let begun = Instant::now();
        let handler = &self.handler;
        try_join_all(pods.iter_mut().map(|pod| pod.run(handler))).await?;
        let wall = begun.elapsed();
        let used = self.used().await?.saturating_sub(before);
        try_join_all(pods.iter().map(CriPod::end)).await?;
        let each = u32::try_from(count).context("too many pods")?.max(1);
        Ok(times(wall, used / each))
    }

    fn pod(&mut self, network: Network) -> Result<CriPod> {
        self.count += 1;
        let name = format!("{}-{}-{}", crate::bed::tag(), self.handler.name, self.count);
        let logs = self.logs.join(&name);
        std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
        Ok(self.cri.pod(&name, self.account.path(), &logs, network))
    }

    /// containerd's time with its shims', and the pods'.
    async fn used(&self) -> Result<Duration> {
        let cgroups = [self.cri.cgroup.clone(), self.account.directory()];
        Ok(settled(&cgroups).await?)
    }

    /// Clears away what is left after a measure; nothing, unless it failed.
    pub(crate) async fn clear(self) -> Result<()> {
        self.cri.remove_pods(&crate::bed::tag()).await?;
        Ok(self.account.remove().await?)
    }
}
