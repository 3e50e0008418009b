//! Whatever goes wrong in a plugin denies, within its deadline, and leaves the host as it was.
use std::time::{Duration, Instant};

use husk_plugin_host::plugin::{Answer, Failure};
use husk_plugin_host::subject::{Exit, Question};
use husk_plugin_host::{Chain, Host};
use husk_scope::config::{Mode, OnError};
use oci_spec::runtime::{LinuxResources, Process};

use crate::common;

fn ask(host: &Host, component: &[u8]) -> (Result<Answer, Failure>, Duration) {
    let plugin = common::load(host, component, common::settings("bad")).unwrap();
    let started = Instant::now();
    let reply = plugin.ask(
        &common::pod(),
        &Question::ScopeContainer(&common::container()),
    );
    (reply.answer, started.elapsed())
}

fn over_limit(answer: Result<Answer, Failure>) -> String {
    match answer {
        Err(Failure::OverLimit(limit)) => limit,
        other => panic!("expected a limit, got {other:?}"),
    }
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
fn where_the_caller_keeps_the_time_an_endless_loop_ends_when_it_has_passed() {
    let (host, clock) = Host::timed_by_caller().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    let asked = std::thread::spawn(move || {
        let endless = common::policy("", "(loop $l (br $l)) (i32.const 0)");
        let _ = done.send(ask(&host, &endless));
    });
    let waited = ended.recv_timeout(Duration::from_millis(200));
    assert!(waited.is_err(), "nobody has kept the time: {waited:?}");
    // Several callers, each in a hurry, make no deadline shorter.
    let begun = Instant::now();
    let (answer, _) = loop {
        clock.tick();
        clock.clone().tick();
        if let Ok(ended) = ended.recv_timeout(Duration::from_millis(1)) {
            break ended;
        }
    };
    assert_eq!(answer, Err(Failure::TimedOut(Duration::from_millis(50))));
    assert!(begun.elapsed() >= Duration::from_millis(45));
    asked.join().unwrap();
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
    let limit = over_limit(answer);
    assert!(limit.contains("the memory limit of 64 MiB"), "{limit}");
}

#[test]
fn an_answer_of_100_megabytes_is_refused() {
    let host = Host::new().unwrap();
    // A denial whose reason is as long as the memory that the plugin may have.
    let prelude = r#"(data (i32.const 0) "\01\00\00\00\00\00\02\00\00\00\80\02")"#;
    let body = "(drop (memory.grow (i32.const 800))) (i32.const 0)";
    let (answer, _) = ask(&host, &common::policy(prelude, body));
    let limit = over_limit(answer);
    assert!(limit.contains("the limit of 1 MiB"), "{limit}");
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

/// Set in the process in which nothing but the one test runs.
const ALONE: &str = "HUSK_TEST_ALONE";

#[test]
fn memory_stays_flat_over_many_bad_calls() {
    if std::env::var_os(ALONE).is_none() {
        // Tests beside it would be in the memory that is measured.
        let name = "a_bad_plugin_denies::memory_stays_flat_over_many_bad_calls";
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(
            alone.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
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
    assert!(
        error.to_string().contains("exports none of the interfaces"),
        "{error}"
    );
}

/// Hooks that trap in every function.
fn trapping_hooks() -> Vec<u8> {
    let functions: String = [
        ("sandbox-starting", "(result i32)"),
        ("sandbox-started", ""),
        ("sandbox-stopped", ""),
        ("container-creating", "(result i32)"),
        ("container-started", ""),
        ("container-exited", ""),
        ("container-oom", ""),
        ("exec-starting", "(result i32)"),
        ("resources-updating", "(result i32)"),
    ]
    .iter()
    .map(|(name, result)| {
        format!(r#"(func (export "husk:plugin/lifecycle@0.1.1#{name}") {result} (unreachable))"#)
    })
    .collect();
    common::component(
        "configurable-hooks",
        &format!(
            r#"(module
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (func (export "husk:plugin/configurable@0.1.1#validate-settings")
                    (param i32 i32) (result i32) (unreachable))
                {functions})"#
        ),
    )
}

#[test]
fn a_trap_in_every_function_denies_what_can_be_denied() {
    let host = Host::new().unwrap();
    let bad = common::load(&host, &trapping_hooks(), common::settings("bad")).unwrap();
    let chain = Chain::new(vec![bad]);
    let (pod, container) = (common::pod(), common::container());
    let (process, resources) = (Process::default(), LinuxResources::default());
    let exit = Exit {
        code: 137,
        oom_killed: true,
    };
    for question in [
        Question::SandboxStarting,
        Question::SandboxStarted,
        Question::SandboxStopped,
        Question::ContainerStarted(&container),
        Question::ContainerExited(&container, exit),
        Question::ContainerOom(&container),
        Question::ExecStarting(&container, &process),
        Question::ResourcesUpdating(&container, &resources),
    ] {
        let outcome = chain.notify(&pod, &question);
        let name = question.name();
        assert_eq!(outcome.result.is_err(), question.decides(), "{name}");
        let answer = &outcome.decisions[0].answer;
        assert!(answer.contains("unreachable"), "{name}: {answer}");
    }
    assert!(chain.container_creating(&pod, &container).result.is_err());
    assert!(chain.validate_settings(&pod).result.is_err());
}

/// A policy that asks or tells the host something before it answers that all stays as requested.
fn calling(import: &str, parameters: &str, call: &str) -> Vec<u8> {
    let prelude = format!(r#"(import {import} (func $f {parameters}))"#);
    common::policy(&prelude, &format!("{call} (i32.const 0)"))
}

#[test]
fn a_flood_of_log_lines_is_cut() {
    let host = Host::new().unwrap();
    // A line of 200 bytes, a thousand times; the answer at 0 is an empty list.
    let call = "(local $i i32)
        (loop $l
            (call $f (i32.const 1) (i32.const 1024) (i32.const 200))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))";
    let component = calling(
        r#""husk:plugin/host@0.1.1" "log""#,
        "(param i32 i32 i32)",
        call,
    );
    let bad = common::load(&host, &component, common::settings("bad")).unwrap();
    let reply = bad.ask(&common::pod(), &Question::ScopeSandbox);
    assert_eq!(reply.answer, Ok(Answer::Scopes(vec![])));
    assert_eq!(reply.log.len(), 33);
    assert_eq!(
        reply.log[32].1,
        "968 more lines dropped: a call may write 32"
    );
    let escaped = "\\u{0}".repeat(200);
    assert!(
        reply.log[0].1.starts_with(&escaped[..100]),
        "{}",
        reply.log[0].1
    );
}

#[test]
fn a_log_line_of_megabytes_is_refused() {
    let host = Host::new().unwrap();
    let call = "(drop (memory.grow (i32.const 800)))
        (call $f (i32.const 1) (i32.const 0) (i32.const 50000000))";
    let component = calling(
        r#""husk:plugin/host@0.1.1" "log""#,
        "(param i32 i32 i32)",
        call,
    );
    let (answer, _) = ask(&host, &component);
    let limit = over_limit(answer);
    assert!(limit.contains("the limit of 1 MiB"), "{limit}");
}

#[test]
fn a_question_without_a_subject_is_a_trap() {
    let host = Host::new().unwrap();
    let component = calling(
        r#""husk:plugin/container@0.1.1" "uid""#,
        "(result i32)",
        "(drop (call $f))",
    );
    let bad = common::load(&host, &component, common::settings("bad")).unwrap();
    let reply = bad.ask(&common::pod(), &Question::ScopeSandbox);
    assert!(trapped(reply.answer).contains("no container to ask about"));
    let container = common::container();
    let reply = bad.ask(&common::pod(), &Question::ScopeContainer(&container));
    assert_eq!(reply.answer, Ok(Answer::Scopes(vec![])));
}

#[test]
fn a_group_name_of_a_megabyte_is_refused() {
    let host = Host::new().unwrap();
    // network = group(1 MB of zeroes)
    let prelude = r#"(data (i32.const 0) "\00\00\00\00\20\00\00\00\01\00\00\00")
        (data (i32.const 32) "\00\00\00\00\04\00\00\00\40\00\00\00\00\00\10\00")"#;
    let body = "(drop (memory.grow (i32.const 32))) (i32.const 0)";
    let (answer, took) = ask(&host, &common::policy(prelude, body));
    assert!(answer.is_err(), "{answer:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_kind_or_scope_that_does_not_exist_is_a_trap() {
    let host = Host::new().unwrap();
    for (kind, scope) in [(8, 0), (0, 5)] {
        let (answer, _) = ask(&host, &common::assigns(kind, scope));
        let problem = trapped(answer);
        assert!(problem.contains("discriminant"), "{problem}");
    }
}

#[test]
fn others_are_answered_while_a_bad_plugin_runs() {
    let host = Host::new().unwrap();
    let endless = common::policy("", "(loop $l (br $l)) (i32.const 0)");
    let bad = common::load(&host, &endless, common::settings("bad")).unwrap();
    let good = common::load(
        &host,
        &common::assigns(0, 0),
        common::settings_with("good", "{}"),
    )
    .unwrap();
    let (pod, container) = (common::pod(), common::container());
    let question = Question::ScopeContainer(&container);
    std::thread::scope(|threads| {
        let bad = threads.spawn(|| bad.ask(&pod, &question).answer);
        let mut answered = 0_u32;
        while !bad.is_finished() {
            let answer = good.ask(&pod, &question).answer;
            assert!(matches!(answer, Ok(Answer::Scopes(_))), "{answer:?}");
            answered += 1;
        }
        assert!(answered > 0, "the two ran side by side");
        assert!(matches!(bad.join().unwrap(), Err(Failure::TimedOut(_))));
    });
}
