//! Whatever goes wrong in a plugin denies, within its deadline, and leaves the host as it was.
mod common;

use std::time::{Duration, Instant};

use husk_plugin_host::plugin::{Answer, Failure};
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Chain, Host};
use husk_scope::config::{Mode, OnError};

fn ask(host: &Host, component: &[u8]) -> (Result<Answer, Failure>, Duration) {
    let plugin = common::load(host, component, common::settings("bad")).unwrap();
    let started = Instant::now();
    let reply = plugin.ask(
        &common::pod(),
        &Question::ScopeContainer(&common::container()),
    );
    (reply.answer, started.elapsed())
}

fn trapped(answer: Result<Answer, Failure>) -> String {
    match answer {
        Err(Failure::Trapped(problem)) => problem,
        other => panic!("expected a trap, got {other:?}"),
    }
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let host = Host::new().unwrap();
    let (answer, took) = ask(
        &host,
        &common::policy("", "(loop $l (br $l)) (i32.const 0)"),
    );
    assert_eq!(answer, Err(Failure::TimedOut(Duration::from_millis(50))));
    assert!(took >= Duration::from_millis(45), "{took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn deep_recursion_is_a_trap() {
    let host = Host::new().unwrap();
    let prelude = "(func $f (result i32) (i32.add (call $f) (call $f)))";
    let (answer, _) = ask(&host, &common::policy(prelude, "(call $f)"));
    assert!(trapped(answer).contains("call stack exhausted"));
}

#[test]
fn a_trap_does_not_spoil_the_next_call() {
    let host = Host::new().unwrap();
    let (answer, _) = ask(&host, &common::policy("", "(unreachable)"));
    assert!(trapped(answer).contains("unreachable"));
    let (answer, _) = ask(&host, &common::assigns(0, 0));
    assert!(matches!(answer, Ok(Answer::Scopes(scopes)) if scopes.len() == 1));
}

#[test]
fn memory_is_bounded() {
    let host = Host::new().unwrap();
    let body = "(loop $l
        (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then (unreachable)))
        (br $l)) (i32.const 0)";
    let (answer, _) = ask(&host, &common::policy("", body));
    assert!(
        trapped(answer).contains("unreachable"),
        "growth beyond the limit fails"
    );
}

#[test]
fn an_answer_of_100_megabytes_is_refused() {
    let host = Host::new().unwrap();
    // A denial whose reason is as long as the memory that the plugin may have.
    let prelude = r#"(data (i32.const 0) "\01\00\00\00\00\00\02\00\00\00\80\02")"#;
    let body = "(drop (memory.grow (i32.const 800))) (i32.const 0)";
    let (answer, _) = ask(&host, &common::policy(prelude, body));
    let problem = trapped(answer);
    assert!(
        problem.contains("fuel") || problem.contains("limit"),
        "{problem}"
    );
}

#[test]
fn an_answer_outside_its_memory_is_refused() {
    let host = Host::new().unwrap();
    let (answer, _) = ask(&host, &common::policy("", "(i32.const 0x7ffffff0)"));
    trapped(answer);
}

#[test]
fn a_name_of_a_group_is_bounded() {
    let host = Host::new().unwrap();
    // network = group(300 zeroes)
    let prelude = r#"(data (i32.const 0) "\00\00\00\00\20\00\00\00\01\00\00\00")
        (data (i32.const 32) "\00\00\00\00\04\00\00\00\40\00\00\00\2c\01\00\00")"#;
    let (answer, _) = ask(&host, &common::policy(prelude, "(i32.const 0)"));
    assert!(
        matches!(&answer, Err(Failure::Nonsense(problem)) if problem.contains("300 bytes")),
        "{answer:?}"
    );
}

#[test]
fn memory_stays_flat_over_many_bad_calls() {
    let host = Host::new().unwrap();
    let bad = common::load(
        &host,
        &common::policy("", "(unreachable)"),
        common::settings("bad"),
    )
    .unwrap();
    let (pod, container) = (common::pod(), common::container());
    let run = |times: usize| {
        for _ in 0..times {
            assert!(
                bad.ask(&pod, &Question::ScopeContainer(&container))
                    .answer
                    .is_err()
            );
        }
        let status = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("Private_Dirty"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = run(200);
    let after = run(2000);
    assert!(after < before + 512, "{before} kB, then {after} kB");
}

#[test]
fn a_failure_denies_unless_it_is_to_be_ignored() {
    let host = Host::new().unwrap();
    let component = common::policy("", "(unreachable)");
    let chain = |on_error, mode| {
        let mut settings = common::settings("bad");
        settings.config.on_error = on_error;
        settings.config.mode = mode;
        Chain::new(vec![common::load(&host, &component, settings).unwrap()])
    };
    let (pod, container) = (common::pod(), common::container());

    let denied = chain(OnError::Deny, Mode::Enforce).scopes(&pod, Some(&container));
    let reason = denied.result.unwrap_err().to_string();
    assert!(
        reason.contains("policy `bad` denies scope-container"),
        "{reason}"
    );

    let ignored = chain(OnError::Ignore, Mode::Enforce).scopes(&pod, Some(&container));
    assert_eq!(ignored.result, Ok(Vec::new()));
    assert!(ignored.decisions[0].denied && !ignored.decisions[0].counted);

    let monitored = chain(OnError::Deny, Mode::Monitor).scopes(&pod, Some(&container));
    assert_eq!(monitored.result, Ok(Vec::new()));
    assert!(!monitored.decisions[0].counted);
}

#[test]
fn a_component_without_our_exports_is_no_plugin() {
    let host = Host::new().unwrap();
    let component = wat::parse_str("(component)").unwrap();
    let error = common::load(&host, &component, common::settings("empty")).unwrap_err();
    assert!(error.to_string().contains("exports neither"), "{error}");
}
