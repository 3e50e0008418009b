//! Kubernetes Pod manifests: read, checked to the last field, and translated into a typed [`Pod`].
//!
//! Whatever a manifest sets and the engine does not implement is an error that names the field:
//! a pod that runs is the pod that was written.
mod expand;
mod fields;
mod pod;
mod quantity;
mod translate;

pub use pod::{
    Capabilities, Container, Dns, EmptyDir, HostAlias, HostPathType, Pod, ProcMount, Propagation,
    PullPolicy, Resources, RestartPolicy, SeccompProfile, Security, Volume, VolumeMount,
};

use k8s_openapi::api::core::v1;
use serde_json::Value;

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not YAML, or not of a Pod's shape.
    #[error("{file}:{line}:{column}: {problem}")]
    Syntax {
        /// The manifest's name.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// What the parser says.
        problem: String,
    },
    /// It is YAML, but not one Pod.
    #[error("{file}: {problem}; husk run takes a file with exactly one Pod (apiVersion: v1)")]
    NotOnePod {
        /// The manifest's name.
        file: String,
        /// What it holds instead.
        problem: String,
    },
    /// Fields that husk run does not support, or with values that make no sense.
    #[error("{file}: {}", list(.problems))]
    Fields {
        /// The manifest's name.
        file: String,
        /// One for each field.
        problems: Vec<Problem>,
    },
}

/// A field that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Problem {
    /// Such as `spec.containers[0].livenessProbe`.
    pub path: String,
    /// Why, and what would be right.
    pub reason: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [only] => only.to_string(),
        many => many
            .iter()
            .map(|problem| format!("\n  {problem}"))
            .collect(),
    }
}

/// Reads a manifest; `file` is its name in errors, `uid` the pod's uid if it sets none.
///
/// # Errors
/// [`Error`], with every field that is not supported.
pub fn parse(file: &str, text: &str, uid: &str) -> Result<Pod, Error> {
    let syntax = |error: serde_saphyr::Error| syntax_error(file, &error);
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(syntax)?;
    let document = one_pod(file, documents)?;
    let refused = |problems| Error::Fields {
        file: file.to_owned(),
        problems,
    };
    // Typed from the text, not from the document, so that a wrong type is reported with its line.
    let mut pods: Vec<v1::Pod> = serde_saphyr::from_multiple(text).map_err(syntax)?;
    let Some(pod) = pods.pop() else {
        return Err(refused(Vec::new()));
    };
    let unsupported = fields::unsupported(&document, &pod);
    if !unsupported.is_empty() {
        return Err(refused(unsupported));
    }
    translate::pod(pod, uid).map_err(refused)
}

fn one_pod(file: &str, mut documents: Vec<Value>) -> Result<Value, Error> {
    let not_one = |problem| {
        Err(Error::NotOnePod {
            file: file.to_owned(),
            problem,
        })
    };
    documents.retain(|document| !document.is_null());
    let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
        let count = documents.len();
        return not_one(if count == 0 {
            String::from("it is empty")
        } else {
            format!("it holds {} documents", count + 1)
        });
    };
    let kind = document
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("nothing");
    let version = document
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or("no version");
    if (kind, version) != ("Pod", "v1") {
        return not_one(format!("it holds a {kind} ({version})"));
    }
    Ok(document)
}

fn syntax_error(file: &str, error: &serde_saphyr::Error) -> Error {
    let error = error.without_snippet();
    let at = error.location();
    Error::Syntax {
        file: file.to_owned(),
        line: at.map_or(1, |at| at.line()),
        column: at.map_or(1, |at| at.column()),
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("pod.yaml", text, "uid").unwrap_err().to_string()
    }

    #[test]
    fn a_syntax_error_names_file_and_line() {
        let text = "apiVersion: v1\nkind: Pod\nspec:\n  containers: [\n";
        assert!(error(text).starts_with("pod.yaml:"), "{}", error(text));
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: [1]\n";
        assert!(error(text).starts_with("pod.yaml:4:"), "{}", error(text));
    }

    #[test]
    fn only_one_pod_is_taken() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
                   spec: {containers: [{name: c, image: i}]}\n";
        assert!(parse("pod.yaml", &format!("---\n{pod}"), "uid").is_ok());
        assert!(error(&format!("{pod}---\n{pod}")).contains("2 documents"));
        assert!(error("").contains("empty"));
        assert!(
            error("apiVersion: apps/v1\nkind: Deployment\n").contains("a Deployment (apps/v1)")
        );
    }
}
