//! A question that was kept is asked again as it was: the answer is the same.
use std::collections::BTreeMap;
use std::sync::Arc;

use husk_plugin_host::case::{Case, ordinary_pod};
use husk_plugin_host::recorded::{Came, Recorded, RecordedError};
use husk_plugin_host::subject::{Container, Pod, Question};
use husk_plugin_host::{Chain, Host, Plugin};
use husk_scope::{Kind, Scope};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use crate::common;

/// Three policies that look at much of what there is to see.
fn chain(host: &Host) -> Chain {
    let plugin = |name: &str, settings: &str| {
        let (code, digest) = common::built(host, name);
        Plugin::new(host, &code, digest, common::settings_with(name, settings)).unwrap()
    };
    let gate = r#"{"allow":[{"commands":[["echo","..."]],"users":[0]}]}"#;
    let says = r#"{"scope-container":{"only":"app","scopes":{"ipc":"group:a"}},
        "container-creating":{"edits":{"env":{"MODE":"edited"}}}}"#;
    Chain::new(vec![
        plugin("no-host", "{}"),
        plugin("baseline-oci", "{}"),
        plugin("exec-gate", gate),
        plugin("says", says),
    ])
    .keeping(true)
}

/// One of a thousand different questions.
fn question<T>(number: usize, ask: impl FnOnce(&Arc<Pod>, &Question<'_>) -> T) -> T {
    let bit = |place: usize| (number >> place) & 1 == 1;
    let mut pod = ordinary_pod();
    pod.name = format!("pod-{number}");
    pod.labels = BTreeMap::from([("number".into(), number.to_string())]);
    if bit(0) {
        pod.requested[Kind::Pid] = Scope::Node;
    }
    let mut spec = serde_json::to_value(Spec::default()).unwrap();
    spec["process"]["env"] = json!([format!("SECRET={number}"), "EMPTY=", "NONE"]);
    spec["hostname"] = json!(format!("host-{number}"));
    if bit(1) {
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN", "CAP_CHOWN"]);
    }
    if bit(2) {
        spec["mounts"] =
            json!([{"destination": "/x", "source": "/etc", "type": "bind", "options": ["bind"]}]);
    }
    let mut container = Container {
        name: if bit(3) { "app" } else { "other" }.into(),
        spec: serde_json::from_value::<Spec>(spec).unwrap().into(),
        ..common::container()
    };
    if bit(4) {
        container.requested[Kind::Network] = Scope::Node;
    }
    let mut process = Process::default();
    let word = if bit(5) { "echo" } else { "sh" };
    process.set_args(Some(vec![word.into(), number.to_string()]));
    let pod = Arc::new(pod);
    let question = match number % 5 {
        0 => Question::ScopeSandbox,
        1 => Question::ScopeContainer(&container),
        2 => Question::ContainerCreating(&container),
        3 => Question::ExecStarting(&container, &process),
        _ => Question::SandboxStarting,
    };
    ask(&pod, &question)
}

/// What the chain makes of it, as it is kept.
fn asked(chain: &Chain, pod: &Arc<Pod>, question: &Question<'_>) -> Recorded {
    let recorded = match question {
        Question::ScopeSandbox => chain.scopes(pod, None).recorded,
        Question::ScopeContainer(container) => chain.scopes(pod, Some(container)).recorded,
        Question::ContainerCreating(container) => chain.container_creating(pod, container).recorded,
        other => chain.notify(pod, other).recorded,
    };
    *recorded.expect("the chain keeps it")
}

#[test]
fn a_thousand_questions_have_the_same_answers_again() {
    let host = Host::new().unwrap();
    let first = chain(&host);
    let second = chain(&host);
    let (mut refused, mut decided) = (0, 0);
    for number in 0..1000 {
        let before = question(number, |pod, question| asked(&first, pod, question));
        let json = serde_json::to_vec(&before).unwrap();
        let read = Recorded::read(&json).unwrap();
        let after = read
            .ask(|pod, question| asked(&second, pod, question))
            .unwrap();
        // All of it: what was asked, its digests, and what came of it.
        assert_eq!(before, after, "question {number}");
        refused += usize::from(before.came.refused.is_some());
        decided += usize::from(!before.came.decided.is_empty());
    }
    println!("{refused} refused, {decided} decided");
    assert!(refused > 200 && refused < 800, "{refused}");
    assert!(decided > 50, "{decided}");
}

#[test]
fn values_of_the_environment_and_kubectls_manifest_are_left_out() {
    let mut pod = ordinary_pod();
    let manifest = "kubectl.kubernetes.io/last-applied-configuration";
    pod.annotations = BTreeMap::from([
        (manifest.into(), "hunter2".into()),
        ("other".into(), "kept".into()),
    ]);
    let mut spec = serde_json::to_value(Spec::default()).unwrap();
    spec["process"]["env"] = json!(["PASSWORD=hunter2=x", "NONE"]);
    spec["annotations"] = json!({manifest: "hunter2"});
    spec["hooks"] = json!({"poststop": [{"path": "/x", "env": ["TOKEN=hunter2"]}]});
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let container = Container {
        spec: spec.into(),
        ..common::container()
    };
    let mut process = Process::default();
    process.set_env(Some(vec!["PASSWORD=hunter2".into()]));
    let question = Question::ExecStarting(&container, &process);
    let kept = |env| {
        let recorded = Recorded::of(&pod, &question, env, Came::default()).unwrap();
        serde_json::to_string(&recorded).unwrap()
    };
    assert!(!kept(false).contains("hunter2"), "{}", kept(false));
    assert_eq!(kept(true).matches("hunter2").count(), 5);
    let recorded = Recorded::read(kept(false).as_bytes()).unwrap();
    let env = &recorded.container.as_ref().unwrap().spec["process"]["env"];
    assert_eq!(*env, json!(["PASSWORD=", "NONE"]));
    assert_eq!(recorded.pod.annotations["other"], "kept");
    // Its name is that of what was asked.
    let with = Recorded::read(kept(true).as_bytes()).unwrap();
    assert_eq!(recorded.input, with.input);
}

#[test]
fn what_is_over_is_not_kept_and_what_another_husk_kept_is_said() {
    let container = common::container();
    let chain = Chain::default().keeping(false);
    let pod = Arc::new(ordinary_pod());
    let over = chain.notify(&pod, &Question::ContainerStarted(&container));
    assert!(over.recorded.is_none());
    let outcome = chain.notify(&pod, &Question::SandboxStarting);
    let mut kept = serde_json::to_value(outcome.recorded.unwrap()).unwrap();
    let read = |kept: &Value| Recorded::read(kept.to_string().as_bytes());
    assert!(read(&kept).is_ok());
    kept["version"] = json!(2);
    let refused = read(&kept).unwrap_err();
    assert!(matches!(refused, RecordedError::Version(2)), "{refused}");
    assert!(matches!(read(&json!({})), Err(RecordedError::Form(_))));
    kept["version"] = json!(1);
    kept["question"] = json!("exec-starting");
    let refused = read(&kept).unwrap().ask(|_, _| ()).unwrap_err();
    assert!(matches!(refused, RecordedError::Lacks("a container")));
}

#[test]
fn a_case_may_have_the_whole_spec_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let case = |text: &str| {
        let path = dir.path().join("case.toml");
        std::fs::write(
            &path,
            format!("question = 'container-creating'\n{text}expect = 'admitted'\n"),
        )
        .unwrap();
        let case = Case::read(&path).unwrap();
        case.with_question(|_, question| {
            serde_json::to_value(&*question.container().unwrap().spec).unwrap()
        })
        .map_err(|error| error.to_string())
    };
    let spec = case("container.spec-json = '{\"ociVersion\":\"1.0.0\"}'\n").unwrap();
    assert_eq!(spec, json!({"ociVersion": "1.0.0"}));
    assert!(case("").unwrap()["linux"]["seccomp"].is_object());
    for (text, words) in [
        (
            "container.spec-json = '{'\n",
            "container.spec-json is not JSON",
        ),
        (
            "container.spec-json = '{\"ociVersion\":\"1.0.0\",\"typo\":1}'\n",
            "`container.spec-json.typo`",
        ),
        (
            "container.spec-json = '{\"ociVersion\":\"1\"}'\ncontainer.spec.hostname = 'x'\n",
            "say the same",
        ),
    ] {
        let said = case(text).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
}
