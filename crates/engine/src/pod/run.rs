//! A pod's whole life.
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use husk_node::process;
use nix::mount::{MsFlags, mount};
use tokio::sync::{mpsc, watch};

use super::container::{Context, container_id};
use super::journal::Journal;
use super::sandbox::Sandbox;
use super::volumes::Mounts as _;
use super::{
    ContainerRecord, Engine, Error, Notice, Observer, Outcome, Record, Status, Stop, files, load,
    order, remove, sandbox, volumes,
};
use crate::image::Store;
use crate::manifest::{Container, Pod};
use crate::network::Network;
use crate::shim::{Event, Events};
use crate::{cgroup, netns, network, spec};

/// The size of a pod's /dev/shm: the container runtimes' usual 64 MiB.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// Runs a pod until its containers are over or `stop` says so, and gives back what it took. Its
/// record and logs stay if `keep`.
///
/// # Errors
/// The first thing that failed; everything is undone.
pub async fn run(
    engine: &Engine,
    mut pod: Pod,
    keep: bool,
    observer: Arc<dyn Observer>,
    stop: watch::Sender<Stop>,
) -> Result<Outcome, Error> {
    pod.host_network = engine.network.network == Network::Host;
    files::ask_by(&mut pod.dns, &engine.network.network);
    if pod.host_network {
        pod.hostname = node_name()?;
    }
    let journal = Arc::new(begin(engine, &pod)?);
    let ran = run_recorded(engine, pod, Arc::clone(&journal), observer, stop).await;
    let record = journal.record();
    let mut released = remove::release(engine, &record).await;
    if released.is_ok() && (!keep || ran.is_err()) {
        released = remove::forget(engine, &record);
    }
    match (ran, released) {
        (Err(error), Err(releasing)) => {
            log::warn!("undoing pod {}: {releasing}", record.name);
            Err(error)
        }
        (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
        (Ok(outcome), Ok(())) => Ok(outcome),
    }
}

/// Makes the pod's directory and record.
fn begin(engine: &Engine, pod: &Pod) -> Result<Journal, Error> {
    remove::sweep(&engine.paths)?;
    let same = |record: &Record| record.name == pod.name && record.namespace == pod.namespace;
    if let Some(other) = Record::all(&engine.paths)?.into_iter().find(same) {
        return Err(Error::Exists {
            name: other.name,
            id: other.id,
        });
    }
    let id = new_id()?;
    let record_of = |container: &Container, init| ContainerRecord {
        name: container.name.clone(),
        id: container_id(&id, &container.name),
        init,
        status: Status::Waiting,
        restarts: 0,
    };
    let inits = pod
        .init_containers
        .iter()
        .map(|container| record_of(container, true));
    let others = pod
        .containers
        .iter()
        .map(|container| record_of(container, false));
    let containers = inits.chain(others).collect();
    let record = Record {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        created_ms: now_ms(),
        supervisor: process::this(),
        shim: engine.shim.path().to_owned(),
        cgroup: Some(cgroup::of_pod(&id)),
        network: engine.network.network.clone(),
        netns: (!pod.host_network).then(|| engine.paths.state_of(&id).join("netns")),
        containers,
        id,
        ..Record::default()
    };
    let make = |dir: PathBuf| fs::create_dir_all(&dir).map_err(Error::io("make", dir));
    make(engine.paths.state_of(&record.id))?;
    let logs = engine.paths.data_of(&record.id).join("logs");
    let journal = Journal::begin(&engine.paths, record)?;
    make(logs)?;
    Ok(journal)
}

async fn run_recorded(
    engine: &Engine,
    pod: Pod,
    journal: Arc<Journal>,
    observer: Arc<dyn Observer>,
    stop: watch::Sender<Stop>,
) -> Result<Outcome, Error> {
    let store = open_store(engine)?;
    let (init_containers, containers) = tokio::select! {
        loaded = load::load(engine, &store, &pod, observer.as_ref()) => loaded?,
        _ = stopping(&stop) => return Ok(Outcome::default()),
    };
    let record = journal.record();
    let dir = engine.paths.state_of(&record.id);
    let data = engine.paths.data_of(&record.id);
    make_netns_and_cgroup(engine, &pod, &record)?;
    let volumes = volumes::prepare(&pod, &data.join("volumes"), journal.as_ref())?;
    let (server, happened) = Events::serve(&dir).await?;
    let events = server.address().to_owned();

    let sandbox = sandbox::start(engine, &pod, &record, &events).await?;
    journal.write(|record| {
        record.address = sandbox.shim.address().to_owned();
        record.version = sandbox.shim.version();
        record.sandbox_api = sandbox.api;
    })?;
    observer.notice(&Notice::Sandbox {
        record: &journal.record(),
    });
    let context = Context {
        sandbox: told(&pod, &journal, (&dir, &data.join("files")), &sandbox)?,
        task: sandbox.shim.task(),
        announce_at: (!sandbox.api).then(|| sandbox.shim.address().to_owned()),
        engine: engine.clone(),
        pod,
        journal: Arc::clone(&journal),
        observer,
        store,
        init_containers,
        containers,
        volumes,
        events,
    };
    let context = Arc::new(context);
    let listening = tokio::spawn(listen(happened));
    let outcome = order::run_containers(&context, &stop).await;
    listening.abort();
    outcome
}

/// Resolves once the pod is to be stopped.
async fn stopping(stop: &watch::Sender<Stop>) {
    // It cannot be closed: `stop` is a sender.
    let _ = stop.subscribe().wait_for(|stop| *stop != Stop::Not).await;
}

fn open_store(engine: &Engine) -> Result<Store, Error> {
    Store::open(engine.paths.images()).map_err(|source| Error::Image {
        container: String::from("any"),
        source: Box::new(source),
    })
}

fn make_netns_and_cgroup(engine: &Engine, pod: &Pod, record: &Record) -> Result<(), Error> {
    if let Some(path) = &record.netns {
        netns::create(path).map_err(|source| Error::Network {
            path: path.clone(),
            source,
        })?;
        lead_out(engine, record, path)?;
    }
    if let Some(path) = &record.cgroup {
        cgroup::create(path, cgroup::Limits::of(pod)).map_err(|source| Error::Cgroup {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

fn lead_out(engine: &Engine, record: &Record, netns: &Path) -> Result<(), Error> {
    let dir = engine.paths.state_of(&record.id);
    match network::attach(&engine.network, &record.id, netns, &dir) {
        // Nobody asked for it: the pod has what it would have without the program.
        Err(error) if !engine.network.asked_for && engine.network.published.is_empty() => {
            log::warn!("the pod's network is nothing but loopback: {error}");
            Ok(())
        }
        attached => Ok(attached?),
    }
}

/// What the specs say of the sandbox: with a pause container, files and /dev/shm are the
/// engine's to make. Containers may write to the files: they are on a disk, not on /run.
fn told(
    pod: &Pod,
    journal: &Journal,
    (dir, files): (&Path, &Path),
    sandbox: &Sandbox,
) -> Result<spec::Sandbox, Error> {
    let shm = if sandbox.api || pod.host_ipc {
        None
    } else {
        Some(mount_shm(dir, journal)?)
    };
    let record = journal.record();
    Ok(spec::Sandbox {
        id: record.id,
        pid: sandbox.pid,
        cgroup: record.cgroup.unwrap_or_default(),
        files: files::write(pod, files, sandbox.api)?,
        shm,
    })
}

fn mount_shm(dir: &Path, journal: &Journal) -> Result<PathBuf, Error> {
    let path = dir.join("shm");
    fs::create_dir(&path).map_err(Error::io("make", &path))?;
    journal.about_to_mount(&path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(SHM_OPTIONS))
        .map_err(|errno| Error::io("mount a tmpfs at", &path)(errno.into()))?;
    Ok(path)
}

/// Logs what the shim publishes; what matters here is learned by waiting.
async fn listen(mut happened: mpsc::UnboundedReceiver<Event>) {
    while let Some(Event { topic, .. }) = happened.recv().await {
        log::debug!("event {topic}");
    }
}

/// Twelve hexadecimal digits.
fn new_id() -> Result<String, Error> {
    let random = Path::new("/dev/urandom");
    let mut bytes = [0; 6];
    File::open(random)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io("read", random))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn node_name() -> Result<String, Error> {
    let file = Path::new("/proc/sys/kernel/hostname");
    let name = fs::read_to_string(file).map_err(Error::io("read", file))?;
    Ok(name.trim().to_owned())
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
