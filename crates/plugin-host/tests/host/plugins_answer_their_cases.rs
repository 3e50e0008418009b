//! The plugins of this repository, in every language, answer the cases in their folders.
//!
//! `plugins/build --all` builds them.
use husk_plugin_host::case::Case;
use husk_plugin_host::plugin::{Answer, Failure};
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Host, Plugin};

use crate::common;

fn load(host: &Host, name: &str, settings: &str) -> Plugin {
    let (code, digest) = common::built(host, name);
    let plugin = Plugin::new(host, &code, digest, common::settings_with(name, settings));
    plugin.unwrap_or_else(|error| panic!("{error}"))
}

fn cases(dir: &str) -> Vec<Case> {
    Case::read_all(&common::plugins().join(dir).join("cases")).unwrap()
}

fn answers(name: &str, cases: &[Case]) {
    let host = Host::new().unwrap();
    let (code, digest) = common::built(&host, name);
    let problem = |case: &Case| {
        let settings = common::settings_with(name, &case.settings());
        let plugin = Plugin::new(&host, &code, digest.clone(), settings).unwrap();
        let mismatch = case.ask(&plugin).unwrap().mismatch?;
        Some(format!("{}: {mismatch}", case.name()))
    };
    let problems: Vec<String> = cases.iter().filter_map(problem).collect();
    assert!(problems.is_empty(), "{name}:\n{}", problems.join("\n"));
}

fn answers_its_cases(plugin: &str) {
    answers(plugin, &cases(plugin));
}

#[test]
fn kubernetes() {
    answers_its_cases("kubernetes");
}

#[test]
fn isolate() {
    answers_its_cases("isolate");
}

#[test]
fn no_host() {
    answers_its_cases("no-host");
}

#[test]
fn baseline_oci() {
    answers_its_cases("baseline-oci");
}

#[test]
fn restricted_oci() {
    answers_its_cases("restricted-oci");
}

#[test]
fn rules() {
    answers_its_cases("rules");
}

#[test]
fn exec_gate() {
    answers_its_cases("exec-gate");
}

#[test]
fn pid_group() {
    answers_its_cases("pid-group");
}

#[test]
fn says() {
    answers_its_cases("says");
}

/// The cases that every language answers: those of `no-host` that need no settings.
fn without_settings() -> Vec<Case> {
    let mut cases = cases("no-host");
    cases.retain(|case| !case.has_settings());
    cases
}

#[test]
fn the_same_policy_in_c() {
    answers("c-no-host", &without_settings());
}

#[test]
fn the_same_policy_in_javascript() {
    answers("js-no-host", &without_settings());
}

#[test]
fn the_same_policy_in_python() {
    answers("py-no-host", &without_settings());
}

#[test]
fn javascript_with_wasi_answers_the_same() {
    answers("wasi/js-no-host", &without_settings());
}

#[test]
fn python_with_wasi_answers_the_same() {
    answers("wasi/py-no-host", &without_settings());
}

#[test]
fn wasi_has_no_clock_no_chance_no_environment_and_no_files() {
    let host = Host::new().unwrap();
    let plugin = load(&host, "wasi/c", "{}");
    for _ in 0..2 {
        let reply = plugin.ask(&common::pod(), &Question::ScopeSandbox);
        let expected = "second 0, random 00000000, PATH unset, file closed".to_owned();
        assert_eq!(reply.answer, Err(Failure::Denied(expected)));
    }
}

#[test]
fn what_a_plugin_prints_is_lost() {
    let host = Host::new().unwrap();
    let container = common::container();
    let reply =
        load(&host, "wasi/c", "{}").ask(&common::pod(), &Question::ScopeContainer(&container));
    assert_eq!(reply.answer, Ok(Answer::Scopes(vec![])));
    assert!(reply.log.is_empty());
}

#[test]
fn a_container_without_seccomp_is_not_restricted() {
    let host = Host::new().unwrap();
    let container = common::container();
    let reply = load(&host, "restricted-oci", "{}")
        .ask(&common::pod(), &Question::ContainerCreating(&container));
    let Err(Failure::Denied(reason)) = reply.answer else {
        panic!("{:?}", reply.answer);
    };
    assert!(reason.contains("it has no seccomp profile"), "{reason}");
}

/// The templates of a plugin of one's own, one for each language.
fn template_answers(language: &str) {
    let name = format!("templates/{language}");
    answers(&name, &cases(&name));
}

#[test]
fn the_template_in_rust() {
    template_answers("rust");
}

#[test]
fn the_template_in_c() {
    template_answers("c");
}

#[test]
fn the_template_in_javascript() {
    template_answers("js");
}

#[test]
fn the_template_in_python() {
    template_answers("py");
}
