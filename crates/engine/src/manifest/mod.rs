//! Kubernetes Pod manifests: read, checked to the last field, and translated into a typed [`Pod`].
//!
//! Whatever a manifest sets and the engine does not implement is an error that names the field and
//! its line: a pod that runs is the pod that was written. What only a cluster would heed is left
//! aside, with a word; every problem of a file is told at once.
mod expand;
mod fields;
mod located;
mod objects;
mod pod;
mod quantity;
mod translate;

pub use pod::{
    Action, Capabilities, Container, Dns, EmptyDir, HostAlias, HostPathType, Pod, Probe, ProcMount,
    Propagation, PullPolicy, Resources, RestartPolicy, SeccompProfile, Security, Volume,
    VolumeFile, VolumeMount,
};

use k8s_openapi::api::core::v1;
use serde_json::{Map, Value};

use self::located::{Located, joined};
use self::objects::Objects;

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
    #[error(
        "{file}: {problem}; husk run takes a file with exactly one Pod (apiVersion: v1), or with one \
         object that has the template of one, such as a Deployment"
    )]
    NotOnePod {
        /// The manifest's name.
        file: String,
        /// What it holds instead.
        problem: String,
    },
    /// Fields that husk run does not support, or with values that make no sense.
    #[error("{}", list(.file, .problems))]
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
    /// The line in the file, from 1.
    pub line: u64,
    /// Such as `spec.containers[0].livenessProbe`.
    pub path: String,
    /// Why, and what would be right.
    pub reason: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            line: 1,
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// A line for each, as compilers have it.
fn list(file: &str, problems: &[Problem]) -> String {
    let each = problems
        .iter()
        .map(|problem| format!("{file}:{}: {problem}", problem.line));
    each.collect::<Vec<_>>().join("\n")
}

/// Reads a manifest; `file` is its name in errors, `uid` the pod's uid if it sets none.
///
/// It holds one Pod, or one object with the template of one, such as a Deployment; and the ConfigMaps
/// and Secrets that the pod refers to. What else there is, such as a Service, is left aside.
///
/// # Errors
/// [`Error`], with every field that stands in the way.
pub fn parse(file: &str, text: &str, uid: &str) -> Result<Pod, Error> {
    let documents = located::read(text).map_err(|error| syntax_error(file, &error))?;
    let Sorted {
        found,
        objects,
        mut left_aside,
        mut problems,
    } = sort(documents);
    let not_one = |problem| Error::NotOnePod {
        file: file.to_owned(),
        problem,
    };
    let mut found = match <[Found; 1]>::try_from(found) {
        Ok([found]) => found,
        Err(found) if found.is_empty() => {
            return Err(not_one(match left_aside.as_slice() {
                [] => String::from("it is empty"),
                others => format!("it holds no Pod: {}", others.join(", ")),
            }));
        }
        Err(found) => return Err(not_one(format!("it holds {} pods", found.len()))),
    };
    let mut ignored = Vec::new();
    let mut value = std::mem::take(&mut found.pod.value);
    let mut wrong = fields::check(&mut value, &mut ignored);
    let pod = match serde_json::from_value::<v1::Pod>(value) {
        Ok(pod) => translate::pod(pod, uid, &objects, &mut wrong, &mut ignored),
        Err(error) => {
            wrong.push(Problem::new("spec", error.to_string()));
            None
        }
    };
    left_aside.extend(ignored.iter().map(|it| {
        let it = found.at(it);
        format!("line {}: {it}", it.line)
    }));
    problems.extend(wrong.iter().map(|it| found.at(it)));
    match pod {
        Some(pod) if problems.is_empty() => Ok(Pod { left_aside, ..pod }),
        _ => {
            problems.sort_by_key(|problem| problem.line);
            Err(Error::Fields {
                file: file.to_owned(),
                problems,
            })
        }
    }
}

/// A pod in a file.
struct Found {
    /// The document; of a template, what a pod made from it would be.
    pod: Located,
    /// Where it is in the document.
    within: &'static [&'static str],
}

impl Found {
    /// The problem with its line, and its path as it is in the file.
    fn at(&self, problem: &Problem) -> Problem {
        let mut path = self.within.join(".");
        if path.is_empty() || !problem.path.is_empty() {
            path = joined(&path, &problem.path);
        }
        Problem {
            line: self.pod.line(&problem.path),
            path,
            reason: problem.reason.clone(),
        }
    }
}

/// What the documents of a file are.
#[derive(Default)]
struct Sorted {
    found: Vec<Found>,
    objects: Objects,
    left_aside: Vec<String>,
    problems: Vec<Problem>,
}

fn sort(documents: Vec<Located>) -> Sorted {
    let mut sorted = Sorted::default();
    for document in documents {
        sort_one(document, &mut sorted);
    }
    sorted
}

fn sort_one(document: Located, sorted: &mut Sorted) {
    let text = |pointer| document.value.pointer(pointer).and_then(Value::as_str);
    let (kind, version) = (text("/kind"), text("/apiVersion"));
    let (kind, version) = (kind.unwrap_or("nothing"), version.unwrap_or("no version"));
    let within: &[&str] = match (kind, version) {
        ("List", "v1") => {
            for item in document.items() {
                sort_one(item, sorted);
            }
            return;
        }
        ("ConfigMap", "v1") => {
            let problems = sorted.objects.add(objects::Kind::ConfigMap, &document);
            return sorted.problems.extend(with_lines(&document, problems));
        }
        ("Secret", "v1") => {
            let problems = sorted.objects.add(objects::Kind::Secret, &document);
            return sorted.problems.extend(with_lines(&document, problems));
        }
        ("Pod", "v1") => &[],
        ("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet", "apps/v1")
        | ("Job", "batch/v1")
        | ("ReplicationController", "v1") => &["spec", "template"],
        ("PodTemplate", "v1") => &["template"],
        ("CronJob", "batch/v1") => &["spec", "jobTemplate", "spec", "template"],
        _ => {
            let name = text("/metadata/name").unwrap_or("without a name");
            let word = format!(
                "line {}: {kind} {name} ({version}) is left aside",
                document.line("")
            );
            return sorted.left_aside.push(word);
        }
    };
    if within.is_empty() {
        return sorted.found.push(Found {
            pod: document,
            within,
        });
    }
    let Some(mut pod) = document.part(within) else {
        let problem = Problem::new(within.join("."), "missing");
        return sorted.problems.extend(with_lines(&document, vec![problem]));
    };
    // A pod of a Deployment has a name made from its; of one there is one.
    if let Some(template) = pod.value.as_object_mut() {
        let metadata = template.entry("metadata").or_insert(Value::Null);
        if metadata.is_null() {
            *metadata = Value::Object(Map::default());
        }
        if let Some(metadata) = metadata.as_object_mut() {
            for field in ["name", "namespace"] {
                let own = document.value.pointer(&format!("/metadata/{field}"));
                if let Some(own) = own.filter(|own| own.is_string()) {
                    metadata.entry(field).or_insert_with(|| own.clone());
                }
            }
        }
    }
    if let Some(replicas) = document
        .value
        .pointer("/spec/replicas")
        .and_then(Value::as_u64)
        && replicas != 1
    {
        let line = document.line("spec.replicas");
        let word =
            format!("line {line}: spec.replicas: left aside: one pod is run, not {replicas}");
        sorted.left_aside.push(word);
    }
    sorted.found.push(Found { pod, within });
}

fn with_lines(document: &Located, problems: Vec<Problem>) -> Vec<Problem> {
    let with_line = |problem: Problem| Problem {
        line: document.line(&problem.path),
        ..problem
    };
    problems.into_iter().map(with_line).collect()
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
        assert!(error(text).contains("pod.yaml:4:"), "{}", error(text));
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
                       spec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn only_one_pod_is_taken() {
        assert!(parse("pod.yaml", &format!("---\n{POD}"), "uid").is_ok());
        assert!(error(&format!("{POD}---\n{POD}")).contains("2 pods"));
        assert!(error("").contains("empty"));
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
        assert!(
            error(text).contains("no Pod: line 1: Service x (v1)"),
            "{}",
            error(text)
        );
        let pod = parse("pod.yaml", &format!("{text}---\n{POD}"), "uid").unwrap();
        assert_eq!(pod.left_aside, ["line 1: Service x (v1) is left aside"]);
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  \
                    template:\n    spec:\n      hostNetwrok: true\n      containers:\n      - \
                    name: A_b\n        image: i\n        resources:\n          limits:\n            \
                    cpu: -1\n        env:\n        - name: X\n          value: 5\n";
        assert_eq!(
            error(text).lines().collect::<Vec<_>>(),
            [
                "pod.yaml:8: spec.template.spec.hostNetwrok: no such field in a Pod (v1); is \
                 `hostNetwork` meant?",
                "pod.yaml:10: spec.template.spec.containers[0].name: `A_b` is not a name: \
                 lower-case letters, digits and `-`, at most 63",
                "pod.yaml:14: spec.template.spec.containers[0].resources.limits.cpu: `-1` cannot be \
                 negative",
                "pod.yaml:17: spec.template.spec.containers[0].env[0].value: must be a text (put \
                 it in quotes), and is 5",
            ]
        );
    }

    #[test]
    fn a_key_of_an_object_is_no_way_out_of_a_volume() {
        for key in ["../../x", "/etc/x", "a/b", "..", "..x", ".", "", "a=b"] {
            for (kind, field) in [("ConfigMap", "data"), ("Secret", "stringData")] {
                let text = format!(
                    "apiVersion: v1\nkind: {kind}\nmetadata: {{name: m}}\n{field}:\n  \"{key}\": \
                     x\n---\n{POD}"
                );
                let said = error(&text);
                assert!(
                    said.starts_with("pod.yaml:5: ") && said.contains("is no key"),
                    "{key}: {said}"
                );
            }
        }
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {.a-B_c..d: x}\n";
        parse("pod.yaml", &format!("{text}---\n{POD}"), "uid").unwrap();
    }

    #[test]
    fn a_misspelt_field_of_an_object_is_told() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndate: {a: \
                    b}\nbinaryData: [a]\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: \
                    s}\ntype: Opaque\nimmutable: true\nstringdata: {a: b}\ndata: null\n---\n";
        assert_eq!(
            error(&format!("{text}{POD}")).lines().collect::<Vec<_>>(),
            [
                "pod.yaml:4: date: no such field in a ConfigMap (v1); is `data` meant?",
                "pod.yaml:5: binaryData: must have fields of its own",
                "pod.yaml:12: stringdata: no such field in a Secret (v1); is `stringData` meant?",
            ]
        );
    }

    #[test]
    fn a_template_becomes_a_pod() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: \
                    Deployment\n  metadata: {name: web, namespace: shop}\n  spec:\n    replicas: \
                    3\n    template:\n      metadata: {creationTimestamp: null, labels: {app: \
                    web}}\n      spec: {containers: [{name: c, image: i, resources: {}}]}\n  \
                    status: {}\n";
        let pod = parse("pod.yaml", text, "uid").unwrap();
        assert_eq!((&*pod.name, &*pod.namespace), ("web", "shop"));
        assert_eq!(pod.labels.get("app").map(String::as_str), Some("web"));
        assert_eq!(
            pod.left_aside,
            ["line 8: spec.replicas: left aside: one pod is run, not 3"]
        );
    }
}
