//! The pod: its life, and what carries it out.
//!
//! [`state`] decides, [`effect`] carries out. All requests and outcomes go through [`Pod::tell`],
//! one at a time: the effects of one step are begun, in order, before the next step is taken. An
//! effect that may take long runs in a task of its own and tells its outcome as an event, so that
//! one slow container never holds up another (contract 27).
mod clean;
pub(crate) mod container;
mod create;
mod effect;
mod exec;
mod jobs;
mod links;
mod names;
mod namespaces;
mod order;
mod perform;
mod policy;
mod publish;
mod record;
mod sandbox;
mod spec;
pub(crate) mod state;
mod view;
mod watch;
mod withheld;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use husk_sandbox::rootfs::Mount;
use husk_scope::config::{self, Config};
use husk_scope::record as on_disk;
use log::{info, warn};
use oci_spec::runtime::Process as OciProcess;
use tokio::sync::{OnceCell, oneshot};

use self::container::{Container, Process};
use self::jobs::Jobs;
use self::links::Links;
use self::namespaces::Sandbox;
use self::order::Order;
use self::policy::Facts;
pub(crate) use self::sandbox::NewSandbox;
use self::state::{Effect, Event, ProcessId, Reply, Request, State, Token};
use crate::audit::Audit;
use crate::children::Children;
use crate::context::Context;
use crate::failure::Failure;
use crate::handler::Handler;
use crate::io::Stdio;
use crate::plugins::Plugins;
use crate::publisher::Publisher;
use crate::shutdown::Shutdown;
use crate::store::{self, Store};
use crate::sync::lock;

/// A pod and everything its shim keeps of it.
pub(crate) struct Pod {
    pub(crate) namespace: String,
    /// The sandbox's id.
    pub(crate) id: String,
    handler: Handler,
    store: Store,
    publisher: Publisher,
    shutdown: Shutdown,
    jobs: Arc<Jobs>,
    children: Arc<Children>,
    life: Mutex<Life>,
    record: Mutex<on_disk::Pod>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    sandbox: Mutex<Sandbox>,
    links: Links,
    facts: Mutex<Facts>,
    audit: Arc<Audit>,
    /// The handler's plugins, once the sandbox is made.
    plugins: OnceCell<Option<Plugins>>,
    /// In which the plugins are told what has happened.
    order: Arc<Order>,
    /// What to make the sandbox from, until it is made.
    new_sandbox: Mutex<Option<NewSandbox>>,
    /// Held while a shared namespace is made, so that none is made twice.
    sharing: tokio::sync::Mutex<()>,
}

/// The pod's state, and who waits for what.
#[derive(Default)]
struct Life {
    state: State,
    last_token: u64,
    waiting: HashMap<Token, oneshot::Sender<Result<Reply, Failure>>>,
}

/// What containerd says of a container that it wants made.
pub(crate) struct NewContainer {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) stdio: Stdio,
}

impl Pod {
    /// A pod of which nothing is made yet. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The zygote or SIGCHLD cannot be watched.
    pub(crate) fn new(context: Context) -> io::Result<Arc<Self>> {
        let children = Arc::new(Children::default());
        children.reap_from_now_on()?;
        // Of a handler that makes no sense every pod is refused, and nothing decided.
        let config = context.handler.config.as_ref();
        let audit = config.map_or_else(
            |_| Audit::new(&config::Audit::default()),
            |config| Audit::new(&config.audit),
        );
        Ok(Arc::new(Self {
            namespace: context.namespace,
            id: context.id,
            handler: context.handler,
            store: context.store,
            publisher: context.publisher,
            shutdown: context.shutdown,
            jobs: Jobs::new(context.zygote, &children)?,
            children,
            life: Mutex::default(),
            record: Mutex::new(context.record),
            containers: Mutex::default(),
            sandbox: Mutex::default(),
            links: Links::default(),
            facts: Mutex::default(),
            audit: Arc::new(audit),
            plugins: OnceCell::new(),
            order: Arc::default(),
            new_sandbox: Mutex::default(),
            sharing: tokio::sync::Mutex::default(),
        }))
    }
}

/// Someone who waits for an answer, until dropped.
struct Caller<'a> {
    pod: &'a Arc<Pod>,
    token: Token,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        // One that was answered is in the list no more.
        if lock(&self.pod.life).waiting.remove(&self.token).is_some() {
            self.pod.tell(Event::Left(self.token));
        }
    }
}

impl Pod {
    /// Asks for something and waits for the answer.
    pub(crate) async fn ask(self: &Arc<Self>, request: Request) -> Result<Reply, Failure> {
        self.ask_and(request, || {}).await
    }

    /// Asks for a container.
    pub(crate) async fn create(self: &Arc<Self>, new: NewContainer) -> Result<Reply, Failure> {
        store::check_id(&new.id).map_err(|error| Failure::invalid(error.to_string()))?;
        let NewContainer {
            id,
            bundle,
            mounts,
            stdio,
        } = new;
        let dir = self.store.dir().join("containers").join(&id);
        let container = Container::new(id.clone(), bundle, mounts, dir, stdio);
        let adopt = || {
            lock(&self.containers).insert(id.clone(), Arc::new(container));
        };
        self.ask_and(Request::Create(id.clone()), adopt).await
    }

    /// Asks for a further process of a container.
    pub(crate) async fn add_exec(
        self: &Arc<Self>,
        id: &str,
        exec: &str,
        mut spec: OciProcess,
        stdio: Stdio,
    ) -> Result<Reply, Failure> {
        // The request says what containerd opens, whatever the spec says.
        spec.set_terminal(Some(stdio.terminal));
        store::check_id(exec).map_err(|error| Failure::invalid(error.to_string()))?;
        let adopt = || {
            if let Some(container) = self.container(id) {
                let process = Arc::new(Process::exec(spec, stdio));
                lock(&container.execs).insert(exec.to_owned(), process);
            }
        };
        self.ask_and(Request::Exec(id.to_owned(), exec.to_owned()), adopt)
            .await
    }

    /// Asks; `adopt` runs once the request is not refused, before anything is done about it.
    async fn ask_and(
        self: &Arc<Self>,
        request: Request,
        adopt: impl FnOnce(),
    ) -> Result<Reply, Failure> {
        let (sender, receiver) = oneshot::channel();
        let token = {
            let mut life = lock(&self.life);
            life.last_token += 1;
            let token = Token(life.last_token);
            life.waiting.insert(token, sender);
            let effects = life.state.step(Event::Request(token, request));
            let refused =
                |effect: &Effect| matches!(effect, Effect::Reply(t, Err(_)) if *t == token);
            if !effects.iter().any(refused) {
                adopt();
            }
            self.carry_out(effects, &mut life);
            token
        };
        // Whoever stops waiting must not be kept in mind for as long as a container runs.
        let _caller = Caller { pod: self, token };
        receiver
            .await
            .unwrap_or_else(|_| Err(Failure::internal("the shim ends: nobody answers any more")))
    }

    /// Takes in what happened.
    pub(crate) fn tell(self: &Arc<Self>, event: Event) {
        let mut life = lock(&self.life);
        let effects = life.state.step(event);
        self.carry_out(effects, &mut life);
    }

    /// The container of this id, made or being made.
    pub(crate) fn container(&self, id: &str) -> Option<Arc<Container>> {
        lock(&self.containers).get(id).cloned()
    }

    /// The process, noted or made.
    pub(crate) fn process(&self, id: &ProcessId) -> Option<Arc<Process>> {
        self.container(&id.container)?.process(id.exec.as_deref())
    }

    fn existing(&self, id: &str) -> Result<Arc<Container>, Failure> {
        self.container(id)
            .ok_or_else(|| Failure::not_found(format!("there is no container {id} in this pod")))
    }

    /// The handler's configuration.
    ///
    /// # Errors
    /// It could not be read; said here because nobody was there to be told at start.
    fn config(&self) -> Result<&Config, Failure> {
        self.handler
            .config
            .as_ref()
            .map_err(|error| Failure::invalid(crate::failure::with_causes(error)))
    }

    /// Changes the record and writes it.
    fn record(&self, change: impl FnOnce(&mut on_disk::Pod)) {
        let mut record = lock(&self.record);
        change(&mut record);
        if let Err(error) = self.store.save(&record) {
            // The pod runs on: what is lost is the clean-up after this shim's own death.
            warn!("the record of pod {} is not up to date: {error}", self.id);
        }
    }

    /// The record, for whoever asks for details.
    pub(crate) fn record_json(&self) -> Result<String, Failure> {
        serde_json::to_string(&*lock(&self.record))
            .map_err(|error| Failure::internal(format!("the record cannot be written: {error}")))
    }

    /// Whether the Sandbox API made it.
    pub(crate) fn is_of_the_sandbox_api(&self) -> bool {
        lock(&self.record).sandbox_api
    }

    /// Whether nothing lives in the pod.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.life).state.is_idle()
    }

    /// Ends the pod if nobody can find it any more; what runs, runs on.
    ///
    /// containerd knows its shims by their bundles, also after a restart, and removes a bundle when
    /// it has deleted the container or has given up making it. It does so when the client dies
    /// during Create, and is not told when that outlasts its patience.
    pub(crate) fn forsake(self: &Arc<Self>) {
        // The shim's own working directory is its first container's bundle, or the sandbox's.
        let own_is_gone = std::env::current_dir().is_err();
        let containers: Vec<_> = lock(&self.containers).values().cloned().collect();
        let all_are_gone = || containers.iter().all(|found| !found.bundle.exists());
        if own_is_gone && all_are_gone() {
            info!(
                "the bundles of pod {} are gone, and nobody is connected",
                self.id
            );
            self.tell(Event::Forsaken);
        }
    }

    /// The state, for the log (contract 48).
    pub(crate) fn dump(&self) -> String {
        let life = lock(&self.life);
        format!("{:#?}\n{} requests wait", life.state, life.waiting.len())
    }
}
