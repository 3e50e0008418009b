//! The Helm chart: what it renders is what Kubernetes knows, and what `husk node` takes.
//!
//! It is rendered by `helm` where that is on the PATH, else by its library for Python (`helm-python-sdk`) where
//! `python3` has that, and else not at all, which the test says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PYTHON: &str = "
import json, sys, helm_python as helm
what, chart, values = sys.argv[1:]
if what == 'lint':
    found = helm.lint(chart)
    print(found)
    sys.exit(bool(found['errors']))
with helm.Chart.load(chart) as chart:
    files = chart.render(json.load(open(values)), name='demo', namespace='prod')
print('\\n---\\n'.join(text for name, text in files.items() if name.endswith('.yaml')))
";

#[derive(Clone, Copy)]
enum Helm {
    Program,
    Library,
}

impl Helm {
    fn find() -> Option<Self> {
        let works = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).output();
            output.is_ok_and(|it| it.status.success())
        };
        if works("helm", &["version"]) {
            return Some(Self::Program);
        }
        if works("python3", &["-c", "import helm_python"]) {
            return Some(Self::Library);
        }
        eprintln!("neither helm nor helm-python-sdk is installed: the chart is not rendered");
        None
    }

    fn lint(self) -> Output {
        let mut command = match self {
            Self::Program => Command::new("helm"),
            Self::Library => python(),
        };
        command.arg("lint").arg(chart());
        if matches!(self, Self::Library) {
            command.arg("");
        }
        command.output().unwrap()
    }

    fn template(self, values: &Value) -> Output {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("values.json");
        fs::write(&file, values.to_string()).unwrap();
        let mut command = match self {
            Self::Program => Command::new("helm"),
            Self::Library => python(),
        };
        match self {
            Self::Program => {
                let words = ["template", "demo", "--namespace=prod", "--values"];
                command.args(words).arg(&file).arg(chart())
            }
            Self::Library => command.arg("template").arg(chart()).arg(&file),
        };
        command.output().unwrap()
    }

    #[track_caller]
    fn objects(self, values: &Value) -> Objects {
        let output = self.template(values);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Objects::read(&String::from_utf8(output.stdout).unwrap())
    }
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON]);
    command
}

fn chart() -> PathBuf {
    let chart = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/husk");
    chart.canonicalize().unwrap()
}

/// What was rendered.
#[derive(Default)]
struct Objects {
    daemon_sets: Vec<DaemonSet>,
    config_maps: BTreeMap<String, ConfigMap>,
    runtime_classes: BTreeMap<String, RuntimeClass>,
}

impl Objects {
    fn read(text: &str) -> Self {
        let mut all = Self::default();
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        for document in documents.into_iter().filter(|it| !it.is_null()) {
            let name = document["metadata"]["name"].as_str().unwrap().to_owned();
            match document["kind"].as_str().unwrap() {
                "DaemonSet" => all.daemon_sets.push(known(document)),
                "ConfigMap" => drop(all.config_maps.insert(name, known(document))),
                "RuntimeClass" => drop(all.runtime_classes.insert(name, known(document))),
                other => panic!("{other} is not expected"),
            }
        }
        all
    }

    fn daemon_set(&self) -> Value {
        assert_eq!(self.daemon_sets.len(), 1);
        serde_json::to_value(&self.daemon_sets[0]).unwrap()
    }
}

/// The object as Kubernetes knows it; a field that it would not know is lost on the way, and found out.
fn known<T: DeserializeOwned + Serialize>(document: Value) -> T {
    let object: T = serde_json::from_value(document.clone()).unwrap();
    let back = serde_json::to_value(&object).unwrap();
    assert_kept(&document, &back, "");
    object
}

fn assert_kept(before: &Value, after: &Value, at: &str) {
    match (before, after) {
        (Value::Object(before), after) => {
            for (key, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                assert_kept(value, &after[key], &format!("{at}.{key}"));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len(), "{at}");
            for (before, after) in before.iter().zip(after) {
                assert_kept(before, after, &format!("{at}[]"));
            }
        }
        (before, after) => assert_eq!(before, after, "{at}"),
    }
}

/// An object that is of use has an image.
fn values(more: Value) -> Value {
    let mut values = json!({"image": {"repository": "registry.example/husk"}});
    let more = more.as_object().unwrap().clone();
    values.as_object_mut().unwrap().extend(more);
    values
}

fn words(container: &Value) -> Vec<String> {
    let words = container["args"].as_array().unwrap().iter();
    words.map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// Whether husk knows the arguments: unknown ones come before its help.
fn is_known_to_husk(words: &[String]) -> bool {
    let mut husk = Command::new(env!("CARGO_BIN_EXE_husk"));
    let output = husk.args(words).arg("--help").output();
    output.unwrap().status.success()
}

#[test]
fn what_it_renders_by_itself_is_whole() {
    assert!(!is_known_to_husk(
        &["node", "--no-such-thing"].map(str::to_owned)
    ));
    let Some(helm) = Helm::find() else { return };
    let linted = helm.lint();
    assert!(
        linted.status.success(),
        "{}",
        String::from_utf8_lossy(&linted.stdout)
    );

    let objects = helm.objects(&values(json!({})));
    let set = objects.daemon_set();
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/husk:0.1.0");
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        1
    );
    let words = words(container);
    assert!(is_known_to_husk(&words), "{words:?}");
    let mounts = container["volumeMounts"].as_array().unwrap();
    for flag in ["--host-root=", "--source="] {
        let at = words.iter().find_map(|it| it.strip_prefix(flag)).unwrap();
        assert!(mounts.iter().any(|it| it["mountPath"] == at), "{at}");
    }
    let port = &container["ports"][0]["containerPort"];
    assert!(words.contains(&format!("--listen=0.0.0.0:{port}")));
    let selector = set["spec"]["selector"]["matchLabels"].as_object().unwrap();
    for (key, value) in selector {
        assert_eq!(&set["spec"]["template"]["metadata"]["labels"][key], value);
    }

    let class = serde_json::to_value(&objects.runtime_classes["husk"]).unwrap();
    assert_eq!(class["handler"], "husk");
    assert_eq!(class["scheduling"]["nodeSelector"], pod["nodeSelector"]);
    // What `husk install` writes.
    assert_eq!(class["overhead"]["podFixed"]["memory"], "1200Ki");
    let map = &objects.config_maps["demo-node"];
    assert_eq!(map.data.as_ref().unwrap()["husk.toml"], "");
}

#[test]
fn handlers_and_plugins_arrive_as_they_were_written() {
    let Some(helm) = Helm::find() else { return };
    let text = "# \"quoted\"\n[ceiling]\nnetwork = 'pod' # {{ not a template }}\n";
    let tolerations = json!([{"key": "agents", "operator": "Exists"}]);
    let given = values(json!({
        "handlers": {"husk": null, "husk-strict": {"configuration": text}},
        "plugins": {"mine": "AGFzbQ=="},
        "pluginConfigMaps": ["rules"],
        "tolerations": tolerations,
        "nodeSelector": {"pool": "agents"},
        "extraArgs": ["--sandboxer=podsandbox", "--no-restart"],
        "dashboard": true,
    }));
    let objects = helm.objects(&given);
    let map = &objects.config_maps["demo-node"];
    let data = map.data.as_ref().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["husk-strict.toml"]);
    assert_eq!(data["husk-strict.toml"], text);
    assert_eq!(map.binary_data.as_ref().unwrap()["mine.wasm"].0, b"\0asm");

    let set = objects.daemon_set();
    let pod = &set["spec"]["template"]["spec"];
    let sources = pod["volumes"][1]["projected"]["sources"]
        .as_array()
        .unwrap();
    let names: Vec<_> = sources.iter().map(|it| &it["configMap"]["name"]).collect();
    assert_eq!(names, ["demo-node", "rules"]);
    assert_eq!(pod["tolerations"], tolerations);
    assert_eq!(pod["nodeSelector"]["pool"], "agents");
    let words = words(&pod["containers"][0]);
    assert!(is_known_to_husk(&words), "{words:?}");

    assert_eq!(objects.runtime_classes.len(), 1);
    let class = serde_json::to_value(&objects.runtime_classes["husk-strict"]).unwrap();
    assert_eq!(class["scheduling"]["tolerations"], tolerations);
    let dashboard = &objects.config_maps["demo-node-dashboard"];
    let dashboard = &dashboard.data.as_ref().unwrap()["husk.json"];
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    assert_eq!(dashboard["uid"], "husk");
}

#[test]
fn taking_it_away_leaves_no_class_and_bad_values_are_refused() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.objects(&values(json!({"remove": true})));
    assert!(objects.runtime_classes.is_empty());
    let words = words(&objects.daemon_set()["spec"]["template"]["spec"]["containers"][0]);
    assert!(words.contains(&"--uninstall".to_owned()), "{words:?}");
    assert!(is_known_to_husk(&words), "{words:?}");

    for (given, why) in [
        (json!({}), "image.repository"),
        (
            values(json!({"handlers": {"../x": {}}})),
            "cannot be a handler",
        ),
        (
            values(json!({"handlers": {"Upper": {}}})),
            "cannot be a handler",
        ),
    ] {
        let output = helm.template(&given);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(why),
            "{why}: {said}"
        );
    }
}
