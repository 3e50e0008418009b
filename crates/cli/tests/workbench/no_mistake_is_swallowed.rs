//! Mistakes of an author that would make a policy look right: each is an error, and says which.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::{component, husk, succeeded, target};

/// Runs `husk policy` in this folder.
fn policy(dir: &Path, words: &[&str]) -> Output {
    let mut command = husk();
    command.arg("policy").args(words).current_dir(dir);
    command.env("CARGO_TARGET_DIR", target());
    command.output().unwrap()
}

#[track_caller]
fn failed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    said
}

/// Asks a component the one case, as `husk policy test` with these further words.
fn test(name: &str, case: &str, words: &[&str]) -> Output {
    test_for("[ceiling]\nnetwork = 'pod'", name, case, words)
}

/// The same, for a handler with this ceiling.
fn test_for(ceiling: &str, name: &str, case: &str, words: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cases")).unwrap();
    fs::write(dir.path().join("cases/the-one.toml"), case).unwrap();
    let config = format!(
        "{ceiling}\n[[plugin]]\nname = 'says'\npath = '{}'\ndeadline = '200ms'\n",
        component("says").display()
    );
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let component = component(name);
    let first = ["test", component.to_str().unwrap()];
    policy(dir.path(), &[&first, words].concat())
}

#[test]
fn a_key_of_a_case_that_means_nothing() {
    for (fact, key) in [
        ("process.argz = ['sh']", "process.argz"),
        (
            "container.spec.process.usr.uid = 1",
            "container.spec.process.usr",
        ),
        (
            "container.spec.mounts = [{ destination = '/a', typ = 'tmpfs' }]",
            "container.spec.mounts[].typ",
        ),
        ("update.memroy.limit = 5", "update.memroy"),
    ] {
        let case = format!("question = 'exec-starting'\n{fact}\nexpect = 'admitted'\n");
        let said = failed(&test("says", &case, &[]));
        assert!(said.contains(&format!("`{key}` is no key")), "{said}");
    }
    let case = "question = 'exec-starting'\nprocess.args = ['sh']\n\
                container.spec.process.user.uid = 1\nexpect = 'admitted'\n";
    succeeded(&test("says", case, &[]));
}

#[test]
fn a_scope_that_no_handler_takes() {
    let case = |scope: &str| {
        format!(
            "question = 'scope-container'\nsettings.scope-container.scopes = {{ {scope} }}\n\
             expect.scopes = {{ {scope} }}\n"
        )
    };
    let said = failed(&test("says", &case("mount = 'pod'"), &[]));
    assert!(said.contains("mount"), "{said}");
    // Above the ceiling of one handler, and not of another.
    let node = case("network = 'node'");
    succeeded(&test("says", &node, &[]));
    let said = failed(&test("says", &node, &["--config", "config.toml"]));
    assert!(said.contains("ceiling"), "{said}");
    let refused = node.replace(
        "expect.scopes = { network = 'node' }",
        "expect.denied = 'ceiling'",
    );
    succeeded(&test("says", &refused, &["--config", "config.toml"]));
}

#[test]
fn a_link_that_no_handler_takes_and_one_that_did_not_come() {
    let case = |links: &str, expected: &str| {
        format!(
            "question = 'link-container'\nsettings.link-container.links = [{links}]\n\
             expect.links = [{expected}]\n"
        )
    };
    let link = "{to = 'proxy', port = 8080}";
    let other = "{from = 'pod', port = 9000, local = 80, protocol = 'udp'}";
    succeeded(&test(
        "says",
        &case(&format!("{link}, {other}"), &format!("{other}, {link}")),
        &[],
    ));
    let said = failed(&test("says", &case(link, other), &[]));
    for line in [
        "- from udp port 9000 of the pod (local 80)",
        "+ to tcp port 8080 of container proxy",
    ] {
        assert!(said.contains(line), "no `{line}` in {said}");
    }
    let said = failed(&test("says", &case("", "{port = 1}"), &[]));
    assert!(said.contains("one of `to` and `from`"), "{said}");
    let closed = "[ceiling]\nlinks = 'none'";
    let said = failed(&test_for(
        closed,
        "says",
        &case(link, link),
        &["--config", "config.toml"],
    ));
    assert!(said.contains("links = \"none\""), "{said}");
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let case =
        "question = 'scope-sandbox'\nsettings.scope-sandbox.fail = 'loop'\nexpect = 'admitted'\n";
    let begun = Instant::now();
    let said = failed(&test("says", case, &["--config", "config.toml"]));
    assert!(said.contains("no answer within 200 ms"), "{said}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_case_that_fails_shows_what_was_asked_said_and_expected() {
    let case = "question = 'scope-container'\ncontainer.name = 'web'\n\
                settings.scope-container.scopes = { network = 'container', ipc = 'pod' }\n\
                expect.scopes = { network = 'container', pid = 'pod' }\n";
    let said = failed(&test("says", case, &[]));
    for line in [
        "FAILED  the one",
        "        asked: scope-container of container web, args [\"sh\"], requested network=",
        "        - pid POD",
        "        + pid as requested",
        "        - ipc as requested",
        "        + ipc POD",
    ] {
        let line = line.to_ascii_lowercase();
        let said = said.to_ascii_lowercase();
        assert!(
            said.lines().any(|found| found.starts_with(&line)),
            "no `{line}` in {said}"
        );
    }
    assert!(!said.contains("network container"), "{said}");
}

#[test]
fn a_case_that_fails_is_not_measured() {
    let dir = tempfile::tempdir().unwrap();
    let case =
        "question = 'scope-sandbox'\nsettings.scope-sandbox.deny = 'no'\nexpect = 'admitted'\n";
    fs::write(dir.path().join("case.toml"), case).unwrap();
    let component = component("says");
    let output = policy(
        dir.path(),
        &["bench", component.to_str().unwrap(), "case.toml"],
    );
    let said = failed(&output);
    assert!(said.contains("fails, so its cost means nothing"), "{said}");
}

#[test]
fn a_build_that_fails_leaves_no_older_component() {
    let dir = tempfile::tempdir().unwrap();
    succeeded(&policy(dir.path(), &["new", "--lang", "c", "mine"]));
    let project = dir.path().join("mine");
    fs::write(project.join("mine.wasm"), "of yesterday").unwrap();
    fs::write(project.join("policy_impl.c"), "this is no C").unwrap();
    failed(&policy(&project, &["build"]));
    assert!(!project.join("mine.wasm").exists());
}

#[test]
fn an_export_that_nobody_would_ask() {
    let dir = tempfile::tempdir().unwrap();
    succeeded(&policy(dir.path(), &["new", "--lang", "js", "mine"]));
    let project = dir.path().join("mine");
    let source = fs::read_to_string(project.join("policy.js")).unwrap();
    for (more, words) in [
        (
            "export const lifecycle = {};",
            "the world `policy` does not export",
        ),
        (
            "export const linking = { linkContainer: () => [] };",
            "build with `--world policy-with-links`",
        ),
        ("export const scopping = {};", "no interface of husk:plugin"),
    ] {
        fs::write(project.join("policy.js"), format!("{source}\n{more}\n")).unwrap();
        let said = failed(&policy(&project, &["build"]));
        assert!(said.contains(words), "{said}");
        assert!(!project.join("mine.wasm").exists());
    }
}

#[test]
fn a_question_that_a_component_does_not_answer_is_listed() {
    let component = component("isolate");
    let output = policy(Path::new("/"), &["check", component.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("answers validate-settings, scope-sandbox, scope-container, link-container"),
        "{said}"
    );
    let words = "no answer to: sandbox-starting";
    assert!(
        said.contains(words) && said.contains("exec-starting"),
        "{said}"
    );
}

#[test]
fn a_change_is_tested_again() {
    let dir = tempfile::tempdir().unwrap();
    let case = |expected: &str| {
        let case = format!("question = 'scope-sandbox'\nexpect = '{expected}'\n");
        fs::write(dir.path().join("case.toml"), case).unwrap();
    };
    case("admitted");
    let mut watching = husk()
        .args(["policy", "test", "--watch"])
        .args([component("says").as_path(), dir.path()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut until = |words: &str| {
        let found = lines.find(|line| line.as_ref().unwrap().contains(words));
        found.unwrap().unwrap()
    };
    until("1 passed, 0 failed");
    until("waiting for a change");
    let denied = "question = 'scope-sandbox'\nexpect.denied = 'never'\n";
    fs::write(dir.path().join("case.toml"), denied).unwrap();
    until("0 passed, 1 failed");
    watching.kill().unwrap();
    watching.wait().unwrap();
}
