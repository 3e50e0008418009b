//! A pod's whole life.
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::mount::{MsFlags, mount};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::container::{Context, End, container_id};
use super::journal::Journal;
use super::sandbox::Sandbox;
use super::volumes::Mounts as _;
use super::{
    ContainerRecord, Engine, Error, Notice, Observer, Outcome, Record, Status, Stop, files, remove,
    sandbox, volumes,
};
use crate::image::{Image, Progress, Pull, Source, Step, Store};
use crate::manifest::{Container, Pod, PullPolicy, RestartPolicy};
use crate::shim::{Event, Events};
use crate::{cgroup, netns, process, spec};

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
    let images = tokio::select! {
        images = images(engine, &store, &pod, observer.as_ref()) => images?,
        _ = stopping(&stop) => return Ok(Outcome::default()),
    };
    let record = journal.record();
    let dir = engine.paths.state_of(&record.id);
    let data = engine.paths.data_of(&record.id);
    make_netns_and_cgroup(&pod, &record)?;
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
        sandbox: told(&pod, &journal, &dir, &sandbox)?,
        task: sandbox.shim.task(),
        announce_at: (!sandbox.api).then(|| sandbox.shim.address().to_owned()),
        engine: engine.clone(),
        pod,
        journal: Arc::clone(&journal),
        observer,
        store,
        images,
        volumes,
        events,
    };
    let context = Arc::new(context);
    let listening = tokio::spawn(listen(happened));
    let outcome = containers(&context, &stop).await;
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

/// Brings every image of the pod, each once.
async fn images(
    engine: &Engine,
    store: &Store,
    pod: &Pod,
    observer: &dyn Observer,
) -> Result<BTreeMap<String, Image>, Error> {
    let mut images = BTreeMap::new();
    for container in pod.init_containers.iter().chain(&pod.containers) {
        if images.contains_key(&container.image) {
            continue;
        }
        let failed = |source| Error::Image {
            container: container.name.clone(),
            source: Box::new(source),
        };
        let source = Source::parse(&container.image).map_err(failed)?;
        let source = below(&engine.manifests, source);
        let pull = match container.pull_policy {
            PullPolicy::Always => Pull::Always,
            PullPolicy::IfNotPresent => Pull::IfNotPresent,
            PullPolicy::Never => Pull::Never,
        };
        let progress = Steps {
            image: &container.image,
            observer,
        };
        let image = store.get(&source, pull, &progress).await.map_err(failed)?;
        images.insert(container.image.clone(), image);
    }
    Ok(images)
}

/// The source with its path, if it is a relative one, below `dir`.
fn below(dir: &Path, source: Source) -> Source {
    match source {
        Source::Folder(path) => Source::Folder(dir.join(path)),
        Source::Layout { path, name } => Source::Layout {
            path: dir.join(path),
            name,
        },
        Source::Archive { path, name } => Source::Archive {
            path: dir.join(path),
            name,
        },
        registry @ Source::Registry(_) => registry,
    }
}

/// Tells the observer which image a step is of.
struct Steps<'a> {
    image: &'a str,
    observer: &'a dyn Observer,
}

impl Progress for Steps<'_> {
    fn step(&self, step: &Step<'_>) {
        self.observer.notice(&Notice::Image {
            image: self.image,
            step,
        });
    }
}

fn make_netns_and_cgroup(pod: &Pod, record: &Record) -> Result<(), Error> {
    if let Some(path) = &record.netns {
        netns::create(path).map_err(|source| Error::Network {
            path: path.clone(),
            source,
        })?;
    }
    if let Some(path) = &record.cgroup {
        cgroup::create(path, cgroup::Limits::of(pod)).map_err(|source| Error::Cgroup {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// What the specs say of the sandbox: with a pause container, files and /dev/shm are the
/// engine's to make.
fn told(
    pod: &Pod,
    journal: &Journal,
    dir: &Path,
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
        files: files::write(pod, &dir.join("files"), sandbox.api)?,
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

/// Runs init containers one by one, sidecars beside all that follows, then the containers.
async fn containers(context: &Arc<Context>, stop: &watch::Sender<Stop>) -> Result<Outcome, Error> {
    let mut sidecars = Sidecars::default();
    let outcome = match inits(context, stop, &mut sidecars).await {
        Ok(None) => side_by_side(context, stop).await,
        Ok(Some(outcome)) => Ok(outcome),
        Err(error) => Err(error),
    };
    let grace = context.pod.grace;
    if *stop.borrow() == Stop::Not && !sidecars.running.is_empty() {
        context.observer.notice(&Notice::Stopping { grace });
    }
    let ended = sidecars.end(stop).await;
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}

/// The outcome if the pod ends here: an init container failed, or the pod is being stopped.
async fn inits(
    context: &Arc<Context>,
    stop: &watch::Sender<Stop>,
    sidecars: &mut Sidecars,
) -> Result<Option<Outcome>, Error> {
    let policy = match context.pod.restart_policy {
        RestartPolicy::Never => RestartPolicy::Never,
        RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
    };
    for container in &context.pod.init_containers {
        if container.sidecar {
            sidecars.start(context, container).await?;
            continue;
        }
        match context
            .keep(container, policy, stop.subscribe(), || {})
            .await?
        {
            End::Itself(0) => {}
            End::Itself(code) => {
                return Ok(Some(Outcome {
                    failed: Some((container.name.clone(), code)),
                }));
            }
            End::Stopped => return Ok(Some(Outcome::default())),
        }
    }
    Ok(None)
}

/// Runs the pod's containers together. One that cannot be run takes the others with it.
async fn side_by_side(
    context: &Arc<Context>,
    stop: &watch::Sender<Stop>,
) -> Result<Outcome, Error> {
    let waiting: HashSet<_> = context
        .pod
        .containers
        .iter()
        .map(|container| container.name.clone())
        .collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let mut running = JoinSet::new();
    for container in context.pod.containers.clone() {
        let (context, waiting) = (Arc::clone(context), Arc::clone(&waiting));
        let stop = stop.subscribe();
        running.spawn(async move {
            let started = || {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.remove(&container.name) && waiting.is_empty() {
                    let record = context.journal.record();
                    context.observer.notice(&Notice::Ready { record: &record });
                }
            };
            let end = context
                .keep(&container, context.pod.restart_policy, stop, started)
                .await;
            (container.name.clone(), end)
        });
    }
    let mut outcome = Ok(Outcome::default());
    while let Some(joined) = running.join_next().await {
        let (name, end) = joined?;
        match (end, &mut outcome) {
            (
                Ok(End::Itself(code)),
                Ok(Outcome {
                    failed: failed @ None,
                }),
            ) if code != 0 => {
                *failed = Some((name, code));
            }
            (Err(error), Ok(_)) => {
                outcome = Err(error);
                stop.send_modify(|stop| *stop = (*stop).max(Stop::Gently));
            }
            _ => {}
        }
    }
    outcome
}

/// Init containers with `restartPolicy: Always`; Kubernetes stops them after all others.
#[derive(Default)]
struct Sidecars {
    running: JoinSet<Result<End, Error>>,
    stop: watch::Sender<Stop>,
}

impl Sidecars {
    /// Starts one and waits until it runs.
    async fn start(&mut self, context: &Arc<Context>, container: &Container) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let (context, container) = (Arc::clone(context), container.clone());
        let stop = self.stop.subscribe();
        self.running.spawn(async move {
            let started = || {
                let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(sender) = sender {
                    // Nobody waits any more once the pod is being stopped.
                    let _ = sender.send(());
                }
            };
            context
                .keep(&container, RestartPolicy::Always, stop, started)
                .await
        });
        // Dropped unsent when it could not be started; the reason is the task's result.
        if receiver.await.is_err() {
            while let Some(ended) = self.running.join_next().await {
                ended??;
            }
        }
        Ok(())
    }

    /// Stops them all; a further word to the pod is passed on.
    async fn end(mut self, pod: &watch::Sender<Stop>) -> Result<(), Error> {
        let mut pod = pod.subscribe();
        self.stop
            .send_replace((*pod.borrow_and_update()).max(Stop::Gently));
        loop {
            tokio::select! {
                ended = self.running.join_next() => match ended {
                    Some(ended) => { ended??; }
                    None => return Ok(()),
                },
                Ok(()) = pod.changed() => { self.stop.send_replace(*pod.borrow()); }
            }
        }
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

fn node_name() -> Result<String, Error> {
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
