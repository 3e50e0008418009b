//! Cases: what a plugin is asked, and what it should answer. A folder of them is a plugin's test.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use husk_scope::config::Config;
use husk_scope::links::{Direction, Link, POD, Peer, Protocol};
use husk_scope::{Assignment, Kind, Scope, Scopes};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plugin::{Answer, Failure, Reply};
use crate::subject::{Container, Exit, Pod, Question};
use crate::{Plugin, decide};

/// Why a case cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A file or folder cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A folder without cases.
    #[error("{0} has no case: a case is a .toml file")]
    None(PathBuf),
    /// It is not a case.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// Where it was read from.
    #[serde(skip)]
    path: PathBuf,
    /// The function that is called, such as `scope-container`.
    question: String,
    /// The plugin's settings.
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    #[serde(default)]
    pod: PodFacts,
    #[serde(default)]
    container: ContainerFacts,
    #[serde(default)]
    process: Option<Value>,
    /// The exec, all of it, as JSON: nothing is added to it.
    process_json: Option<String>,
    /// The limits that `resources-updating` asks for, as OCI LinuxResources.
    #[serde(default)]
    update: Option<Value>,
    #[serde(default)]
    exit_code: u32,
    expect: Expect,
}

/// What is special about the pod.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PodFacts {
    name: Option<String>,
    namespace: Option<String>,
    id: Option<String>,
    uid: Option<String>,
    cgroup_parent: Option<String>,
    #[serde(default)]
    requested: BTreeMap<Kind, ScopeWord>,
    #[serde(default)]
    containers: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What is special about the container.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ContainerFacts {
    name: Option<String>,
    id: Option<String>,
    image: Option<String>,
    #[serde(default)]
    requested: BTreeMap<Kind, ScopeWord>,
    /// What differs from the OCI spec that CRI makes for an ordinary container.
    #[serde(default)]
    spec: Value,
    /// The OCI spec, all of it, as JSON: nothing ordinary is added to it.
    spec_json: Option<String>,
}

/// What the plugin should answer: one of these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Expect {
    /// These scopes and no other.
    Scopes(BTreeMap<Kind, ScopeWord>),
    /// These links and no other, in any order.
    Links(Vec<LinkWords>),
    /// A refusal whose reason has these words.
    Denied(String),
    /// Nothing against it, and nothing changed.
    Admitted,
    /// These edits, in order, as the audit record words them.
    Edits(Vec<String>),
}

/// A link as the configuration writes it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "LinkKeys")]
struct LinkWords(String);

/// The keys of `[[containers.NAME.links]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkKeys {
    to: Option<String>,
    from: Option<String>,
    port: u16,
    local: Option<u16>,
    #[serde(default)]
    protocol: Protocol,
}

impl TryFrom<LinkKeys> for LinkWords {
    type Error = &'static str;

    fn try_from(keys: LinkKeys) -> Result<Self, Self::Error> {
        let (direction, peer) = match (keys.to, keys.from) {
            (Some(to), None) => (Direction::To, to),
            (None, Some(from)) => (Direction::From, from),
            _ => return Err("a link has one of `to` and `from`"),
        };
        let link = Link {
            direction,
            peer: match peer.as_str() {
                POD => Peer::Pod,
                _ => Peer::Container(peer),
            },
            port: keys.port,
            local: keys.local.unwrap_or(keys.port),
            protocol: keys.protocol,
            by: String::new(),
        };
        Ok(Self(link.words()))
    }
}

/// A scope as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ScopeWord(Scope);

impl<'de> Deserialize<'de> for ScopeWord {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let scope = word.parse();
        scope
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format!("`{word}` is not a scope")))
    }
}

/// The subject of a case, complete.
struct Prepared {
    pod: Arc<Pod>,
    container: Container,
    process: Process,
    update: LinuxResources,
    exit: Exit,
    question: String,
}

/// What became of a case.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong with the answer; nothing when it is the expected one.
    pub mismatch: Option<String>,
    /// What was asked, about whom, and what was requested: for whoever reads of a mismatch.
    pub asked: String,
    /// The answer, and what came with it.
    pub reply: Reply,
}

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// It cannot be read, or is not a case.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let text = fs::read_to_string(path).map_err(|source| CaseError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut case: Self = toml::from_str(&text).map_err(|error| CaseError::Invalid {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        path.clone_into(&mut case.path);
        Ok(case)
    }

    /// Reads the cases in a folder, in the order of their names.
    ///
    /// # Errors
    /// See [`Case::read`]; a folder without cases is one too.
    pub fn read_all(dir: &Path) -> Result<Vec<Self>, CaseError> {
        let failed = |source| CaseError::Read {
            path: dir.to_owned(),
            source,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(CaseError::None(dir.to_owned()));
        }
        files.sort();
        files.iter().map(|path| Self::read(path)).collect()
    }

    /// What the case is about: its file's name, in words.
    #[must_use]
    pub fn name(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().replace('-', " ")
    }

    /// The file it was read from, for errors about its settings.
    #[must_use]
    pub fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// The plugin's settings, as JSON.
    #[must_use]
    pub fn settings(&self) -> String {
        Value::from_iter(self.settings.clone()).to_string()
    }

    /// Whether the plugin has settings in this case.
    #[must_use]
    pub fn has_settings(&self) -> bool {
        !self.settings.is_empty()
    }

    /// Asks the plugin, twice: the same input must have the same answer. What it assigns counts as
    /// far as a handler that bounds nothing would take it.
    ///
    /// # Errors
    /// What the case says of its subject makes no sense.
    pub fn ask(&self, plugin: &Plugin) -> Result<Outcome, CaseError> {
        self.ask_for(plugin, &Config::default())
    }

    /// The same, for a handler of this configuration: what its ceiling refuses, the case is refused.
    ///
    /// # Errors
    /// See [`Case::ask`].
    pub fn ask_for(&self, plugin: &Plugin, config: &Config) -> Result<Outcome, CaseError> {
        self.with_question(|pod, question| {
            let (mut reply, mut again) = (plugin.ask(pod, question), plugin.ask(pod, question));
            for reply in [&mut reply, &mut again] {
                if let Err(refused) = taken(config, plugin, pod, question, &reply.answer) {
                    reply.answer = Err(refused);
                }
            }
            let mismatch = if reply.answer == again.answer {
                self.expect.mismatch(&reply.answer)
            } else {
                let (first, second) = (words(&reply.answer), words(&again.answer));
                Some(format!("asked twice, it answers {first}, then {second}"))
            };
            Outcome {
                mismatch,
                asked: asked(pod, question),
                reply,
            }
        })
    }

    /// Does something with the question and the pod that it is about.
    ///
    /// # Errors
    /// What the case says of its subject makes no sense.
    pub fn with_question<T>(
        &self,
        ask: impl FnOnce(&Arc<Pod>, &Question<'_>) -> T,
    ) -> Result<T, CaseError> {
        let invalid = |problem: String| CaseError::Invalid {
            path: self.path.clone(),
            problem,
        };
        let prepared = self.prepare().map_err(invalid)?;
        let question = prepared.question().map_err(invalid)?;
        Ok(ask(&prepared.pod, &question))
    }

    /// The subject, with defaults where the case says nothing.
    fn prepare(&self) -> Result<Prepared, String> {
        let mut pod = ordinary_pod();
        let facts = &self.pod;
        pod.name = facts.name.clone().unwrap_or(pod.name);
        pod.namespace = facts.namespace.clone().unwrap_or(pod.namespace);
        pod.id = facts.id.clone().unwrap_or(pod.id);
        pod.uid = facts.uid.clone().unwrap_or(pod.uid);
        pod.cgroup_parent = facts.cgroup_parent.clone().unwrap_or(pod.cgroup_parent);
        pod.containers.clone_from(&facts.containers);
        pod.labels.clone_from(&facts.labels);
        pod.annotations.clone_from(&facts.annotations);
        request(&mut pod.requested, &facts.requested);
        let process = match &self.process_json {
            Some(json) => Some(whole("process", json, self.process.is_some())?),
            None => self.process.as_ref().map(process).transpose()?,
        };
        let update = self.update.as_ref().map(LinuxResources::deserialize);
        let update = update
            .transpose()
            .map_err(|error| format!("update is not OCI LinuxResources: {error}"))?;
        if let (Some(facts), Some(update)) = (&self.update, &update) {
            known("update", facts, update)?;
        }
        Ok(Prepared {
            pod: Arc::new(pod),
            container: self.container()?,
            process: process.unwrap_or_default(),
            update: update.unwrap_or_default(),
            exit: Exit {
                code: self.exit_code,
                oom_killed: false,
            },
            question: self.question.clone(),
        })
    }

    fn container(&self) -> Result<Container, String> {
        let facts = &self.container;
        let spec = match &facts.spec_json {
            Some(json) => whole("container.spec", json, !facts.spec.is_null())?,
            None => special_spec(&facts.spec)?,
        };
        let mut requested = ordinary_scopes();
        request(&mut requested, &facts.requested);
        let name = facts.name.clone().unwrap_or_else(|| "app".to_owned());
        Ok(Container {
            id: facts.id.clone().unwrap_or_else(|| format!("{name}-id")),
            name,
            requested,
            image: facts.image.clone().unwrap_or_default(),
            spec: spec.into(),
        })
    }
}

impl Prepared {
    /// The question, about this subject.
    fn question(&self) -> Result<Question<'_>, String> {
        let container = &self.container;
        Ok(match self.question.as_str() {
            "validate-settings" => Question::ValidateSettings,
            "scope-sandbox" => Question::ScopeSandbox,
            "scope-container" => Question::ScopeContainer(container),
            "link-container" => Question::LinkContainer(container),
            "sandbox-starting" => Question::SandboxStarting,
            "sandbox-started" => Question::SandboxStarted,
            "sandbox-stopped" => Question::SandboxStopped,
            "container-creating" => Question::ContainerCreating(container),
            "container-started" => Question::ContainerStarted(container),
            "container-exited" => Question::ContainerExited(container, self.exit),
            "container-oom" => Question::ContainerOom(container),
            "exec-starting" => Question::ExecStarting(container, &self.process),
            "resources-updating" => Question::ResourcesUpdating(container, &self.update),
            other => {
                return Err(format!(
                    "`{other}` is not a question: use a function of scoping, linking or lifecycle"
                ));
            }
        })
    }
}

impl Expect {
    /// What is wrong with an answer; nothing when it is the expected one.
    fn mismatch(&self, answer: &Result<Answer, Failure>) -> Option<String> {
        let matches = match (self, answer) {
            (Self::Scopes(wanted), Ok(Answer::Scopes(scopes))) => {
                wanted.len() == scopes.len()
                    && scopes.iter().all(|(kind, scope)| {
                        wanted
                            .get(kind)
                            .is_some_and(|ScopeWord(wanted)| wanted == scope)
                    })
            }
            (Self::Links(wanted), Ok(Answer::Links(links))) => {
                differing_links(wanted, links).is_empty()
            }
            (Self::Denied(words), Err(Failure::Denied(reason))) => reason.contains(words),
            (Self::Admitted, Ok(Answer::Admitted)) => true,
            (Self::Admitted, Ok(Answer::Scopes(scopes))) => scopes.is_empty(),
            (Self::Admitted, Ok(Answer::Links(links))) => links.is_empty(),
            (Self::Edits(wanted), Ok(Answer::Edited(_, edits))) => wanted == edits,
            _ => false,
        };
        (!matches).then(|| match (self, answer) {
            (Self::Scopes(wanted), Ok(Answer::Scopes(scopes))) => differing(wanted, scopes),
            (Self::Links(wanted), Ok(Answer::Links(links))) => {
                differing_links(wanted, links).join("\n")
            }
            (Self::Edits(wanted), Ok(Answer::Edited(_, edits))) => {
                let missing = wanted.iter().filter(|edit| !edits.contains(edit));
                let missing = missing.map(|edit| format!("- {edit}"));
                let more = edits.iter().filter(|edit| !wanted.contains(edit));
                let lines: Vec<String> = missing
                    .chain(more.map(|edit| format!("+ {edit}")))
                    .collect();
                if lines.is_empty() {
                    format!("the same edits in another order: {}", edits.join("; "))
                } else {
                    lines.join("\n")
                }
            }
            _ => format!("- {}\n+ {}", self.words(), words(answer)),
        })
    }

    fn words(&self) -> String {
        match self {
            Self::Scopes(scopes) => {
                let scopes = scopes
                    .iter()
                    .map(|(kind, ScopeWord(scope))| format!("{kind}={scope}"));
                scopes.collect::<Vec<_>>().join(" ")
            }
            Self::Links(links) => {
                let links = links.iter().map(|LinkWords(link)| link.as_str());
                links.collect::<Vec<_>>().join("; ")
            }
            Self::Denied(words) => format!("a refusal with `{words}`"),
            Self::Admitted => "admitted".to_owned(),
            Self::Edits(edits) => edits.join("; "),
        }
    }
}

/// The question in words.
fn asked(pod: &Pod, question: &Question<'_>) -> String {
    let Some(container) = question.container() else {
        return format!("{} of pod {}/{}", question.name(), pod.namespace, pod.name);
    };
    let mut words = format!("{} of container {}", question.name(), container.name);
    let args = question
        .process()
        .or(container.spec.process().as_ref())
        .and_then(|process| process.args().as_ref());
    if let Some(args) = args {
        let _ = write!(words, ", args {args:?}");
    }
    let requested = container.requested.iter();
    let requested: Vec<String> = requested
        .map(|(kind, scope)| format!("{kind}={scope}"))
        .collect();
    let _ = write!(words, ", requested {}", requested.join(" "));
    words
}

/// Whether a handler would take these scopes, or these links.
fn taken(
    config: &Config,
    plugin: &Plugin,
    pod: &Pod,
    question: &Question<'_>,
    answer: &Result<Answer, Failure>,
) -> Result<(), Failure> {
    let scopes = match (answer, question.container()) {
        (Ok(Answer::Scopes(scopes)), _) => scopes,
        (Ok(Answer::Links(links)), Some(container)) => {
            let taken = decide::container_links(config, &container.name, links.clone());
            return taken
                .map(drop)
                .map_err(|error| Failure::Denied(error.to_string()));
        }
        _ => return Ok(()),
    };
    let by = format!("policy {}", plugin.settings().config.name);
    let assigned = scopes.iter().map(|(kind, scope)| Assignment {
        kind: *kind,
        scope: scope.clone(),
        by: by.clone(),
    });
    let assigned: Vec<Assignment> = assigned.collect();
    let plan = match question.container() {
        None => decide::sandbox_plan(config, &pod.requested, &assigned)
            .map_err(|error| error.to_string()),
        Some(Container {
            name, requested, ..
        }) => decide::container_plan(config, name, requested, assigned, Vec::new())
            .map_err(|error| error.to_string()),
    };
    plan.map(drop).map_err(Failure::Denied)
}

/// The links that are not as expected, a line each: `-` what was expected, `+` what came.
fn differing_links(wanted: &[LinkWords], links: &[Link]) -> Vec<String> {
    let wanted: Vec<&str> = wanted.iter().map(|LinkWords(link)| link.as_str()).collect();
    let came: Vec<String> = links.iter().map(Link::words).collect();
    let missing = wanted
        .iter()
        .filter(|link| !came.iter().any(|came| came == *link));
    let missing = missing.map(|link| format!("- {link}"));
    let more = came.iter().filter(|link| !wanted.contains(&link.as_str()));
    missing
        .chain(more.map(|link| format!("+ {link}")))
        .collect()
}

/// The scopes that are not as expected, a line each: `-` what was expected, `+` what came.
fn differing(wanted: &BTreeMap<Kind, ScopeWord>, scopes: &[(Kind, Scope)]) -> String {
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        let wanted = wanted.get(&kind).map(|ScopeWord(scope)| scope);
        let came = scopes.iter().find(|(found, _)| *found == kind);
        let came = came.map(|(_, scope)| scope);
        if wanted == came {
            continue;
        }
        let requested = "as requested".to_owned();
        let word = |scope: Option<&Scope>| scope.map_or(requested.clone(), ToString::to_string);
        lines.push(format!("- {kind} {}", word(wanted)));
        lines.push(format!("+ {kind} {}", word(came)));
    }
    lines.join("\n")
}

/// An answer, for people.
fn words(answer: &Result<Answer, Failure>) -> String {
    match answer {
        Ok(answer) => answer.to_string(),
        Err(Failure::Denied(reason)) => format!("a refusal: {reason}"),
        Err(failure) => failure.to_string(),
    }
}

/// A pod as Kubernetes makes it.
#[must_use]
pub fn ordinary_pod() -> Pod {
    let mut requested = ordinary_scopes();
    for kind in [Kind::Network, Kind::Ipc, Kind::Uts] {
        requested[kind] = Scope::Pod;
    }
    Pod {
        id: "pod-id".to_owned(),
        name: "pod".to_owned(),
        namespace: "default".to_owned(),
        uid: "00000000-0000-0000-0000-000000000000".to_owned(),
        cgroup_parent: "/kubepods/pod".to_owned(),
        requested,
        containers: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

/// What Kubernetes requests for a container.
fn ordinary_scopes() -> Scopes {
    let mut scopes = Scopes::all(&Scope::Container);
    for kind in [Kind::Network, Kind::Ipc, Kind::Uts] {
        scopes[kind] = Scope::Pod;
    }
    for kind in [Kind::User, Kind::Time] {
        scopes[kind] = Scope::Node;
    }
    scopes
}

fn request(scopes: &mut Scopes, special: &BTreeMap<Kind, ScopeWord>) {
    for (kind, ScopeWord(scope)) in special {
        scopes[*kind] = scope.clone();
    }
}

/// The OCI spec of a container that asks for nothing.
fn ordinary_spec() -> Value {
    serde_json::json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"] },
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "resources": {}, "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" } },
    })
}

/// The ordinary spec with what is special laid over it.
fn special_spec(special: &Value) -> Result<Spec, String> {
    let mut spec = ordinary_spec();
    merge(&mut spec, special);
    let spec: Spec = serde_json::from_value(spec)
        .map_err(|error| format!("container.spec is not an OCI spec: {error}"))?;
    known("container.spec", special, &spec)?;
    Ok(spec)
}

/// What is there as a whole, in JSON.
fn whole<T: DeserializeOwned + Serialize>(
    place: &str,
    json: &str,
    twice: bool,
) -> Result<T, String> {
    if twice {
        return Err(format!(
            "{place} and {place}-json say the same: keep one of them"
        ));
    }
    let place = format!("{place}-json");
    let facts: Value =
        serde_json::from_str(json).map_err(|error| format!("{place} is not JSON: {error}"))?;
    let read = T::deserialize(&facts)
        .map_err(|error| format!("{place} is not what OCI calls it: {error}"))?;
    known(&place, &facts, &read)?;
    Ok(read)
}

fn process(facts: &Value) -> Result<Process, String> {
    let not_one = |error: serde_json::Error| format!("process is not an OCI process: {error}");
    let mut process = serde_json::to_value(Process::default()).map_err(not_one)?;
    merge(&mut process, facts);
    let process = serde_json::from_value(process).map_err(not_one)?;
    known("process", facts, &process)?;
    Ok(process)
}

/// Refuses keys that are lost when the facts are read: they mean nothing, and a case that relies on
/// them tests nothing.
fn known(place: &str, facts: &Value, read: &impl Serialize) -> Result<(), String> {
    let read = serde_json::to_value(read).map_err(|error| error.to_string())?;
    match lost(place, facts, &read) {
        Some(key) => Err(format!(
            "`{key}` is no key of the OCI runtime spec, or has no meaning there"
        )),
        None => Ok(()),
    }
}

/// The first key of `facts` that is not in `read`.
fn lost(place: &str, facts: &Value, read: &Value) -> Option<String> {
    match (facts, read) {
        (Value::Object(facts), Value::Object(read)) => facts.iter().find_map(|(key, fact)| {
            let place = format!("{place}.{key}");
            match read.get(key) {
                Some(read) => lost(&place, fact, read),
                None => Some(place),
            }
        }),
        (Value::Array(facts), Value::Array(read)) => facts
            .iter()
            .zip(read)
            .find_map(|(fact, read)| lost(&format!("{place}[]"), fact, read)),
        _ => None,
    }
}

/// Lays `over` on `base`: objects key by key, null removes, all else replaces (RFC 7396).
fn merge(base: &mut Value, over: &Value) {
    match over {
        Value::Null => {}
        Value::Object(changes) => {
            if !base.is_object() {
                *base = Value::Object(serde_json::Map::new());
            }
            let Some(object) = base.as_object_mut() else {
                return;
            };
            for (key, change) in changes {
                merge(object.entry(key).or_insert(Value::Null), change);
            }
        }
        other => *base = other.clone(),
    }
}
