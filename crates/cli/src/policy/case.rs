//! A case: what a plugin is asked, and what it should answer.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use husk_plugin_host::plugin::{Answer, Failure};
use husk_plugin_host::subject::{Container, Exit, Pod, Question};
use husk_scope::{Kind, Scope, Scopes};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::Deserialize;
use serde_json::Value;

/// A case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Case {
    /// The function that is called, such as `scope-container`.
    question: String,
    /// The plugin's settings.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Value>,
    #[serde(default)]
    pod: PodFacts,
    #[serde(default)]
    container: ContainerFacts,
    #[serde(default)]
    process: Option<Value>,
    /// The limits that `resources-updating` asks for, as OCI LinuxResources.
    #[serde(default)]
    update: Option<Value>,
    #[serde(default)]
    exit_code: u32,
    pub(super) expect: Expect,
}

/// What is special about the pod.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PodFacts {
    name: Option<String>,
    namespace: Option<String>,
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
    image: Option<String>,
    #[serde(default)]
    requested: BTreeMap<Kind, ScopeWord>,
    /// What differs from the OCI spec that CRI makes for an ordinary container.
    #[serde(default)]
    spec: Value,
}

/// What the plugin should answer: one of these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum Expect {
    /// These scopes and no other.
    Scopes(BTreeMap<Kind, ScopeWord>),
    /// A refusal whose reason has these words.
    Denied(String),
    /// Nothing against it, and nothing changed.
    Admitted,
    /// These edits, in order, as the audit record words them.
    Edits(Vec<String>),
}

/// A scope as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScopeWord(Scope);

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
pub(super) struct Prepared {
    pub(super) pod: Arc<Pod>,
    container: Container,
    process: Process,
    update: LinuxResources,
    exit: Exit,
    question: String,
}

impl Case {
    /// Reads a case file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The settings, as JSON.
    pub(super) fn settings(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.settings)?)
    }

    /// The subject, with defaults where the case says nothing.
    pub(super) fn prepare(&self) -> Result<Prepared> {
        let mut pod = pod();
        let facts = &self.pod;
        pod.name = facts.name.clone().unwrap_or(pod.name);
        pod.namespace = facts.namespace.clone().unwrap_or(pod.namespace);
        pod.containers.clone_from(&facts.containers);
        pod.labels.clone_from(&facts.labels);
        pod.annotations.clone_from(&facts.annotations);
        request(&mut pod.requested, &facts.requested);
        Ok(Prepared {
            pod: Arc::new(pod),
            container: self.container()?,
            process: self
                .process
                .as_ref()
                .map_or_else(|| Ok(Process::default()), process)?,
            update: self.update.as_ref().map_or_else(
                || Ok(LinuxResources::default()),
                |update| {
                    LinuxResources::deserialize(update).context("update is not OCI LinuxResources")
                },
            )?,
            exit: Exit {
                code: self.exit_code,
                oom_killed: false,
            },
            question: self.question.clone(),
        })
    }

    fn container(&self) -> Result<Container> {
        let facts = &self.container;
        let mut spec = serde_json::to_value(ordinary_spec()?)?;
        merge(&mut spec, &facts.spec);
        let spec: Spec =
            serde_json::from_value(spec).context("container.spec is not an OCI spec")?;
        let mut requested = ordinary_scopes();
        request(&mut requested, &facts.requested);
        let name = facts.name.clone().unwrap_or_else(|| "app".to_owned());
        Ok(Container {
            id: format!("{name}-id"),
            name,
            requested,
            image: facts.image.clone().unwrap_or_default(),
            spec: Arc::new(spec),
        })
    }
}

impl Prepared {
    /// The question, about this subject.
    pub(super) fn question(&self) -> Result<Question<'_>> {
        let container = &self.container;
        Ok(match self.question.as_str() {
            "validate-settings" => Question::ValidateSettings,
            "scope-sandbox" => Question::ScopeSandbox,
            "scope-container" => Question::ScopeContainer(container),
            "sandbox-starting" => Question::SandboxStarting,
            "sandbox-started" => Question::SandboxStarted,
            "sandbox-stopped" => Question::SandboxStopped,
            "container-creating" => Question::ContainerCreating(container),
            "container-started" => Question::ContainerStarted(container),
            "container-exited" => Question::ContainerExited(container, self.exit),
            "container-oom" => Question::ContainerOom(container),
            "exec-starting" => Question::ExecStarting(container, &self.process),
            "resources-updating" => Question::ResourcesUpdating(container, &self.update),
            other => bail!("`{other}` is not a question: use a function of scoping or lifecycle"),
        })
    }
}

impl Expect {
    /// What is wrong with an answer; nothing when it is the expected one.
    pub(super) fn mismatch(&self, answer: &Result<Answer, Failure>) -> Option<String> {
        let matches = match (self, answer) {
            (Self::Scopes(wanted), Ok(Answer::Scopes(scopes))) => {
                wanted.len() == scopes.len()
                    && scopes.iter().all(|(kind, scope)| {
                        wanted
                            .get(kind)
                            .is_some_and(|ScopeWord(wanted)| wanted == scope)
                    })
            }
            (Self::Denied(words), Err(Failure::Denied(reason))) => reason.contains(words),
            (Self::Admitted, Ok(Answer::Admitted)) => true,
            (Self::Admitted, Ok(Answer::Scopes(scopes))) => scopes.is_empty(),
            (Self::Edits(wanted), Ok(Answer::Edited(_, edits))) => wanted == edits,
            _ => false,
        };
        (!matches).then(|| format!("expected {}, got {}", self.words(), words(answer)))
    }

    fn words(&self) -> String {
        match self {
            Self::Scopes(scopes) => {
                let scopes = scopes
                    .iter()
                    .map(|(kind, ScopeWord(scope))| format!("{kind}={scope}"));
                scopes.collect::<Vec<_>>().join(" ")
            }
            Self::Denied(words) => format!("a refusal with `{words}`"),
            Self::Admitted => "admitted".to_owned(),
            Self::Edits(edits) => edits.join("; "),
        }
    }
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
pub(super) fn pod() -> Pod {
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
fn ordinary_spec() -> Result<Spec> {
    let spec = serde_json::json!({
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
    });
    Ok(serde_json::from_value(spec)?)
}

fn process(facts: &Value) -> Result<Process> {
    let mut process = serde_json::to_value(Process::default())?;
    merge(&mut process, facts);
    serde_json::from_value(process).context("process is not an OCI process")
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
