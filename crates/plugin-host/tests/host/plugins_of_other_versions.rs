//! A plugin of another version of the WIT package runs where the two fit, and is refused by name where
//! they do not.
use std::fs;

use husk_plugin_host::plugin::Answer;
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Host, Plugin, PluginError};

use crate::common;

/// A policy of `version` that asks the pod's id, and `more` if it is a function there, and leaves all
/// as requested.
fn policy(host: &Host, version: &str, more: Option<&str>) -> Result<Plugin, PluginError> {
    let dir = tempfile::tempdir().unwrap();
    let today = fs::read_to_string(common::wit().join("plugin.wit")).unwrap();
    let mut text = today.replace(
        "package husk:plugin@0.1.0",
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
    for version in ["0.1.0", "0.1.1"] {
        let plugin = policy(&host, version, None).unwrap();
        let reply = plugin.ask(&common::pod(), &Question::ScopeSandbox);
        assert_eq!(reply.answer, Ok(Answer::Scopes(vec![])), "{version}");
    }
}

#[test]
fn a_function_that_is_not_there_is_named() {
    let host = Host::new().unwrap();
    let error = policy(&host, "0.1.1", Some("priority"))
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
