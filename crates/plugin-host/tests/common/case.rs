//! A case of a plugin: what it is asked, and what it should answer. The format is that of
//! `husk policy test`; here a case is asked through a chain, as the shim asks.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use husk_plugin_host::subject::{Container, Pod, Question};
use husk_plugin_host::{Chain, Decision};
use husk_scope::{Kind, Scope, Scopes};
use oci_spec::runtime::{Process, Spec};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    question: String,
    pub(crate) settings: Option<Value>,
    #[serde(default)]
    pod: PodFacts,
    #[serde(default)]
    container: ContainerFacts,
    #[serde(default)]
    process: Value,
    expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PodFacts {
    name: Option<String>,
    namespace: Option<String>,
    requested: BTreeMap<Kind, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ContainerFacts {
    name: Option<String>,
    requested: BTreeMap<Kind, String>,
    spec: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expect {
    Scopes(BTreeMap<Kind, String>),
    Denied(String),
    Admitted,
}

/// The cases in a folder, by file name.
pub(crate) fn read(dir: &Path) -> Vec<(String, Case)> {
    let entries =
        std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut cases: Vec<(String, Case)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let case = toml::from_str(&text);
            let case = case.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.display().to_string(), case)
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!cases.is_empty(), "{} holds no case", dir.display());
    cases
}

impl Case {
    /// Asks a chain of one plugin; says what it decided.
    pub(crate) fn ask(&self, chain: &Chain) -> Decision {
        let (pod, container, process) = (self.pod(), self.container(), self.process());
        let decisions = match self.question.as_str() {
            "validate-settings" => chain.validate_settings(&pod).decisions,
            "scope-sandbox" => chain.scopes(&pod, None).decisions,
            "scope-container" => chain.scopes(&pod, Some(&container)).decisions,
            "sandbox-starting" => chain.notify(&pod, &Question::SandboxStarting).decisions,
            "container-creating" => chain.container_creating(&pod, &container).decisions,
            "exec-starting" => {
                chain
                    .notify(&pod, &Question::ExecStarting(&container, &process))
                    .decisions
            }
            other => panic!("no case asks `{other}` yet"),
        };
        let [decision] = <[Decision; 1]>::try_from(decisions).expect("one plugin, one decision");
        decision
    }

    /// What is wrong with a decision; nothing when it is the expected one.
    pub(crate) fn mismatch(&self, decision: &Decision) -> Option<String> {
        let (expected, fits) = match &self.expect {
            Expect::Denied(words) => (
                format!("a denial with `{words}`"),
                decision.denied && decision.answer.contains(words.as_str()),
            ),
            Expect::Admitted => (
                "admitted".to_owned(),
                !decision.denied
                    && ["admitted", "as requested"].contains(&decision.answer.as_str()),
            ),
            Expect::Scopes(scopes) => {
                let mut wanted: Vec<String> = scopes
                    .iter()
                    .map(|(kind, word)| format!("{kind}={}", scope(word)))
                    .collect();
                let mut given: Vec<&str> = decision.answer.split(' ').collect();
                wanted.sort();
                given.sort_unstable();
                (wanted.join(" "), !decision.denied && wanted == given)
            }
        };
        (!fits).then(|| format!("expected {expected}, got {}", decision.answer))
    }

    fn pod(&self) -> Arc<Pod> {
        Arc::new(Pod {
            id: "pod-id".to_owned(),
            name: self.pod.name.clone().unwrap_or_else(|| "pod".to_owned()),
            namespace: self
                .pod
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            uid: "00000000-0000-0000-0000-000000000000".to_owned(),
            cgroup_parent: "/kubepods/pod".to_owned(),
            requested: requested(&self.pod.requested),
            containers: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        })
    }

    fn container(&self) -> Container {
        let mut spec = json!({
            "ociVersion": "1.1.0",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
            "root": { "path": "rootfs" },
            "linux": { "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" } },
        });
        merge(&mut spec, &self.container.spec);
        let name = self
            .container
            .name
            .clone()
            .unwrap_or_else(|| "app".to_owned());
        Container {
            id: format!("{name}-id"),
            name,
            requested: requested(&self.container.requested),
            image: String::new(),
            spec: Arc::new(serde_json::from_value::<Spec>(spec).expect("an OCI spec")),
        }
    }

    fn process(&self) -> Process {
        let mut process = serde_json::to_value(Process::default()).unwrap();
        merge(&mut process, &self.process);
        serde_json::from_value(process).expect("an OCI process")
    }
}

fn scope(word: &str) -> Scope {
    word.parse().unwrap_or_else(|problem| panic!("{problem}"))
}

/// What Kubernetes requests, but for what the case says.
fn requested(special: &BTreeMap<Kind, String>) -> Scopes {
    let mut scopes = Scopes::all(&Scope::Container);
    for kind in [Kind::Network, Kind::Ipc, Kind::Uts] {
        scopes[kind] = Scope::Pod;
    }
    for kind in [Kind::User, Kind::Time] {
        scopes[kind] = Scope::Node;
    }
    for (kind, word) in special {
        scopes[*kind] = scope(word);
    }
    scopes
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}
