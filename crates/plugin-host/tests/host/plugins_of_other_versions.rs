//! A plugin of another version of the WIT package runs where the two fit, and is refused by name where
//! they do not.
use std::fs;

use husk_plugin_host::plugin::Answer;
use husk_plugin_host::subject::{Exit, Question};
use husk_plugin_host::{Chain, Host, Plugin, PluginError};
use oci_spec::runtime::{LinuxResources, Process};

use crate::common;

/// A policy of `version` that asks the pod's id, and `more` if it is a function there, and leaves all
/// as requested.
fn policy(host: &Host, version: &str, more: Option<&str>) -> Result<Plugin, PluginError> {
    let dir = tempfile::tempdir().unwrap();
    let frozen = common::frozen(version);
    let wit = if frozen.is_dir() {
        frozen
    } else {
        common::wit()
    };
    let mut text = fs::read_to_string(wit.join("plugin.wit")).unwrap();
    text = text.replace(
        "package husk:plugin@0.1.1",
        &format!("package husk:plugin@{version}"),
    );
    if let Some(more) = more {
        let interface = "interface pod {";
        text = text.replace(
            interface,
            &format!("{interface} @since(version = {version}) {more}: func();"),
        );
    }
    fs::write(dir.path().join("plugin.wit"), text).unwrap();
    let name = more.unwrap_or("id");
    let parameters = if more.is_some() { "" } else { "(param i32)" };
    let call = if more.is_some() {
        "(call $f)"
    } else {
        "(call $f (i32.const 256))"
    };
    let module = format!(
        r#"(module
            (import "husk:plugin/pod@{version}" "{name}" (func $f {parameters}))
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "husk:plugin/scoping@{version}#scope-sandbox") (result i32) {call} (i32.const 0))
            (func (export "husk:plugin/scoping@{version}#scope-container") (result i32) (i32.const 0)))"#
    );
    let component = common::component_of(dir.path(), "policy", &module);
    common::load(host, &component, common::settings("other"))
}

#[test]
fn a_later_patch_runs_as_long_as_it_asks_nothing_new() {
    let host = Host::new().unwrap();
    for version in ["0.1.0", "0.1.1", "0.1.2"] {
        let plugin = policy(&host, version, None).unwrap();
        let reply = plugin.ask(&common::pod(), &Question::ScopeSandbox);
        assert_eq!(reply.answer, Ok(Answer::Scopes(vec![])), "{version}");
    }
}

/// Everything that 0.1.0 had, built for it: each function admits, and says that it was asked.
fn all_of_0_1_0() -> Vec<u8> {
    let functions = |interface: &str, names: &[&str], answer: &str| -> String {
        let function = |name: &&str| {
            format!("(func (export \"husk:plugin/{interface}@0.1.0#{name}\") {answer})")
        };
        names.iter().map(function).collect()
    };
    let admits = "(result i32) (call $asked) (i32.const 0)";
    let deciding = [
        "sandbox-starting",
        "container-creating",
        "exec-starting",
        "resources-updating",
    ];
    let told = [
        "sandbox-started",
        "sandbox-stopped",
        "container-started",
        "container-exited",
        "container-oom",
    ];
    let module = format!(
        r#"(module
            (import "husk:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 512) "asked")
            (func $asked (call $log (i32.const 1) (i32.const 512) (i32.const 5)))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "husk:plugin/configurable@0.1.0#validate-settings")
                (param i32 i32) (result i32) (call $asked) (i32.const 0))
            {} {} {})"#,
        functions("scoping", &["scope-sandbox", "scope-container"], admits),
        functions("lifecycle", &deciding, admits),
        functions("lifecycle", &told, "(call $asked)"),
    );
    common::component_of(&common::frozen("0.1.0"), "plugin", &module)
}

#[test]
fn what_was_built_for_the_first_version_is_asked_all_that_it_was_and_nothing_more() {
    let host = Host::new().unwrap();
    let plugin = common::load(&host, &all_of_0_1_0(), common::settings("old")).unwrap();
    let (pod, container) = (common::pod(), common::container());
    let (process, resources) = (Process::default(), LinuxResources::default());
    let exit = Exit {
        code: 0,
        oom_killed: false,
    };
    for question in [
        Question::ValidateSettings,
        Question::ScopeSandbox,
        Question::ScopeContainer(&container),
        Question::SandboxStarting,
        Question::SandboxStarted,
        Question::SandboxStopped,
        Question::ContainerCreating(&container),
        Question::ContainerStarted(&container),
        Question::ContainerExited(&container, exit),
        Question::ContainerOom(&container),
        Question::ExecStarting(&container, &process),
        Question::ResourcesUpdating(&container, &resources),
    ] {
        let name = question.name();
        let reply = plugin.ask(&pod, &question);
        let expected = match question {
            Question::ScopeSandbox | Question::ScopeContainer(_) => Answer::Scopes(vec![]),
            _ => Answer::Admitted,
        };
        assert_eq!(reply.answer, Ok(expected), "{name}");
        assert_eq!(reply.log.len(), 1, "{name}: {:?}", reply.log);
    }
    let reply = plugin.ask(&pod, &Question::LinkContainer(&container));
    assert_eq!(reply.answer, Ok(Answer::Silent));
    let outcome = Chain::new(vec![plugin]).links(&pod, &container);
    assert!(outcome.decisions.is_empty());
    assert_eq!(outcome.result.unwrap(), []);
}

#[test]
fn a_function_that_is_not_there_is_named() {
    let host = Host::new().unwrap();
    let error = policy(&host, "0.1.2", Some("priority"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not fit") && error.contains("priority"),
        "{error}"
    );
}

#[test]
fn a_version_that_breaks_is_refused() {
    let host = Host::new().unwrap();
    let error = policy(&host, "0.2.0", None).unwrap_err().to_string();
    let words = "built for husk:plugin@0.2.0; this husk serves 0.1.x";
    assert!(error.contains(words), "{error}");
}
