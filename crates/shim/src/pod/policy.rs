//! What the handler's plugins are asked, and when.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use husk_plugin_host::subject::{self, Question, SharedSpec};
use husk_plugin_host::{Chain, Outcome, decide};
use husk_scope::links::Link;
use husk_scope::{Assignment, Plan, Scope, Scopes};
use oci_spec::runtime::{LinuxResources, Process as OciProcess};

use super::Pod;
use super::container::Container;
use super::order::Turn;
use super::spec::Bundle;
use super::state::{Exit, Published};
use super::withheld::Withheld;
use crate::background::in_background;
use crate::failure::Failure;
use crate::plugins::Plugins;
use crate::sync::lock;

/// Where CRI says which image a container is of.
const IMAGE: &str = "io.kubernetes.cri.image-name";

/// Under which question it is on record that the handler refuses what was answered to it.
pub(super) const SCOPE_SANDBOX: &str = "scope-sandbox";
pub(super) const SCOPE_CONTAINER: &str = "scope-container";
pub(super) const LINK_CONTAINER: &str = "link-container";

/// What plugins may know of the pod beyond its record.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The sandbox's scopes, as requested.
    pub(super) requested: Scopes,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Before the sandbox is planned.
impl Default for Facts {
    fn default() -> Self {
        Self {
            requested: Scopes::all(&Scope::Node),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

impl Pod {
    /// The plugins, loaded at first use: when the sandbox is made.
    async fn plugins(&self) -> Result<Option<&Plugins>, Failure> {
        let load = || async {
            let pod = self.subject();
            let plugins = Plugins::load(&pod, self.config()?, &self.audit, &self.children).await?;
            if let Some(plugins) = &plugins {
                let asked = Arc::clone(&pod);
                plugins
                    .ask(&pod, move |chain| chain.validate_settings(&asked))
                    .await?;
            }
            Ok::<_, Failure>(plugins)
        };
        Ok(self.plugins.get_or_try_init(load).await?.as_ref())
    }

    /// The pod as plugins see it.
    fn subject(&self) -> Arc<subject::Pod> {
        let facts = lock(&self.facts).clone();
        let record = lock(&self.record);
        let or_id = |name: &str| if name.is_empty() { &self.id } else { name }.to_owned();
        Arc::new(subject::Pod {
            id: self.id.clone(),
            name: or_id(&record.name),
            namespace: record.kubernetes_namespace.clone(),
            uid: record.uid.clone(),
            cgroup_parent: record.cgroup_parent.clone(),
            requested: facts.requested,
            containers: record
                .containers
                .iter()
                .map(|found| found.name.clone())
                .collect(),
            labels: facts.labels,
            annotations: facts.annotations,
        })
    }

    /// Puts a question to the plugins, once they have been told all that happened before.
    async fn ask_plugins<T: Send + 'static>(
        &self,
        plugins: &Plugins,
        pod: &Arc<subject::Pod>,
        ask: impl FnOnce(&Chain, &Arc<subject::Pod>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.order.settled().await;
        let asked = Arc::clone(pod);
        plugins.ask(pod, move |chain| ask(chain, &asked)).await
    }

    /// Puts a refusal on record that no plugin alone is answerable for, about what the plugins have
    /// `seen`; gives it back.
    pub(super) async fn refused(
        &self,
        event: &'static str,
        container: Option<String>,
        seen: Option<&subject::Container>,
        failure: Failure,
    ) -> Failure {
        let (audit, pod) = (Arc::clone(&self.audit), self.subject());
        let (reason, seen) = (failure.message.clone(), seen.cloned());
        let recorded = in_background(move || {
            let question = match (event, &seen) {
                (SCOPE_SANDBOX, _) => Some(Question::ScopeSandbox),
                (SCOPE_CONTAINER, Some(seen)) => Some(Question::ScopeContainer(seen)),
                (LINK_CONTAINER, Some(seen)) => Some(Question::LinkContainer(seen)),
                _ => None,
            };
            audit.refused(&pod, event, container, question.as_ref(), &reason);
            Ok(())
        });
        // What keeps the thread from running keeps the pod from being made, too.
        let _ = recorded.await;
        failure
    }

    /// Before anything of the pod exists: may the sandbox be made, and with which scopes? What the
    /// pod asks for is held against the handler's ceiling whether or not there are plugins.
    pub(super) async fn plan_sandbox(&self, facts: Facts) -> Result<Plan, Failure> {
        let requested = facts.requested.clone();
        let assigned = self.ask_about_sandbox(facts).await?;
        match decide::sandbox_plan(self.config()?, &requested, &assigned) {
            Ok(plan) => Ok(plan),
            Err(error) => {
                let failure = format!("the sandbox of pod {}: {error}", self.id);
                let failure = Failure::invalid(failure);
                Err(self.refused(SCOPE_SANDBOX, None, None, failure).await)
            }
        }
    }

    /// Asks the plugins whether there may be such a sandbox, and what they assign to it.
    pub(super) async fn ask_about_sandbox(&self, facts: Facts) -> Result<Vec<Assignment>, Failure> {
        *lock(&self.facts) = facts;
        let Some(plugins) = self.plugins().await? else {
            return Ok(Vec::new());
        };
        let pod = self.subject();
        if plugins.follow_lifecycle() {
            self.ask_plugins(plugins, &pod, |chain, pod| {
                chain.notify(pod, &Question::SandboxStarting)
            })
            .await?;
        }
        if !plugins.decide_scopes() {
            return Ok(Vec::new());
        }
        self.ask_plugins(plugins, &pod, |chain, pod| chain.scopes(pod, None))
            .await
    }

    /// The container that is about to be made, as plugins see it; nothing where nobody looks.
    pub(super) async fn seen_by_plugins(
        &self,
        container: &Container,
        bundle: &Bundle,
        requested: &Scopes,
    ) -> Result<Option<subject::Container>, Failure> {
        let plugins = self.plugins().await?;
        Ok(plugins.map(|_| subject_of(container, bundle, requested)))
    }

    /// What the plugins assign to a container that is about to be made.
    pub(super) async fn assigned_by_plugins(
        &self,
        subject: &subject::Container,
    ) -> Result<Vec<Assignment>, Failure> {
        let plugins = self.plugins().await?;
        let Some(plugins) = plugins.filter(|plugins| plugins.decide_scopes()) else {
            return Ok(Vec::new());
        };
        let (pod, subject) = (self.subject(), subject.clone());
        self.ask_plugins(plugins, &pod, move |chain, pod| {
            chain.scopes(pod, Some(&subject))
        })
        .await
    }

    /// The links that the plugins decide for a container that is about to be made.
    pub(super) async fn linked_by_plugins(
        &self,
        subject: &subject::Container,
    ) -> Result<Vec<Link>, Failure> {
        let plugins = self.plugins().await?;
        let Some(plugins) = plugins.filter(|plugins| plugins.decide_links()) else {
            return Ok(Vec::new());
        };
        let (pod, subject) = (self.subject(), subject.clone());
        self.ask_plugins(plugins, &pod, move |chain, pod| chain.links(pod, &subject))
            .await
    }

    /// Lets the plugins admit and edit a container; what it is then is kept for later questions, if
    /// anybody will hear them.
    pub(super) async fn edited_by_plugins(
        &self,
        container: &Container,
        bundle: &mut Bundle,
        mut subject: subject::Container,
    ) -> Result<(), Failure> {
        let plugins = self.plugins().await?;
        let Some(plugins) = plugins.filter(|plugins| plugins.follow_lifecycle()) else {
            return Ok(());
        };
        let (pod, asked) = (self.subject(), subject.clone());
        let spec = self
            .ask_plugins(plugins, &pod, move |chain, pod| {
                chain.container_creating(pod, &asked)
            })
            .await?;
        // Set once: a container is created once.
        let _ = container
            .withheld
            .set(Withheld::between(&bundle.spec, &spec));
        bundle.spec = spec.clone().into_inner();
        subject.spec = spec;
        let _ = container.subject.set(subject);
        Ok(())
    }

    /// May this exec start?
    pub(super) async fn admit_exec(
        &self,
        container: &Container,
        process: &OciProcess,
    ) -> Result<(), Failure> {
        let process = process.clone();
        self.order.settled().await;
        self.about(container, move |pod, chain, subject| {
            chain.notify(pod, &Question::ExecStarting(subject, &process))
        })
        .await
    }

    /// May these limits be set?
    pub(super) async fn admit_update(
        &self,
        container: &Container,
        resources: &LinuxResources,
    ) -> Result<(), Failure> {
        let resources = resources.clone();
        self.order.settled().await;
        self.about(container, move |pod, chain, subject| {
            chain.notify(pod, &Question::ResourcesUpdating(subject, &resources))
        })
        .await
    }

    /// Asks about a container that the plugins know; one they do not know was made without them.
    async fn about(
        &self,
        container: &Container,
        ask: impl FnOnce(&Arc<subject::Pod>, &Chain, &subject::Container) -> Outcome<()>
        + Send
        + 'static,
    ) -> Result<(), Failure> {
        let (Some(plugins), Some(subject)) = (self.plugins().await?, container.subject.get())
        else {
            return Ok(());
        };
        let (pod, subject) = (self.subject(), subject.clone());
        let asked = Arc::clone(&pod);
        plugins
            .ask(&pod, move |chain| ask(&asked, chain, &subject))
            .await
    }

    /// Tells the plugins what has happened to the sandbox. What they answer changes nothing.
    pub(super) async fn tell_plugins_of_sandbox(&self, question: Question<'static>) {
        self.tell_of_sandbox(self.order.note(), question).await;
    }

    async fn tell_of_sandbox(&self, turn: Turn, question: Question<'static>) {
        turn.comes().await;
        // Those that were never loaded have never heard of the sandbox.
        if let Some(Some(plugins)) = self.plugins.get()
            && plugins.follow_lifecycle()
        {
            let pod = self.subject();
            let asked = Arc::clone(&pod);
            // What went wrong is in the log and in the audit record.
            let _ = plugins
                .ask(&pod, move |chain| chain.notify(&asked, &question))
                .await;
        }
    }

    /// Waits until the plugins have been told all that has happened.
    pub(super) async fn plugins_are_told(&self) {
        self.order.settled().await;
    }

    /// Tells the plugins what containerd is told.
    pub(super) fn tell_plugins_of(self: &Arc<Self>, event: &Published) {
        match event {
            // Without the Sandbox API the sandbox comes with the pod's first container.
            Published::Created { container, .. }
                if *container == self.id && !lock(&self.record).sandbox_api =>
            {
                let (pod, turn) = (Arc::clone(self), self.order.note());
                tokio::spawn(async move {
                    pod.tell_of_sandbox(turn, Question::SandboxStarted).await;
                });
            }
            Published::Started { container, .. } => self.tell_plugins(container, Happened::Started),
            Published::OutOfMemory(container) => {
                if let Some(found) = self.container(container) {
                    found.oom_killed.store(true, Ordering::Relaxed);
                }
                self.tell_plugins(container, Happened::OutOfMemory);
            }
            Published::Exited { process, exit, .. } if process.exec.is_none() => {
                self.tell_plugins(&process.container, Happened::Exited(*exit));
            }
            _ => {}
        }
    }

    /// Tells the plugins, in the background, what has happened to a container.
    fn tell_plugins(self: &Arc<Self>, container: &str, happened: Happened) {
        let container = self.container(container);
        let Some(container) = container.filter(|found| found.subject.get().is_some()) else {
            return;
        };
        let (pod, turn) = (Arc::clone(self), self.order.note());
        tokio::spawn(async move {
            turn.comes().await;
            let oom_killed = container.oom_killed.load(Ordering::Relaxed);
            let told = pod.about(&container, move |facts, chain, subject| {
                chain.notify(facts, &happened.question(subject, oom_killed))
            });
            // What went wrong is in the log and in the audit record.
            let _ = told.await;
        });
    }
}

/// What has happened to a container.
#[derive(Clone, Copy, Debug)]
enum Happened {
    Started,
    Exited(Exit),
    OutOfMemory,
}

impl Happened {
    fn question(self, container: &subject::Container, oom_killed: bool) -> Question<'_> {
        match self {
            Self::Started => Question::ContainerStarted(container),
            Self::Exited(exit) => Question::ContainerExited(
                container,
                subject::Exit {
                    code: exit.code,
                    oom_killed,
                },
            ),
            Self::OutOfMemory => Question::ContainerOom(container),
        }
    }
}

fn subject_of(container: &Container, bundle: &Bundle, requested: &Scopes) -> subject::Container {
    subject::Container {
        id: container.id.clone(),
        name: bundle.name(&container.id),
        requested: requested.clone(),
        image: bundle.annotation(IMAGE).unwrap_or_default().to_owned(),
        spec: SharedSpec::read_from(Arc::clone(&bundle.spec), &bundle.text),
    }
}
