//! Why a plugin failed is in the refusal: what it said, and where it was.
use husk_plugin_host::plugin::Failure;
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Chain, Host, Level, Plugin};
use husk_scope::config::OnError;

use crate::common;

/// Why a policy with these further items and this body fails.
fn why(prelude: &str, body: &str) -> String {
    let host = Host::new().unwrap();
    let component = common::policy(prelude, body);
    let plugin = common::load(&host, &component, common::settings("bad")).unwrap();
    let container = common::container();
    let reply = plugin.ask(&common::pod(), &Question::ScopeContainer(&container));
    match reply.answer {
        Err(failure @ Failure::Trapped(_)) => failure.to_string(),
        other => panic!("expected a trap, got {other:?}"),
    }
}

/// Logs the twelve bytes at 256 at this level.
fn logging(level: u8) -> (String, String) {
    let prelude = r#"(import "husk:plugin/host@0.1.1" "log" (func $log (param i32 i32 i32)))
        (data (i32.const 256) "out of\0abeef")"#;
    let body =
        format!("(call $log (i32.const {level}) (i32.const 256) (i32.const 11)) (unreachable)");
    (prelude.to_owned(), body)
}

#[test]
fn the_last_error_it_logged_is_told_and_escaped() {
    let (prelude, body) = logging(3);
    let told = why(&prelude, &body);
    assert!(told.contains("out of\\nbeef"), "{told}");
    assert!(told.contains("unreachable"), "{told}");
    // What is no error is no reason.
    let (prelude, body) = logging(1);
    let told = why(&prelude, &body);
    assert!(!told.contains("out of"), "{told}");
}

#[test]
fn the_functions_it_was_in_are_named() {
    let prelude = "(func $divides (result i32) (i32.div_u (i32.const 1) (i32.const 0)))
        (func $asks (result i32) (call $divides))";
    let told = why(prelude, "(call $asks)");
    assert!(told.contains("divide by zero"), "{told}");
    assert!(told.contains("in divides, called by asks"), "{told}");
}

#[test]
fn a_failure_that_is_ignored_leaves_a_line_in_the_log() {
    let host = Host::new().unwrap();
    let component = common::policy("", "(unreachable)");
    let mut settings = common::settings("bad");
    settings.config.on_error = OnError::Ignore;
    let chain = Chain::new(vec![common::load(&host, &component, settings).unwrap()]);
    let outcome = chain.scopes(&common::pod(), Some(&common::container()));
    assert_eq!(outcome.result, Ok(Vec::new()));
    let [(plugin, Level::Warn, line)] = outcome.log.as_slice() else {
        panic!("one line: {:?}", outcome.log);
    };
    assert_eq!(plugin, "bad");
    assert!(
        line.starts_with("scope-container is ignored: it failed"),
        "{line}"
    );
}

#[test]
fn settings_of_a_plugin_that_takes_none_are_an_error_with_their_place() {
    let host = Host::new().unwrap();
    let mut settings = common::settings_with("deaf", r#"{"a": 1}"#);
    settings.config.settings_at = Some("husk.toml:7".to_owned());
    let error = common::load(&host, &common::assigns(0, 0), settings.clone()).unwrap_err();
    let words = "husk.toml:7: plugin `deaf` takes no settings";
    assert!(error.to_string().contains(words), "{error}");
    // One that asks for them may have them, without a function that checks them.
    let prelude = r#"(import "husk:plugin/host@0.1.1" "settings" (func $f (param i32)))"#;
    let asks = common::policy(prelude, "(call $f (i32.const 512)) (i32.const 0)");
    common::load(&host, &asks, settings).unwrap();
}

#[test]
fn settings_that_a_plugin_refuses_are_told_with_their_place() {
    let host = Host::new().unwrap();
    let (code, digest) = common::built(&host, "exec-gate");
    let mut settings = common::settings_with("gate", r#"{"alow": []}"#);
    settings.config.settings_at = Some("husk.toml:7".to_owned());
    let chain = Chain::new(vec![Plugin::new(&host, &code, digest, settings).unwrap()]);
    let refused = chain.validate_settings(&common::pod()).result.unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("husk.toml:7") && refused.contains("alow"),
        "{refused}"
    );
}

#[test]
fn a_panic_in_rust_is_told_with_its_place() {
    let host = Host::new().unwrap();
    let (code, digest) = common::built(&host, "says");
    let settings = common::settings_with("says", r#"{"scope-container": {"fail": "trap"}}"#);
    let plugin = Plugin::new(&host, &code, digest, settings).unwrap();
    let container = common::container();
    let reply = plugin.ask(&common::pod(), &Question::ScopeContainer(&container));
    let failure = reply.answer.unwrap_err().to_string();
    assert!(failure.contains("panicked at"), "{failure}");
    assert!(failure.contains("src/lib.rs"), "{failure}");
}
