//! The plugins of a handler, asked in order, and what they decide together.
use std::collections::BTreeMap;
use std::sync::Arc;

use husk_scope::config::{self, Mode, OnError};
use husk_scope::links::{self, Link, LinkError};
use husk_scope::{Assignment, Kind, Scope, audit};
use oci_spec::runtime::Process;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::canonical;
use crate::guest_log::Level;
use crate::plugin::{Answer, Failure, Plugin};
use crate::recorded::{self, Came, Recorded};
use crate::subject::{Container, Pod, Question, SharedSpec};

/// What a plugin that could not be loaded was not even asked.
const LOAD: &str = "load";

/// The plugins of a handler, in the order of its configuration.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    plugins: Vec<Plugin>,
    /// Whether what is asked is kept, and if so, whether with the values of environments.
    keeps: Option<bool>,
}

/// One answer of one plugin, as it goes to the audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The plugin's name.
    pub plugin: String,
    /// The sha256 of its component; where it could not be loaded, the one it should have had, if the
    /// configuration names one.
    pub digest: String,
    /// What it was asked; `load` where it could not be loaded.
    pub question: &'static str,
    /// The container's name, if it was about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The sha256 of what it could ask about: same input, same answer.
    pub input: String,
    /// What it answered, in words.
    pub answer: String,
    /// The scopes it assigned, where the answer is such.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<Kind, Scope>,
    /// Whether the answer refuses.
    pub denied: bool,
    /// The answer in one word.
    pub verdict: audit::Answer,
    /// Whether the answer counted: not in monitor mode, nor when its failure is ignored.
    pub counted: bool,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// The exec that it was about, as far as a line of the audit record holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<audit::Exec>,
}

/// A refusal, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// One plugin refused, or failed.
    #[error("policy `{plugin}` denies {question}: {failure}")]
    By {
        /// The plugin.
        plugin: String,
        /// What it was asked.
        question: &'static str,
        /// Why.
        failure: Failure,
    },
    /// It could not be loaded.
    #[error("policy `{plugin}` cannot be asked: {problem}")]
    Unavailable {
        /// The plugin.
        plugin: String,
        /// Why.
        problem: String,
    },
    /// Two plugins contradict each other.
    #[error(
        "policies `{first}` and `{second}` conflict: {kind} is to be {first_scope} for one and \
         {second_scope} for the other; change one of them, or run one in monitor mode"
    )]
    Conflict {
        /// The earlier plugin.
        first: String,
        /// The later one.
        second: String,
        /// The kind of namespace.
        kind: Kind,
        /// What the earlier one assigns.
        first_scope: Scope,
        /// What the later one assigns.
        second_scope: Scope,
    },
    /// The links that two plugins decide do not go together, or are too many.
    #[error(transparent)]
    Links(#[from] LinkError),
}

/// What the chain decided, and how it came to it.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The decision.
    pub result: Result<T, Denied>,
    /// The plugins' answers, in order, up to the one that refused.
    pub decisions: Vec<Decision>,
    /// What they logged: plugin, level, line.
    pub log: Vec<(String, Level, String)>,
    /// The most that one of them held, in bytes: see [`crate::plugin::Reply::held`].
    pub held: usize,
    /// The question, where the chain keeps what it is asked.
    pub recorded: Option<Box<Recorded>>,
}

impl Outcome<()> {
    /// Nobody has been asked yet.
    fn begun() -> Self {
        Self {
            result: Ok(()),
            decisions: Vec::new(),
            log: Vec::new(),
            held: 0,
            recorded: None,
        }
    }
}

impl<T> Outcome<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        Outcome {
            result: self.result.map(change),
            decisions: self.decisions,
            log: self.log,
            held: self.held,
            recorded: self.recorded,
        }
    }

    /// The question with what was answered to it, in these words where it is not refused.
    fn keep(
        mut self,
        keeps: Option<bool>,
        pod: &Pod,
        question: &Question<'_>,
        words: impl FnOnce(&T, &[Decision]) -> Vec<String>,
    ) -> Self {
        let Some(env) = keeps.filter(|_| recorded::is_kept(question)) else {
            return self;
        };
        let came = match &self.result {
            Ok(decided) => Came::decided(words(decided, &self.decisions)),
            Err(denied) => Came::denied(denied),
        };
        // What cannot be kept is asked all the same.
        if let Ok(mut recorded) = Recorded::of(pod, question, env, came) {
            for said in &self.decisions {
                if !recorded.inputs.contains(&said.input) {
                    recorded.inputs.push(said.input.clone());
                }
            }
            self.recorded = Some(Box::new(recorded));
        }
        self
    }
}

impl Chain {
    /// A chain of these plugins.
    #[must_use]
    pub fn new(plugins: Vec<Plugin>) -> Self {
        Self {
            plugins,
            keeps: None,
        }
    }

    /// The same, keeping what it is asked, also what no plugin hears: see [`Outcome::recorded`]. With
    /// `env` the values of environments are kept, too.
    #[must_use]
    pub fn keeping(self, env: bool) -> Self {
        Self {
            keeps: Some(env),
            ..self
        }
    }

    /// A chain of the plugins of a configuration, in order, each loaded or not. One that was not
    /// denies, unless it is to be ignored or only monitors.
    #[must_use]
    pub fn of(loaded: Vec<(config::Plugin, Result<Plugin, String>)>) -> Outcome<Self> {
        let mut plugins = Vec::with_capacity(loaded.len());
        let mut outcome = Outcome::begun();
        for (config, loaded) in loaded {
            let problem = match loaded {
                Ok(plugin) => {
                    plugins.push(plugin);
                    continue;
                }
                Err(problem) => problem,
            };
            let counted = config.mode == Mode::Enforce && config.on_error == OnError::Deny;
            outcome.decisions.push(Decision {
                plugin: config.name.clone(),
                digest: config.sha256.unwrap_or_default(),
                question: LOAD,
                container: None,
                input: String::new(),
                answer: problem.clone(),
                scopes: BTreeMap::new(),
                denied: true,
                verdict: audit::Answer::Failed,
                counted,
                micros: 0,
                exec: None,
            });
            if !counted {
                let left_out = format!("is left out: {problem}");
                outcome.log.push((config.name, Level::Warn, left_out));
                continue;
            }
            outcome.result = Err(Denied::Unavailable {
                plugin: config.name,
                problem,
            });
            break;
        }
        outcome.map(|()| Self::new(plugins))
    }

    /// Whether there is nobody to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plugins.is_empty()
    }

    /// Whether any plugin decides scopes, or the question is kept: what nobody would hear need not be
    /// asked.
    #[must_use]
    pub fn decides_scopes(&self) -> bool {
        self.keeps.is_some()
            || self
                .plugins
                .iter()
                .any(|plugin| plugin.exports().decides_scopes)
    }

    /// Whether any plugin decides links, or the question is kept.
    #[must_use]
    pub fn decides_links(&self) -> bool {
        self.keeps.is_some()
            || self
                .plugins
                .iter()
                .any(|plugin| plugin.exports().decides_links)
    }

    /// Whether any plugin takes part in the lifecycle, or the questions are kept.
    #[must_use]
    pub fn follows_lifecycle(&self) -> bool {
        self.keeps.is_some()
            || self
                .plugins
                .iter()
                .any(|plugin| plugin.exports().follows_lifecycle)
    }

    /// The plugins, in order.
    #[must_use]
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// Lets each plugin check its settings.
    #[must_use]
    pub fn validate_settings(&self, pod: &Arc<Pod>) -> Outcome<()> {
        self.ask(pod, &Question::ValidateSettings, |_, _| Ok(()))
            .map(|_| ())
    }

    /// The scopes of the sandbox, or of a container: what the plugins assign, merged.
    #[must_use]
    pub fn scopes(
        &self,
        pod: &Arc<Pod>,
        container: Option<&Container>,
    ) -> Outcome<Vec<Assignment>> {
        let question = container.map_or(Question::ScopeSandbox, Question::ScopeContainer);
        let mut merged: Vec<Merged> = Vec::new();
        self.ask(pod, &question, |plugin, answer| {
            if let Answer::Scopes(scopes) = answer {
                for (kind, scope) in scopes {
                    merge(&mut merged, plugin, kind, scope)?;
                }
            }
            Ok(())
        })
        .map(|()| merged.into_iter().map(Merged::into_assignment).collect())
        .keep(self.keeps, pod, &question, |scopes: &Vec<Assignment>, _| {
            let words = scopes.iter();
            words
                .map(|Assignment { kind, scope, .. }| format!("{kind}={}", scope.word()))
                .collect()
        })
    }

    /// The links that the plugins decide for a container, put together.
    #[must_use]
    pub fn links(&self, pod: &Arc<Pod>, container: &Container) -> Outcome<Vec<Link>> {
        let mut decided = Vec::new();
        let question = Question::LinkContainer(container);
        self.ask(pod, &question, |_, answer| {
            if let Answer::Links(links) = answer {
                links::add(&mut decided, links, &container.name)?;
            }
            Ok(())
        })
        .map(|()| decided)
        .keep(self.keeps, pod, &question, |links: &Vec<Link>, _| {
            links.iter().map(Link::words).collect()
        })
    }

    /// Lets the plugins admit and edit a container; each sees what those before it did.
    #[must_use]
    pub fn container_creating(&self, pod: &Arc<Pod>, container: &Container) -> Outcome<SharedSpec> {
        let mut current = container.clone();
        let mut outcome = Outcome::begun();
        for plugin in &self.plugins {
            let mut edited = None;
            let question = Question::ContainerCreating(&current);
            if !plugin.hears(&question) {
                continue;
            }
            let input = digest(pod, &question);
            self.ask_one(
                plugin,
                pod,
                &question,
                &input,
                &mut outcome,
                &mut |_, answer| {
                    if let Answer::Edited(spec, _) = answer {
                        edited = Some(spec);
                    }
                    Ok(())
                },
            );
            if outcome.result.is_err() {
                break;
            }
            if let Some(spec) = edited {
                current.spec = spec.into();
            }
        }
        let question = Question::ContainerCreating(container);
        outcome
            .map(|()| current.spec)
            .keep(self.keeps, pod, &question, |_, decisions| {
                recorded::edits(decisions)
            })
    }

    /// Asks every plugin whether this may be, or tells it that it was.
    #[must_use]
    pub fn notify(&self, pod: &Arc<Pod>, question: &Question<'_>) -> Outcome<()> {
        self.ask(pod, question, |_, _| Ok(()))
            .keep(self.keeps, pod, question, |(), _| Vec::new())
    }

    fn ask(
        &self,
        pod: &Arc<Pod>,
        question: &Question<'_>,
        mut take: impl FnMut(&Plugin, Answer) -> Result<(), Denied>,
    ) -> Outcome<()> {
        let mut outcome = Outcome::begun();
        let mut hearers = self
            .plugins
            .iter()
            .filter(|plugin| plugin.hears(question))
            .peekable();
        if hearers.peek().is_none() {
            return outcome;
        }
        let input = digest(pod, question);
        for plugin in hearers {
            self.ask_one(plugin, pod, question, &input, &mut outcome, &mut take);
            if outcome.result.is_err() {
                break;
            }
        }
        outcome
    }

    fn ask_one(
        &self,
        plugin: &Plugin,
        pod: &Arc<Pod>,
        question: &Question<'_>,
        input: &str,
        outcome: &mut Outcome<()>,
        take: &mut dyn FnMut(&Plugin, Answer) -> Result<(), Denied>,
    ) {
        let reply = plugin.ask(pod, question);
        let settings = &plugin.settings().config;
        let name = &settings.name;
        outcome.held = outcome.held.max(reply.held);
        outcome.log.extend(
            reply
                .log
                .into_iter()
                .map(|(level, line)| (name.clone(), level, line)),
        );
        if reply.answer == Ok(Answer::Silent) {
            return;
        }
        let failed =
            matches!(&reply.answer, Err(failure) if !matches!(failure, Failure::Denied(_)));
        let counted =
            settings.mode == Mode::Enforce && !(failed && settings.on_error == OnError::Ignore);
        outcome.decisions.push(Decision {
            plugin: name.clone(),
            digest: plugin.digest().to_owned(),
            question: question.name(),
            container: question.container().map(|container| container.name.clone()),
            input: input.to_owned(),
            answer: match &reply.answer {
                Ok(answer) => answer.to_string(),
                Err(failure) => failure.to_string(),
            },
            scopes: match &reply.answer {
                Ok(Answer::Scopes(scopes)) => scopes.iter().cloned().collect(),
                _ => BTreeMap::new(),
            },
            denied: reply.answer.is_err(),
            verdict: verdict(&reply.answer),
            counted,
            micros: u64::try_from(reply.took.as_micros()).unwrap_or(u64::MAX),
            exec: question.process().map(exec),
        });
        if !counted {
            if let (true, Mode::Enforce, Err(failure)) = (failed, settings.mode, &reply.answer) {
                let line = format!("{} is ignored: {failure}", question.name());
                outcome.log.push((name.clone(), Level::Warn, line));
            }
            return;
        }
        outcome.result = match reply.answer {
            Ok(answer) => take(plugin, answer),
            // What is over cannot be refused: a failure after the event is on record only.
            Err(_) if !question.decides() => Ok(()),
            Err(failure) => Err(Denied::By {
                plugin: name.clone(),
                question: question.name(),
                failure,
            }),
        };
    }
}

/// An answer in one word.
fn verdict(answer: &Result<Answer, Failure>) -> audit::Answer {
    match answer {
        Ok(Answer::Silent | Answer::Admitted) => audit::Answer::Admitted,
        Ok(Answer::Scopes(scopes)) if scopes.is_empty() => audit::Answer::Admitted,
        Ok(Answer::Links(links)) if links.is_empty() => audit::Answer::Admitted,
        Ok(Answer::Scopes(_)) => audit::Answer::Scopes,
        Ok(Answer::Links(_)) => audit::Answer::Links,
        Ok(Answer::Edited(..)) => audit::Answer::Edited,
        Err(Failure::Denied(_)) => audit::Answer::Denied,
        Err(_) => audit::Answer::Failed,
    }
}

fn exec(process: &Process) -> audit::Exec {
    let args = process.args().iter().flatten().map(String::as_str);
    audit::Exec::new(args, process.user().uid(), process.user().gid())
}

/// What was assigned to a kind so far, and by whom.
struct Merged {
    kind: Kind,
    scope: Scope,
    plugin: String,
}

impl Merged {
    fn into_assignment(self) -> Assignment {
        Assignment {
            kind: self.kind,
            scope: self.scope,
            by: format!("policy {}", self.plugin),
        }
    }
}

fn merge(
    merged: &mut Vec<Merged>,
    plugin: &Plugin,
    kind: Kind,
    scope: Scope,
) -> Result<(), Denied> {
    let plugin = &plugin.settings().config.name;
    match merged.iter().find(|earlier| earlier.kind == kind) {
        Some(earlier) if earlier.scope != scope => Err(Denied::Conflict {
            first: earlier.plugin.clone(),
            second: plugin.clone(),
            kind,
            first_scope: earlier.scope.clone(),
            second_scope: scope,
        }),
        Some(_) => Ok(()),
        None => {
            merged.push(Merged {
                kind,
                scope,
                plugin: plugin.clone(),
            });
            Ok(())
        }
    }
}

/// The sha256 of everything that a plugin can ask about, but for its settings.
pub(crate) fn digest(pod: &Pod, question: &Question<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update(question.name());
    hash.update(format!("{pod:?}"));
    if let Some(Container {
        id,
        name,
        requested,
        image,
        spec,
    }) = question.container()
    {
        hash.update(format!("{:?}", (id, name, requested, image)));
        hash.update(spec.digest());
    }
    hash.update(format!("{:?}", question.exit()));
    if let Some(update) = question.update() {
        hash.update(canonical::json(update).unwrap_or_default().to_string());
    }
    if let Some(process) = question.process() {
        hash.update(canonical::json(process).unwrap_or_default().to_string());
    }
    crate::artifact::hex(&hash.finalize())
}
