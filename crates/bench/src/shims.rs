//! What is measured at the shim, without containerd.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;

use crate::maker::Maker;
use crate::memory;
use crate::pod::{END, Pod, STAY};
use crate::stats::{Quantity, Sample};

/// How long processes are left alone before their memory is looked at.
const REST: Duration = Duration::from_millis(200);

/// The container that stays for execs.
const STAYS: &str = "stays";

/// A candidate's pod that stays from round to round, and a number for what comes and goes in it.
pub(crate) struct Lasting<'a> {
    pub(crate) pod: Pod<'a>,
    maker: &'a Maker<'a>,
    count: usize,
    stays: String,
}

impl<'a> Lasting<'a> {
    /// A pod with a container that stays.
    pub(crate) async fn make(maker: &'a Maker<'a>) -> Result<Self> {
        let mut pod = maker.make("lasting").await?;
        let stays = pod.prepare(STAYS, &STAY)?;
        pod.stay(stays.clone()).await?;
        Ok(Self {
            pod,
            maker,
            count: 0,
            stays,
        })
    }

    /// Create, Start, Wait and Delete of a container that ends by itself.
    pub(crate) async fn life(&mut self) -> Result<Sample> {
        self.count += 1;
        let id = self.pod.prepare(&self.count.to_string(), &END)?;
        let timer = Timer::begin(self.maker)?;
        self.pod.live(&id).await?;
        let sample = timer.end().await?;
        self.maker.bed.remove_bundle(&id)?;
        Ok(sample)
    }

    /// Exec, Start, Wait and Delete of an exec that ends by itself.
    pub(crate) async fn exec(&mut self) -> Result<Sample> {
        self.count += 1;
        let (id, process) = (self.count.to_string(), self.pod.exec(&END)?);
        let timer = Timer::begin(self.maker)?;
        self.pod.live_exec(&self.stays, &id, process).await?;
        timer.end().await
    }
}

/// What a candidate does from now on.
struct Timer<'a> {
    maker: &'a Maker<'a>,
    used: Duration,
    begun: Instant,
}

impl<'a> Timer<'a> {
    fn begin(maker: &'a Maker<'a>) -> Result<Self> {
        Ok(Self {
            maker,
            used: maker.account.used()?,
            begun: Instant::now(),
        })
    }

    async fn end(self) -> Result<Sample> {
        let wall = self.begun.elapsed();
        let used = self.maker.account.settled().await?;
        Ok(times(wall, used.saturating_sub(self.used)))
    }
}

/// A wall time and a processor time.
pub(crate) fn times(wall: Duration, cpu: Duration) -> Sample {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    vec![
        (Quantity::WallMs, milliseconds(wall)),
        (Quantity::CpuMs, milliseconds(cpu)),
    ]
}

/// `start`: wall time until its answer, processor time until the shim rests.
pub(crate) async fn start(maker: &Maker<'_>) -> Result<Sample> {
    let prepared = maker.prepare("start")?;
    let before = maker.account.used()?;
    let (pod, took) = maker.start(&prepared).await?;
    let used = maker.account.settled().await?;
    pod.end_unused().await?;
    Ok(times(took, used.saturating_sub(before)))
}

/// A pod's whole life: `start`, the sandbox, one container's life, and its end until the shim's
/// process is gone.
pub(crate) async fn pod(maker: &Maker<'_>) -> Result<Sample> {
    let prepared = maker.prepare("pod")?;
    let timer = Timer::begin(maker)?;
    let (pod, _) = maker.start(&prepared).await?;
    pod.make_sandbox().await?;
    // As in containerd, a container's bundle is written between the sandbox and its container.
    let id = pod.prepare("only", &END)?;
    pod.live(&id).await?;
    pod.end().await?;
    let sample = timer.end().await?;
    maker.bed.remove_bundle(&id)?;
    Ok(sample)
}

/// The memory of a pod with one container, and with three.
pub(crate) async fn memory(maker: &Maker<'_>) -> Result<[Sample; 2]> {
    let mut pod = maker.make("memory").await?;
    let one = memory_with(maker, &mut pod, 1).await?;
    let three = memory_with(maker, &mut pod, 3).await?;
    pod.end().await?;
    Ok([one, three])
}

async fn memory_with(maker: &Maker<'_>, pod: &mut Pod<'_>, containers: usize) -> Result<Sample> {
    for number in pod.inits().len()..containers {
        let id = pod.prepare(&number.to_string(), &STAY)?;
        pod.stay(id).await?;
    }
    maker.account.settled().await?;
    tokio::time::sleep(REST).await;
    memory::of(maker, pod.inits(), 1)
}

/// So many pods with a container each, made at once: wall time until all run; processor time and
/// memory for each.
pub(crate) async fn pods(maker: &Maker<'_>, count: usize) -> Result<Sample> {
    let names = (0..count).map(|number| format!("at-once-{number}"));
    let prepared = names.map(|name| maker.prepare(&name));
    let prepared = prepared.collect::<Result<Vec<_>>>()?;
    let before = maker.account.used()?;
    let begun = Instant::now();
    let making = prepared.iter().map(|prepared| async {
        let (mut pod, _) = maker.start(prepared).await?;
        pod.make_sandbox().await?;
        let id = pod.prepare(STAYS, &STAY)?;
        pod.stay(id).await?;
        anyhow::Ok(pod)
    });
    let pods = try_join_all(making).await?;
    let wall = begun.elapsed();
    let used = maker.account.settled().await?.saturating_sub(before);
    let each = u32::try_from(count).context("too many pods")?.max(1);
    let mut sample = times(wall, used / each);
    tokio::time::sleep(REST).await;
    let inits: Vec<i32> = pods.iter().flat_map(|pod| pod.inits().to_vec()).collect();
    sample.extend(memory::of(maker, &inits, count)?);
    try_join_all(pods.into_iter().map(Pod::end)).await?;
    Ok(sample)
}
