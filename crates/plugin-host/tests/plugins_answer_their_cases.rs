//! The plugins of this repository, in every language, answer the cases in their folders.
//!
//! The compiler is slow in a test build: QuickJS takes half a minute of CPU, CPython five. So what it made
//! is kept beside the components. Or make it before, in seconds:
//!
//! ```sh
//! plugins/build --all && cd plugins/target/components
//! cargo run --profile quick -p husk-plugin-measure --features compile --bin compile -- \
//!     compiled *.wasm wasi/*.wasm templates/*.wasm
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::{Path, PathBuf};

use common::case::{self, Case};
use husk_plugin_host::artifact::{self, Cache};
use husk_plugin_host::plugin::{Answer, Failure};
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Chain, Host, Plugin};

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins")
}

/// Where the built components are.
fn components() -> PathBuf {
    std::env::var_os("HUSK_PLUGINS")
        .map_or_else(|| plugins().join("target/components"), PathBuf::from)
}

/// A component of `plugins/build`. Compiled code is kept beside it: Python's takes minutes.
fn load(host: &Host, name: &str, settings: Option<&serde_json::Value>) -> Plugin {
    let path = components().join(name).with_extension("wasm");
    let (bytes, digest) = artifact::read(&path, None).unwrap_or_else(|error| {
        panic!(
            "{error}; build it with plugins/build (C, JavaScript and Python: plugins/build --all)"
        )
    });
    let cache = Cache::new(components().join("compiled"));
    let lock = cache.lock(&digest).unwrap();
    let code = cache.load(host, &digest).unwrap().unwrap_or_else(|| {
        cache
            .store(&digest, &artifact::compile(&path, &bytes).unwrap())
            .unwrap();
        cache
            .load(host, &digest)
            .unwrap()
            .expect("what was just stored")
    });
    drop(lock);
    let json = settings.map_or_else(|| "{}".to_owned(), ToString::to_string);
    let plugin = Plugin::new(host, &code, digest, common::settings_with(name, &json));
    plugin.unwrap_or_else(|error| panic!("{error}"))
}

/// Asks a case twice; says what is wrong.
fn problem(host: &Host, plugin: &str, case: &Case) -> Option<String> {
    let ask = || {
        case.ask(&Chain::new(vec![load(
            host,
            plugin,
            case.settings.as_ref(),
        )]))
    };
    let (first, second) = (ask(), ask());
    if (&first.input, &first.answer) != (&second.input, &second.answer) {
        return Some(format!("asked twice: {first:?}, then {second:?}"));
    }
    case.mismatch(&first)
}

fn answers(plugin: &str, cases: &[(String, Case)]) {
    let host = Host::new().unwrap();
    let problems: Vec<String> = cases
        .iter()
        .filter_map(|(file, case)| Some(format!("{file}: {}", problem(&host, plugin, case)?)))
        .collect();
    assert!(problems.is_empty(), "{plugin}:\n{}", problems.join("\n"));
}

fn answers_its_cases(plugin: &str) {
    answers(plugin, &case::read(&plugins().join(plugin).join("cases")));
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
fn exec_gate() {
    answers_its_cases("exec-gate");
}

#[test]
fn pid_group() {
    answers_its_cases("pid-group");
}

/// The cases that every language answers: those of `no-host` that need no settings.
fn without_settings() -> Vec<(String, Case)> {
    let mut cases = case::read(&plugins().join("no-host/cases"));
    cases.retain(|(_, case)| case.settings.is_none());
    cases
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn the_same_policy_in_c() {
    answers("c-no-host", &without_settings());
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn the_same_policy_in_javascript() {
    answers("js-no-host", &without_settings());
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn the_same_policy_in_python() {
    answers("py-no-host", &without_settings());
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn javascript_with_wasi_answers_the_same() {
    answers("wasi/js-no-host", &without_settings());
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn python_with_wasi_answers_the_same() {
    answers("wasi/py-no-host", &without_settings());
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn wasi_has_no_clock_no_chance_no_environment_and_no_files() {
    let host = Host::new().unwrap();
    let plugin = load(&host, "wasi/c", None);
    for _ in 0..2 {
        let reply = plugin.ask(&common::pod(), &Question::ScopeSandbox);
        let expected = "second 0, random 00000000, PATH unset, file closed".to_owned();
        assert_eq!(reply.answer, Err(Failure::Denied(expected)));
    }
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn what_a_plugin_prints_is_lost() {
    let host = Host::new().unwrap();
    let container = common::container();
    let reply =
        load(&host, "wasi/c", None).ask(&common::pod(), &Question::ScopeContainer(&container));
    assert_eq!(reply.answer, Ok(Answer::Scopes(vec![])));
    assert!(reply.log.is_empty());
}

#[test]
fn a_container_without_seccomp_is_not_restricted() {
    let host = Host::new().unwrap();
    let container = common::container();
    let reply = load(&host, "restricted-oci", None)
        .ask(&common::pod(), &Question::ContainerCreating(&container));
    let Err(Failure::Denied(reason)) = reply.answer else {
        panic!("{:?}", reply.answer);
    };
    assert!(reason.contains("it has no seccomp profile"), "{reason}");
}

/// The templates of a plugin of one's own, one for each language.
fn template_answers(language: &str) {
    let cases = case::read(&plugins().join("templates").join(language).join("cases"));
    answers(&format!("templates/{language}"), &cases);
}

#[test]
fn the_template_in_rust() {
    template_answers("rust");
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn the_template_in_c() {
    template_answers("c");
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn the_template_in_javascript() {
    template_answers("js");
}

#[test]
#[ignore = "needs the tools of other languages: plugins/build --all, then --include-ignored"]
fn the_template_in_python() {
    template_answers("py");
}
