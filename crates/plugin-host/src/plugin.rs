//! One plugin: what it exports, and one call of it.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use husk_scope::links::{Direction, Link, MOST, Peer, Protocol};
use husk_scope::{Kind, Scope, config};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::bindings::{configurable, lifecycle, linking, scoping};
use crate::engine::Host;
use crate::guest_log::{self, Level};
use crate::limits::{CROSSING, HANDLES, OverLimit};
use crate::state::State;
use crate::subject::{Container, Pod, Question};
use crate::wasi;

/// The longest name of a group or a target, in bytes: that of a DNS name, as Kubernetes allows.
const NAME: usize = 253;

/// How much of one edit, and of all edits or links, an answer in words tells, in bytes.
const EDIT_TOLD: usize = 512;
const TOLD: usize = 8192;

/// How many functions a failure names, and how much of each name, in bytes.
const FRAMES: usize = 8;
const FRAME: usize = 100;

/// The longest reason that is kept, in bytes.
const REASON: usize = 4096;

/// How a plugin is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its part of the handler's configuration.
    pub config: config::Plugin,
    /// The seccomp profiles it may name.
    pub seccomp_profiles: Arc<BTreeMap<String, LinuxSeccomp>>,
}

/// A plugin, ready to be asked.
#[derive(Clone)]
pub struct Plugin {
    host: Host,
    settings: Arc<Settings>,
    digest: String,
    instance: InstancePre<State>,
    scoping: Option<scoping::GuestIndices>,
    linking: Option<linking::GuestIndices>,
    lifecycle: Option<lifecycle::GuestIndices>,
    configurable: Option<configurable::GuestIndices>,
}

/// What a plugin takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exports {
    /// It decides scopes.
    pub decides_scopes: bool,
    /// It decides links.
    pub decides_links: bool,
    /// It takes part in the lifecycle.
    pub follows_lifecycle: bool,
}

/// Why a component is not a plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It exports nothing that husk calls.
    #[error(
        "plugin `{plugin}` exports none of the interfaces scoping, linking and lifecycle of \
         husk:plugin@0.1: build it for the world `policy`, `links` or `hooks` of husk:plugin@0.1.1"
    )]
    NoExport {
        /// The plugin.
        plugin: String,
    },
    /// It was built for a version that does not fit.
    #[error(
        "plugin `{plugin}` was built for husk:plugin@{version}; this husk serves 0.1.x: build it with \
         the WIT package of this version"
    )]
    Version {
        /// The plugin.
        plugin: String,
        /// What it was built for.
        version: String,
    },
    /// It is given settings and never asks for any.
    #[error(
        "{at}: plugin `{plugin}` takes no settings: remove them, or use the plugin that was meant"
    )]
    NoSettings {
        /// The plugin.
        plugin: String,
        /// Where the settings stand.
        at: String,
    },
    /// It imports what husk does not have, or exports a function of another type.
    #[error("plugin `{plugin}` does not fit husk:plugin@0.1.1: {problem}")]
    Misfit {
        /// The plugin.
        plugin: String,
        /// What the engine answered.
        problem: String,
    },
}

/// What a plugin answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It does not export the interface that asks this.
    Silent,
    /// Nothing against it.
    Admitted,
    /// These scopes.
    Scopes(Vec<(Kind, Scope)>),
    /// These links, decided by it.
    Links(Vec<Link>),
    /// The container, edited; what was done, in words.
    Edited(Arc<Spec>, Vec<String>),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("not asked"),
            Self::Admitted => f.write_str("admitted"),
            Self::Scopes(scopes) if scopes.is_empty() => f.write_str("as requested"),
            Self::Scopes(scopes) => {
                let words: Vec<String> = scopes
                    .iter()
                    .map(|(kind, scope)| format!("{kind}={scope}"))
                    .collect();
                f.write_str(&words.join(" "))
            }
            Self::Links(links) if links.is_empty() => f.write_str("no links"),
            Self::Links(links) => write_all(f, links.iter().map(Link::words)),
            Self::Edited(_, edits) => {
                let edits = edits.iter();
                write_all(f, edits.map(|edit| guest_log::escape_to(edit, EDIT_TOLD)))
            }
        }
    }
}

/// Edits or links, as far as a line of the audit record holds them: what a container is made with is
/// seen in full in its spec, and its links in the pod's record.
fn write_all(
    f: &mut fmt::Formatter<'_>,
    mut all: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    let mut left = TOLD;
    let mut between = "";
    while let Some(words) = all.next() {
        let Some(room) = left.checked_sub(words.len()) else {
            let more = all.len().saturating_add(1);
            return write!(f, "{between}and {more} more");
        };
        left = room;
        write!(f, "{between}{words}")?;
        between = "; ";
    }
    Ok(())
}

/// Why there is no answer, or a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It refused: the plugin's own words, escaped.
    #[error("{0}")]
    Denied(String),
    /// The deadline passed.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It would have made the host hold more than it may.
    #[error("it went over {0}")]
    OverLimit(String),
    /// It trapped, or called what is not granted.
    #[error("it failed: {0}")]
    Trapped(String),
    /// Its answer makes no sense.
    #[error("its answer makes no sense: {0}")]
    Nonsense(String),
}

/// An answer, and what came with it.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub answer: Result<Answer, Failure>,
    /// What the plugin logged, escaped.
    pub log: Vec<(Level, String)>,
    /// How long it took.
    pub took: Duration,
    /// The memories, tables and edits that were held for it at the end, in bytes.
    pub held: usize,
    /// Fuel that was used; zero unless the engine counts fuel.
    pub fuel: u64,
}

impl Plugin {
    /// Takes a component in; nothing of it runs yet.
    ///
    /// # Errors
    /// It exports nothing that husk calls, or does not fit the WIT package.
    pub fn new(
        host: &Host,
        component: &Component,
        digest: impl Into<String>,
        settings: Settings,
    ) -> Result<Self, PluginError> {
        let plugin = settings.config.name.clone();
        if let Some(version) = foreign_version(host, component) {
            return Err(PluginError::Version { plugin, version });
        }
        let misfit = |error: wasmtime::Error| PluginError::Misfit {
            plugin: plugin.clone(),
            // The names in it are the component's own, of any length.
            problem: guest_log::escape(&format!("{error:#}")),
        };
        let mut linker = host.linker.clone();
        wasi::define(&mut linker, component).map_err(misfit)?;
        let instance = linker.instantiate_pre(component).map_err(misfit)?;
        let exports = |interface: &str| component.get_export_index(None, interface).is_some();
        let scoping = exports("husk:plugin/scoping@0.1.1")
            .then(|| scoping::GuestIndices::new(&instance))
            .transpose()
            .map_err(misfit)?;
        let linking = exports("husk:plugin/linking@0.1.1")
            .then(|| linking::GuestIndices::new(&instance))
            .transpose()
            .map_err(misfit)?;
        let lifecycle = exports("husk:plugin/lifecycle@0.1.1")
            .then(|| lifecycle::GuestIndices::new(&instance))
            .transpose()
            .map_err(misfit)?;
        let configurable = exports("husk:plugin/configurable@0.1.1")
            .then(|| configurable::GuestIndices::new(&instance))
            .transpose()
            .map_err(misfit)?;
        if scoping.is_none() && linking.is_none() && lifecycle.is_none() {
            return Err(PluginError::NoExport { plugin });
        }
        if let Some(at) = &settings.config.settings_at
            && configurable.is_none()
            && !asks_for_settings(host, component)
        {
            return Err(PluginError::NoSettings {
                plugin,
                at: at.clone(),
            });
        }
        Ok(Self {
            host: host.clone(),
            settings: Arc::new(settings),
            digest: digest.into(),
            instance,
            scoping,
            linking,
            lifecycle,
            configurable,
        })
    }

    /// How the handler's configuration runs it.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The sha256 of the component, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What it takes part in.
    #[must_use]
    pub fn exports(&self) -> Exports {
        Exports {
            decides_scopes: self.scoping.is_some(),
            decides_links: self.linking.is_some(),
            follows_lifecycle: self.lifecycle.is_some(),
        }
    }

    /// What handlers ask, and whether it is asked too.
    #[must_use]
    pub fn questions(&self) -> Vec<(&'static str, bool)> {
        let interfaces: [(&[_], bool); 4] = [
            (&["validate-settings"], self.configurable.is_some()),
            (
                &["scope-sandbox", "scope-container"],
                self.scoping.is_some(),
            ),
            (&["link-container"], self.linking.is_some()),
            (
                &[
                    "sandbox-starting",
                    "sandbox-started",
                    "sandbox-stopped",
                    "container-creating",
                    "container-started",
                    "container-exited",
                    "container-oom",
                    "exec-starting",
                    "resources-updating",
                ],
                self.lifecycle.is_some(),
            ),
        ];
        let questions = interfaces.into_iter();
        questions
            .flat_map(|(names, is_there)| names.iter().map(move |name| (*name, is_there)))
            .collect()
    }

    /// Whether it exports the function that answers this.
    pub(crate) fn hears(&self, question: &Question<'_>) -> bool {
        match question {
            Question::ValidateSettings => self.configurable.is_some(),
            Question::ScopeSandbox | Question::ScopeContainer(_) => self.scoping.is_some(),
            Question::LinkContainer(_) => self.linking.is_some(),
            _ => self.lifecycle.is_some(),
        }
    }

    /// Asks, in a fresh instance. Blocks for the deadline at most.
    #[must_use]
    pub fn ask(&self, pod: &Arc<Pod>, question: &Question<'_>) -> Reply {
        let started = Instant::now();
        let mut store = Store::new(&self.host.engine, State::new(pod, question, &self.settings));
        store.limiter(|state| &mut state.budget);
        store.set_hostcall_fuel(CROSSING);
        store.set_max_component_handles(HANDLES);
        store.set_epoch_deadline(Host::ticks(self.settings.config.deadline));
        let fuel = self.host.fill_fuel(&mut store);
        let answer = {
            let _running = self.host.running();
            self.call(&mut store, question)
        };
        let fuel = fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let mut state = store.into_data();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => Err(self.failure(&error, state.log.last_words(&mut state.output))),
        };
        let answer = match answer {
            Ok(Answer::Admitted) if !state.edits.is_empty() => match state.container {
                Some(container) => Ok(Answer::Edited(container.spec.into_inner(), state.edits)),
                None => Ok(Answer::Admitted),
            },
            other => other,
        };
        Reply {
            answer,
            held: state.budget.held(),
            log: state.log.finish(),
            took: started.elapsed(),
            fuel,
        }
    }

    /// The outer error is the engine's, the inner one the plugin's answer.
    fn call(
        &self,
        store: &mut Store<State>,
        question: &Question<'_>,
    ) -> wasmtime::Result<Result<Answer, Failure>> {
        match question {
            Question::ValidateSettings => {
                let Some(indices) = &self.configurable else {
                    return Ok(Ok(Answer::Silent));
                };
                let instance = self.instance.instantiate(&mut *store)?;
                let guest = indices.load(&mut *store, &instance)?;
                let verdict =
                    guest.call_validate_settings(store, &self.settings.config.settings)?;
                Ok(match verdict {
                    Ok(()) => Ok(Answer::Admitted),
                    Err(problem) => {
                        let problem = guest_log::head(&problem, REASON);
                        let at = self.settings.config.settings_at.as_deref();
                        let at = at.map(|at| format!(" ({at})")).unwrap_or_default();
                        Err(denied(&format!("settings{at}: {problem}")))
                    }
                })
            }
            Question::ScopeSandbox | Question::ScopeContainer(_) => {
                let Some(indices) = &self.scoping else {
                    return Ok(Ok(Answer::Silent));
                };
                let instance = self.instance.instantiate(&mut *store)?;
                let guest = indices.load(&mut *store, &instance)?;
                let verdict = match question {
                    Question::ScopeSandbox => guest.call_scope_sandbox(store)?,
                    _ => guest.call_scope_container(store)?,
                };
                Ok(match verdict {
                    Ok(assignments) => scopes(assignments),
                    Err(denial) => Err(denied(&denial.reason)),
                })
            }
            Question::LinkContainer(container) => self.call_linking(store, container),
            _ => self.call_lifecycle(store, question),
        }
    }

    fn call_linking(
        &self,
        store: &mut Store<State>,
        container: &Container,
    ) -> wasmtime::Result<Result<Answer, Failure>> {
        let Some(indices) = &self.linking else {
            return Ok(Ok(Answer::Silent));
        };
        let instance = self.instance.instantiate(&mut *store)?;
        let guest = indices.load(&mut *store, &instance)?;
        let links = match guest.call_link_container(&mut *store)? {
            Ok(links) => self.links(links, &container.name),
            Err(denial) => Err(denied(&denial.reason)),
        };
        if let Ok(links) = &links {
            let budget = &mut store.data_mut().budget;
            for link in links {
                budget.hold_link(match &link.peer {
                    Peer::Pod => "",
                    Peer::Container(name) => name,
                })?;
            }
        }
        Ok(links.map(Answer::Links))
    }

    fn call_lifecycle(
        &self,
        store: &mut Store<State>,
        question: &Question<'_>,
    ) -> wasmtime::Result<Result<Answer, Failure>> {
        let Some(indices) = &self.lifecycle else {
            return Ok(Ok(Answer::Silent));
        };
        let instance = self.instance.instantiate(&mut *store)?;
        let guest = indices.load(&mut *store, &instance)?;
        let verdict = match question {
            Question::SandboxStarting => guest.call_sandbox_starting(store)?,
            Question::ContainerCreating(_) => guest.call_container_creating(store)?,
            Question::ExecStarting(..) => guest.call_exec_starting(store)?,
            Question::ResourcesUpdating(..) => guest.call_resources_updating(store)?,
            Question::SandboxStarted => Ok(guest.call_sandbox_started(store)?),
            Question::SandboxStopped => Ok(guest.call_sandbox_stopped(store)?),
            Question::ContainerStarted(_) => Ok(guest.call_container_started(store)?),
            Question::ContainerOom(_) => Ok(guest.call_container_oom(store)?),
            Question::ContainerExited(..) => Ok(guest.call_container_exited(store)?),
            Question::ValidateSettings
            | Question::ScopeSandbox
            | Question::ScopeContainer(_)
            | Question::LinkContainer(_) => {
                return Ok(Ok(Answer::Silent));
            }
        };
        Ok(match verdict {
            Ok(()) => Ok(Answer::Admitted),
            Err(denial) => Err(denied(&denial.reason)),
        })
    }

    /// The links that it answered for a container.
    fn links(&self, answered: Vec<linking::Link>, container: &str) -> Result<Vec<Link>, Failure> {
        let count = answered.len();
        if count > MOST {
            return Err(Failure::Nonsense(format!(
                "{count} links: {MOST} are the most that a container may have"
            )));
        }
        let by = format!("policy {}", self.settings.config.name);
        let link = |answered| link(answered, container, &by);
        answered.into_iter().map(link).collect()
    }

    /// `said` is what the plugin said of it.
    fn failure(&self, error: &wasmtime::Error, said: Option<String>) -> Failure {
        if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
            return Failure::TimedOut(self.settings.config.deadline);
        }
        if let Some(over) = error.downcast_ref::<OverLimit>() {
            return Failure::OverLimit(over.to_string());
        }
        let cause = error.root_cause().to_string();
        // The engine's type for this is private.
        if cause.contains("fuel allocated for hostcalls has been exhausted") {
            return Failure::OverLimit(OverLimit::crossing().to_string());
        }
        let mut problem = guest_log::escape(&cause);
        for more in [said, functions(error)].into_iter().flatten() {
            problem.push_str("; ");
            problem.push_str(&more);
        }
        Failure::Trapped(problem)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("settings", &self.settings)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// The functions that a trap happened in, the innermost first, where the component names them.
fn functions(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames().iter();
    let names: Vec<String> = frames
        .filter_map(|frame| frame.func_name())
        .take(FRAMES)
        .map(|name| guest_log::escape_to(name, FRAME))
        .collect();
    (!names.is_empty()).then(|| format!("in {}", names.join(", called by ")))
}

/// The version of `husk:plugin` that a component was built for, where it is none that fits 0.1.1.
fn foreign_version(host: &Host, component: &Component) -> Option<String> {
    let engine = &host.engine;
    let ty = component.component_type();
    let imports = ty.imports(engine).map(|(name, _)| name);
    let exports = ty.exports(engine).map(|(name, _)| name);
    imports.chain(exports).find_map(|name| {
        let (_, version) = name.strip_prefix("husk:plugin/")?.split_once('@')?;
        (!version.starts_with("0.1.")).then(|| guest_log::escape_to(version, FRAME))
    })
}

/// Whether a component can see its settings. Some languages import every function there is: of
/// those it is not known.
fn asks_for_settings(host: &Host, component: &Component) -> bool {
    let ty = component.component_type();
    let mut imports = ty.imports(&host.engine);
    imports.any(|(name, import)| {
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            return false;
        };
        name.starts_with("husk:plugin/host@")
            && instance
                .exports(&host.engine)
                .any(|(name, _)| name == "settings")
    })
}

/// The plugin's reason, cut and made printable.
fn denied(reason: &str) -> Failure {
    let lines = guest_log::head(reason, REASON).lines();
    let lines: Vec<String> = lines
        .map(|line| guest_log::escape_to(line, REASON))
        .collect();
    Failure::Denied(if lines.is_empty() {
        "no reason given".to_owned()
    } else {
        // Escapes are longer than what they stand for.
        guest_log::head(&lines.join(" / "), REASON).to_owned()
    })
}

fn scopes(assignments: Vec<scoping::Assignment>) -> Result<Answer, Failure> {
    let mut scopes: Vec<(Kind, Scope)> = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let (kind, scope) = (Kind::from(assignment.kind), Scope::from(assignment.scope));
        if let Scope::Target(name) | Scope::Group(name) = &scope {
            check_name(&kind, name)?;
        }
        match scopes.iter().find(|(earlier, _)| *earlier == kind) {
            Some((_, earlier)) if *earlier != scope => {
                return Err(Failure::Nonsense(format!(
                    "it gives {kind} both {earlier} and {scope}"
                )));
            }
            Some(_) => {}
            None => scopes.push((kind, scope)),
        }
    }
    Ok(Answer::Scopes(scopes))
}

fn link(answered: linking::Link, container: &str, by: &str) -> Result<Link, Failure> {
    let linking::Link {
        direction,
        peer,
        port,
        local,
        protocol,
    } = answered;
    let peer = match peer {
        linking::Peer::Pod => Peer::Pod,
        linking::Peer::Container(name) => {
            check_name(&"a link", &name)?;
            if name == container {
                return Err(Failure::Nonsense(format!(
                    "a link of container {container} with itself"
                )));
            }
            Peer::Container(name)
        }
    };
    let link = Link {
        direction: match direction {
            linking::Direction::To => Direction::To,
            linking::Direction::From => Direction::From,
        },
        peer,
        port,
        local: local.unwrap_or(port),
        protocol: match protocol {
            linking::Protocol::Tcp => Protocol::Tcp,
            linking::Protocol::Udp => Protocol::Udp,
        },
        by: by.to_owned(),
    };
    if link.port == 0 || link.local == 0 {
        return Err(Failure::Nonsense(format!(
            "a link {}: ports are 1 to 65535",
            link.words()
        )));
    }
    Ok(link)
}

/// A name becomes a file name and a word in errors.
fn check_name(what: &dyn fmt::Display, name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME {
        let length = name.len();
        return Err(Failure::Nonsense(format!(
            "a name for {what} of {length} bytes: 1 to {NAME} are allowed"
        )));
    }
    if !name.chars().all(plain) || name.starts_with('.') {
        let name = guest_log::escape(name);
        return Err(Failure::Nonsense(format!(
            "`{name}` for {what}: a name has letters, digits, `-`, `_` and `.`, and no leading `.`"
        )));
    }
    Ok(())
}
