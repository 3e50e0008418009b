//! What plugins answered is found by `husk audit` once the pods are gone.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::node::{Node, Shim, eventually, finish, stderr, stdout};

const SLEEPS: &str = "  terminationGracePeriodSeconds: 0\n  containers:\n\
    \x20 - {name: app, image: ROOTFS, command: [sleep, '100'], securityContext: {runAsUser: 7}}\n";

/// The table of a plugin.
fn plugin(name: &str, component: &str, rest: &str) -> String {
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/target/components");
    let path = components.canonicalize().unwrap();
    let path = path.join(format!("{component}.wasm"));
    let path = path.display();
    format!("[[plugin]]\nname = '{name}'\npath = '{path}'\ndeadline = '5s'\n{rest}\n")
}

/// A node whose handler's record is in a directory of the test's.
struct Audited {
    node: Node,
    config: PathBuf,
    dir: PathBuf,
}

impl Audited {
    fn new(audit: &str, plugins: &str) -> Self {
        let node = Node::new(Shim::Husk);
        let (config, dir) = (node.scratch().join("husk.toml"), node.scratch().join("log"));
        let text = format!("[audit]\ndir = '{}'\n{audit}\n{plugins}", dir.display());
        fs::write(&config, text).unwrap();
        Self { node, config, dir }
    }

    fn run(&self, spec: &str, args: &[&str]) -> Output {
        let args = [args, &["--config", self.config.to_str().unwrap()]].concat();
        finish(self.node.start(spec, &args))
    }

    fn detach(&self) -> String {
        let output = self.run(SLEEPS, &["--detach"]);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    }

    fn remove(&self, id: &str) {
        self.node.stdout(&["rm", "-f", id]);
        self.node.assert_nothing_left();
    }

    fn audit(&self, args: &[&str]) -> String {
        let dir = self.dir.to_str().unwrap();
        self.node.stdout(&[&["audit", "--dir", dir], args].concat())
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let json = self.audit(&[&["--json"], args].concat());
        let line = |line| serde_json::from_str(line).unwrap();
        json.lines().map(line).collect()
    }
}

#[test]
fn why_a_pod_was_refused_is_found_when_it_is_gone() {
    let refuses = plugin(
        "strict",
        "says",
        "[plugin.settings.container-creating]\ndeny = \"it's not\\u001b[31m\\nsigned\"",
    );
    let audited = Audited::new("", &refuses);
    let refused = audited.run(SLEEPS, &[]);
    assert!(!refused.status.success());
    audited.node.assert_nothing_left();
    let lines = audited.lines(&["--pod", "test", "--answer", "denied"]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert_eq!(line["pod"]["name"], "test");
    assert_eq!(line["pod"]["namespace"], "default");
    assert_eq!(
        line["pod"]["uid"].as_str().map(str::len),
        Some(36),
        "{line}"
    );
    assert_eq!(line["container"], "app");
    assert_eq!(line["event"], "container-creating");
    assert_eq!(line["plugin"], "strict");
    assert_eq!(line["reason"], "it's not\\u{1b}[31m / signed");
    assert_eq!(line["counted"], true);
    for field in ["digest", "input"] {
        assert_eq!(line[field].as_str().map(str::len), Some(64), "{line}");
    }
    assert!(
        line["micros"].as_u64().is_some_and(|micros| micros > 0),
        "{line}"
    );
    assert_eq!(line["time"].as_str().map(str::len), Some(27), "{line}");
    // By whatever the pod is called, and in words.
    let uid = line["pod"]["uid"].as_str().unwrap();
    let id = line["pod"]["id"].as_str().unwrap();
    for pod in [uid, id, "default/test"] {
        let words = audited.audit(&[
            "--pod",
            pod,
            "--plugin=strict",
            "--event=container-creating",
        ]);
        let expected = "default/test app container-creating: strict denied: it's not";
        assert!(words.contains(expected), "{words}");
    }
    let summary = audited.audit(&["--summary", "--answer=denied", "--since=1h"]);
    assert!(summary.contains("strict"), "{summary}");
    assert_eq!(audited.lines(&["--pod", "other"]), Vec::<Value>::new());
    assert_eq!(audited.lines(&["--until", "1h"]), Vec::<Value>::new());
}

#[test]
fn an_exec_is_on_record_with_its_words_and_its_user() {
    let gate = plugin(
        "gate",
        "exec-gate",
        "[[plugin.settings.allow]]\ncommands = [['echo', '...']]",
    );
    let audited = Audited::new("", &gate);
    let id = audited.detach();
    let exec = |words: &[&str]| {
        let args = [&["exec", "-c", "app", &id, "--"], words].concat();
        audited.node.output(&args)
    };
    assert!(exec(&["echo", "a b"]).status.success());
    let long = "x".repeat(20_000);
    assert!(!exec(&["sh", "-c", "true\u{7f}", &long]).status.success());
    audited.remove(&id);
    let lines = audited.lines(&["--pod", &id, "--event", "exec-starting"]);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(lines[0]["exec"]["argv"], serde_json::json!(["echo", "a b"]));
    assert_eq!(lines[0]["answer"], "admitted");
    for line in &lines {
        assert_eq!(line["exec"]["user"], "7:8", "{line}");
    }
    let argv = lines[1]["exec"]["argv"].as_array().unwrap();
    assert_eq!(argv[..3], ["sh", "-c", "true\u{fffd}"]);
    let rest = argv[3].as_str().unwrap();
    assert!(rest.ends_with("xx…") && rest.len() < 4096, "{}", rest.len());
    let words = audited.audit(&["--answer=denied"]);
    assert!(words.contains("[user 7:8: sh -c true"), "{words}");
}

#[test]
fn what_the_handler_refuses_is_on_record_too() {
    let says = |name, scope| {
        let settings =
            format!("[plugin.settings.scope-container]\nscopes = {{ network = '{scope}' }}");
        plugin(name, "says", &settings)
    };
    let conflict = format!("{}{}", says("one", "pod"), says("other", "container"));
    let above = format!("[ceiling]\nnetwork = 'container'\n{}", says("one", "pod"));
    for (plugins, reason) in [
        (conflict, "policies `one` and `other` conflict"),
        (above, "above the ceiling"),
        // Nobody is asked, and it is refused all the same.
        (
            "[ceiling]\npid = 'container'\nrequests = ['pid']".to_owned(),
            "above the ceiling",
        ),
    ] {
        let audited = Audited::new("", &plugins);
        let spec = if plugins.contains("requests") {
            format!("  hostPID: true\n{SLEEPS}")
        } else {
            SLEEPS.to_owned()
        };
        assert!(!audited.run(&spec, &[]).status.success(), "{reason}");
        let lines = audited.lines(&["--answer=denied"]);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_eq!(lines[0]["plugin"], Value::Null);
        let said = lines[0]["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
        let words = audited.audit(&["--answer=denied"]);
        assert!(words.contains("the handler denied"), "{words}");
        audited.node.assert_nothing_left();
    }
}

#[test]
fn a_record_that_cannot_be_written_refuses_where_the_handler_says_so() {
    let says = plugin("says", "says", "");
    for (audit, is_refused) in [
        ("", false),
        ("on-error = 'ignore'", false),
        ("on-error = 'deny'", true),
    ] {
        let audited = Audited::new(audit, &says);
        // Not a directory: for root nothing is read-only.
        fs::write(&audited.dir, "in the way").unwrap();
        let output = audited.run(SLEEPS, &["--detach"]);
        let said = stderr(&output);
        assert_eq!(output.status.success(), !is_refused, "{audit}: {said}");
        if is_refused {
            for words in [
                "cannot be recorded",
                "on-error = \"deny\"",
                "Not a directory",
            ] {
                assert!(said.contains(words), "no `{words}` in {said}");
            }
            audited.node.assert_nothing_left();
            continue;
        }
        // Once it can be written again, it says what is missing.
        fs::remove_file(&audited.dir).unwrap();
        let id = stdout(&output).trim().to_owned();
        let ran = audited
            .node
            .output(&["exec", "-c", "app", &id, "--", "true"]);
        assert!(ran.status.success(), "{}", stderr(&ran));
        audited.remove(&id);
        let lines = audited.lines(&[]);
        assert!(
            lines[0]["lost"].as_u64().is_some_and(|lost| lost >= 3),
            "{lines:#?}"
        );
        assert_eq!(lines[0]["event"], "exec-starting");
    }
}

#[test]
fn an_exec_is_refused_while_it_cannot_be_recorded() {
    let says = plugin("says", "says", "");
    let audited = Audited::new("on-error = 'deny'", &says);
    let id = audited.detach();
    let kept = audited.dir.with_extension("kept");
    fs::rename(&audited.dir, &kept).unwrap();
    fs::write(&audited.dir, "in the way").unwrap();
    let exec = || {
        audited
            .node
            .output(&["exec", "-c", "app", &id, "--", "true"])
    };
    let refused = exec();
    assert!(!refused.status.success());
    let said = stderr(&refused);
    assert!(said.contains("cannot be recorded"), "{said}");
    fs::remove_file(&audited.dir).unwrap();
    fs::rename(&kept, &audited.dir).unwrap();
    assert!(exec().status.success());
    // What is over cannot be refused: the pod ends as it would.
    fs::rename(&audited.dir, &kept).unwrap();
    fs::write(&audited.dir, "in the way").unwrap();
    audited.remove(&id);
    fs::remove_file(&audited.dir).unwrap();
    fs::rename(&kept, &audited.dir).unwrap();
    let execs = audited.lines(&["--event=exec-starting"]);
    assert_eq!(execs.len(), 1);
    // The exec that was refused, and what was told just then of the container's start.
    assert!(execs[0]["lost"].as_u64() >= Some(1), "{execs:?}");
}

#[test]
fn who_follows_sees_what_comes_and_what_is_in_new_files() {
    let says = plugin("says", "says", "");
    let audited = Audited::new("max-size = '64KiB'\nkeep = 3", &says);
    let dir = audited.dir.to_str().unwrap();
    let mut follow = audited
        .node
        .husk(&[
            "audit",
            "--dir",
            dir,
            "--follow",
            "--json",
            "--event=exec-starting",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = BufReader::new(follow.stdout.take().unwrap()).lines();
    let id = audited.detach();
    let word = "x".repeat(4000);
    for count in 0..30 {
        let number = count.to_string();
        let words = ["exec", "-c", "app", &id, "--", "true", &number, &word];
        assert!(audited.node.output(&words).status.success());
        let line: Value = serde_json::from_str(&seen.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["exec"]["argv"][1], number, "{line}");
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(audited.dir.join("audit-00000001.jsonl").exists());
    let files = || {
        fs::read_dir(&audited.dir)
            .unwrap()
            .map(|file| file.unwrap())
    };
    assert!(files().count() <= 4);
    for file in files() {
        assert!(file.metadata().unwrap().len() <= 64 << 10);
    }
    audited.remove(&id);
    eventually("the end is told", || {
        !audited.lines(&["--event=container-exited"]).is_empty()
    });
}

#[test]
fn what_was_asked_is_asked_of_other_policies_and_becomes_a_case() {
    let gate = "[[plugin.settings.allow]]\ncommands = [['echo', '...']]";
    let audited = Audited::new("record = 'questions'", &plugin("gate", "exec-gate", gate));
    let spec = SLEEPS.replace("image:", "env: [{name: PASSWORD, value: hunter2}], image:");
    let output = audited.run(&spec, &["--detach"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let id = stdout(&output).trim().to_owned();
    let exec = |words: &[&str]| {
        let args = [&["exec", "-c", "app", &id, "--"], words].concat();
        audited.node.output(&args).status.success()
    };
    assert!(exec(&["echo", "a"]) && exec(&["echo", "a"]) && !exec(&["sh", "-c", "true"]));
    audited.remove(&id);
    let dir = audited.dir.to_str().unwrap();
    let replay = |config: &Path, args: &[&str]| {
        let config = config.to_str().unwrap();
        let all = ["policy", "replay", "--dir", dir, "--config", config];
        audited.node.output(&[&all[..], args].concat())
    };
    // The same policies answer the same.
    let same = replay(&audited.config, &[]);
    assert_eq!(
        same.status.code(),
        Some(0),
        "{}{}",
        stdout(&same),
        stderr(&same)
    );
    assert!(
        stdout(&same).contains(" of 1 pods asked again: 0 answers"),
        "{}",
        stdout(&same)
    );
    // Others do not: one exec less, one more, and a ceiling below what the pod asks for.
    let other = audited.node.scratch().join("other.toml");
    let shell = plugin("gate", "exec-gate", &gate.replace("'echo'", "'sh'"));
    let ceiling = "[ceiling]\nuts = 'container'\nrequests = ['uts']\n";
    fs::write(&other, format!("{ceiling}{shell}")).unwrap();
    let changed = replay(&other, &["--json", "--since=1h"]);
    assert_eq!(changed.status.code(), Some(3), "{}", stderr(&changed));
    let report: Value = serde_json::from_str(&stdout(&changed)).unwrap();
    let changes = report["changes"].as_array().unwrap();
    let of = |question: &str, before: &str, after: &str| {
        let mut changes = changes.iter();
        changes.any(|change| {
            change["question"] == question
                && change["before"].as_str().unwrap().starts_with(before)
                && change["after"].as_str().unwrap().starts_with(after)
                && change["pods"][0] == "default/test"
        })
    };
    let fine = "nothing against it";
    assert!(
        of("exec-starting", fine, "refused: policy `gate`"),
        "{report:#}"
    );
    assert!(
        of("exec-starting", "refused: policy `gate`", fine),
        "{report:#}"
    );
    assert!(of("scope-container", fine, "refused: "), "{report:#}");
    let words = stdout(&replay(&other, &[]));
    assert!(
        words.contains("exec-starting of app: default/test"),
        "{words}"
    );
    let none = replay(&other, &["--since=2999-01-01"]);
    assert!(
        stderr(&none).contains("no question to ask again"),
        "{}",
        stderr(&none)
    );
    // Each question is there once, and without the secret.
    let asked = audited.lines(&["--event=exec-starting"]);
    assert_eq!(asked.len(), 3);
    assert_eq!(report["asked"], report["without_env"]);
    let denied = asked
        .iter()
        .find(|line| line["answer"] == "denied")
        .unwrap();
    let input = denied["input"].as_str().unwrap();
    let case = audited
        .node
        .stdout(&["policy", "case", "--dir", dir, &input[..12]]);
    assert!(
        case.contains("PASSWORD=") && !case.contains("hunter2"),
        "{case}"
    );
    let cases = audited.node.scratch().join("cases");
    fs::create_dir(&cases).unwrap();
    fs::write(cases.join("the-pod.toml"), &case).unwrap();
    let component = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/target/components/exec-gate.wasm");
    let test = |config: &Path| {
        let cases = cases.to_str().unwrap();
        let component = component.to_str().unwrap();
        let config = config.to_str().unwrap();
        let args = ["policy", "test", "--config", config, component, cases];
        audited.node.output(&args)
    };
    let passed = test(&audited.config);
    assert!(passed.status.success(), "{case}{}", stdout(&passed));
    assert!(
        !test(&other).status.success(),
        "the other policy lets it pass"
    );
}

#[test]
fn a_place_without_a_record_is_said() {
    let node = Node::new(Shim::Husk);
    let dir = node.scratch().join("none");
    let output = node.output(&["audit", "--dir", dir.to_str().unwrap()]);
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(said.contains("there is no audit record in"), "{said}");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("audit.jsonl"), "{\"time\":\n").unwrap();
    let output = node.output(&["audit", "--dir", dir.to_str().unwrap()]);
    assert!(output.status.success());
    let said = stderr(&output);
    assert!(said.contains("1 lines cannot be read"), "{said}");
}
