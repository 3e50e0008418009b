//! A question as it is kept, to be asked again: of other policies, or of the same in a test.
use std::collections::BTreeMap;
use std::sync::Arc;

use husk_scope::{Scopes, audit};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::chain::{Decision, Denied, digest};
use crate::plugin::Failure;
use crate::subject::{Container, Pod, Question};

/// What the form of a kept question is called; another one is of another husk.
const VERSION: u32 = 1;

/// The annotation in which kubectl keeps the whole manifest, values of the environment with it.
const MANIFEST: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A question about a pod, as it came from containerd, and what was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    version: u32,
    /// The sha256 that the audit record has as `input`, of the first plugin that was asked.
    pub input: String,
    /// The same of each that was asked: of a container that the ones before had changed, another.
    pub inputs: Vec<String>,
    /// The function that was called.
    pub question: String,
    /// The pod.
    pub pod: Pod,
    /// The container, if it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<KeptContainer>,
    /// The exec of `exec-starting`, as an OCI process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Value>,
    /// The limits of `resources-updating`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Value>,
    /// Whether the values of the environment were kept.
    pub env: bool,
    /// What was answered.
    pub came: Came,
}

/// A container, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptContainer {
    /// The id containerd gave.
    pub id: String,
    /// The name in the pod.
    pub name: String,
    /// What was asked for before any plugin spoke.
    pub requested: Scopes,
    /// The image reference.
    pub image: String,
    /// The OCI spec.
    pub spec: Value,
}

/// What a handler made of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Why it was refused, as whoever asked was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The reason of the plugin that refused, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The scopes, links or edits that were decided, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<String>,
}

/// Why a kept question cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// It is not one, or of another version.
    #[error("it is no question that this husk has kept: {0}")]
    Form(#[from] serde_json::Error),
    /// It has another version.
    #[error("it was kept by another husk, as version {0}; this one reads version {VERSION}")]
    Version(u32),
    /// It lacks what it is about.
    #[error("it is about {0}, and has none")]
    Lacks(&'static str),
    /// It asks what nobody answers.
    #[error("`{0}` is not a question that can be asked again")]
    Question(String),
}

impl Came {
    /// It was refused by the handler.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self {
            refused: Some(reason.into()),
            ..Self::default()
        }
    }

    /// It was refused by the plugins.
    #[must_use]
    pub fn denied(denied: &Denied) -> Self {
        let reason = match denied {
            Denied::By {
                failure: Failure::Denied(reason),
                ..
            } => Some(reason.clone()),
            _ => None,
        };
        Self {
            reason,
            ..Self::refused(denied.to_string())
        }
    }

    /// This was decided, in whatever order.
    #[must_use]
    pub fn decided(mut words: Vec<String>) -> Self {
        words.sort();
        Self {
            decided: words,
            ..Self::default()
        }
    }
}

/// The edits of the plugins whose answers counted, in words.
pub(crate) fn edits(decisions: &[Decision]) -> Vec<String> {
    let counted = decisions.iter().filter(|said| said.counted);
    let edited = counted.filter(|said| said.verdict == audit::Answer::Edited);
    edited.map(|said| said.answer.clone()).collect()
}

impl Recorded {
    /// Keeps a question. Without `env` the values of environments are left out, and the annotation in
    /// which kubectl keeps them.
    ///
    /// # Errors
    /// What is no JSON.
    pub fn of(
        pod: &Pod,
        question: &Question<'_>,
        env: bool,
        came: Came,
    ) -> serde_json::Result<Self> {
        let input = digest(pod, question);
        let mut pod = pod.clone();
        if !env {
            leave_out_manifest(&mut pod.annotations);
        }
        let container = question.container();
        Ok(Self {
            version: VERSION,
            inputs: vec![input.clone()],
            input,
            question: question.name().to_owned(),
            pod,
            container: container
                .map(|container| {
                    serde_json::Result::Ok(KeptContainer {
                        id: container.id.clone(),
                        name: container.name.clone(),
                        requested: container.requested.clone(),
                        image: container.image.clone(),
                        spec: json(&*container.spec, env)?,
                    })
                })
                .transpose()?,
            process: question
                .process()
                .map(|process| json(process, env))
                .transpose()?,
            update: question
                .update()
                .map(|update| json(update, env))
                .transpose()?,
            env,
            came,
        })
    }

    /// Reads a kept question.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn read(json: &[u8]) -> Result<Self, RecordedError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(RecordedError::Version(version));
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The container's name, if it was about one.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        Some(self.container.as_ref()?.name.as_str())
    }

    /// Asks again.
    ///
    /// # Errors
    /// What it is about cannot be made of what was kept.
    pub fn ask<T>(
        &self,
        ask: impl FnOnce(&Arc<Pod>, &Question<'_>) -> T,
    ) -> Result<T, RecordedError> {
        let container = self.container.as_ref().map(KeptContainer::read);
        let container = container.transpose()?;
        let about = || {
            container
                .as_ref()
                .ok_or(RecordedError::Lacks("a container"))
        };
        let process: Option<Process> = self
            .process
            .as_ref()
            .map(Deserialize::deserialize)
            .transpose()?;
        let update: Option<LinuxResources> = self
            .update
            .as_ref()
            .map(Deserialize::deserialize)
            .transpose()?;
        let question = match self.question.as_str() {
            "scope-sandbox" => Question::ScopeSandbox,
            "scope-container" => Question::ScopeContainer(about()?),
            "link-container" => Question::LinkContainer(about()?),
            "sandbox-starting" => Question::SandboxStarting,
            "container-creating" => Question::ContainerCreating(about()?),
            "exec-starting" => Question::ExecStarting(
                about()?,
                process.as_ref().ok_or(RecordedError::Lacks("an exec"))?,
            ),
            "resources-updating" => Question::ResourcesUpdating(
                about()?,
                update.as_ref().ok_or(RecordedError::Lacks("limits"))?,
            ),
            other => return Err(RecordedError::Question(other.to_owned())),
        };
        Ok(ask(&Arc::new(self.pod.clone()), &question))
    }
}

impl KeptContainer {
    fn read(&self) -> Result<Container, RecordedError> {
        Ok(Container {
            id: self.id.clone(),
            name: self.name.clone(),
            requested: self.requested.clone(),
            image: self.image.clone(),
            spec: Spec::deserialize(&self.spec)?.into(),
        })
    }
}

/// Whether a question is kept: what is over, and a plugin's own settings, are not.
pub(crate) fn is_kept(question: &Question<'_>) -> bool {
    question.decides() && !matches!(question, Question::ValidateSettings)
}

fn json(of: &impl Serialize, env: bool) -> serde_json::Result<Value> {
    let mut json = canonical::json(of)?;
    if !env {
        leave_out_values(&mut json);
    }
    Ok(json)
}

/// Replaces `NAME=value` by `NAME=` in every list that is called `env`, of processes and of hooks.
fn leave_out_values(json: &mut Value) {
    match json {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("env", Value::Array(variables)) => {
                        variables.iter_mut().for_each(without_value)
                    }
                    (MANIFEST, value) => *value = Value::String(String::new()),
                    (_, value) => leave_out_values(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_values),
        _ => {}
    }
}

fn without_value(variable: &mut Value) {
    let name = variable.as_str().and_then(|text| text.split_once('='));
    if let Some((name, _)) = name {
        *variable = Value::String(format!("{name}="));
    }
}

fn leave_out_manifest(annotations: &mut BTreeMap<String, String>) {
    if let Some(manifest) = annotations.get_mut(MANIFEST) {
        manifest.clear();
    }
}
