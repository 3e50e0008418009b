//! A plugin's limit is the sum of all that a call makes the host hold, and nothing stays held.
use std::time::{Duration, Instant};

use husk_plugin_host::artifact;
use husk_plugin_host::subject::Container;
use husk_plugin_host::{Chain, Host};
use serde_json::Value;

use crate::{common, hostile};

/// The most a line of the audit record may have, in bytes.
const AUDIT: usize = 64 * 1024;

fn named(name: &str) -> Container {
    Container {
        name: name.to_owned(),
        ..common::container()
    }
}

/// A chain of one component, with the longest deadline that a configuration allows.
fn chain(host: &Host, name: &str, component: &[u8]) -> Chain {
    let mut settings = common::settings(name);
    settings.config.deadline = Duration::from_secs(5);
    Chain::new(vec![common::load(host, component, settings).unwrap()])
}

#[test]
fn each_limit_denies_by_name_and_leaves_little_in_the_record() {
    let host = Host::new().unwrap();
    for (letter, name, component, words) in hostile::all() {
        if name == "never-ends" {
            continue;
        }
        let chain = chain(&host, name, &component);
        let outcome = chain.container_creating(&common::pod(), &named(&letter.to_string()));
        let said = outcome.result.unwrap_err().to_string();
        for word in [&[name], words].concat() {
            assert!(said.contains(word), "{name}: no `{word}` in {said}");
        }
        let line = serde_json::to_string(&outcome.decisions).unwrap();
        assert!(line.len() < AUDIT, "{name}: {} bytes of audit", line.len());
        assert!(outcome.log.len() <= 33, "{name}: {}", outcome.log.len());
        if name != "sixteen-memories" {
            let spared = chain.container_creating(&common::pod(), &named("z"));
            assert!(spared.result.is_ok(), "{name}: {:?}", spared.result);
        }
    }
}

#[test]
fn edits_below_the_limit_are_made_and_told_in_a_line_of_bounded_length() {
    let host = Host::new().unwrap();
    let component = hostile::edits(100, 300);
    let chain = chain(&host, "many", &component);
    let outcome = chain.container_creating(&common::pod(), &named("x"));
    let spec = outcome.result.unwrap();
    assert_eq!(spec.annotations().as_ref().unwrap().len(), 100);
    let answer = &outcome.decisions[0].answer;
    assert!(answer.starts_with("set-annotation aaaa="), "{answer}");
    assert!(answer.ends_with(" more"), "{answer}");
    assert!(answer.len() < 10_000, "{}", answer.len());
}

/// Set in the process in which nothing but the one test runs.
const ALONE: &str = "HUSK_TEST_ALONE";

#[test]
fn what_was_held_is_given_back_and_was_never_more_than_the_limit() {
    if std::env::var_os(ALONE).is_none() {
        let name = "what_a_call_holds_is_bounded::what_was_held_is_given_back_and_was_never_more_than_the_limit";
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
    let chains: Vec<_> = hostile::all()
        .into_iter()
        .filter(|(_, name, ..)| *name != "never-ends")
        .map(|(letter, name, component, _)| (letter, name, chain(&host, name, &component)))
        .collect();
    // What is compiled in this process takes more than any plugin.
    let ask = |chain: &Chain, letter: char| {
        let _ = chain.container_creating(&common::pod(), &named(&letter.to_string()));
    };
    for (letter, _, chain) in &chains {
        ask(chain, *letter);
    }
    for (letter, name, chain) in &chains {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = resident("VmHWM");
        ask(chain, *letter);
        let peak = resident("VmHWM").saturating_sub(before);
        // The limit, what crosses beside it (twice: as it is read, and as it is kept), a stack.
        assert!(peak < (64 + 4) * 1024, "{name}: {peak} kB at its peak");
    }
}

/// A figure of this process's memory, in kB.
fn resident(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(figure))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn compiles(component: &[u8]) -> Result<(), String> {
    artifact::compile("hostile.wasm".as_ref(), component)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[test]
fn what_no_plugin_needs_of_webassembly_is_refused_before_it_is_compiled() {
    for (what, module) in [
        ("several memories", "(module (memory 1) (memory 1))"),
        ("memory64", "(module (memory i64 1))"),
        ("threads", "(module (memory 1 2 shared))"),
        ("simd", "(module (func (drop (v128.const i64x2 0 0))))"),
        ("tail calls", "(module (func $f (return_call $f)))"),
        ("objects", "(module (table 1 externref))"),
        ("garbage collection", "(module (type (struct (field i32))))"),
        ("exceptions", "(module (tag))"),
        ("pages of one byte", "(module (memory 1 (pagesize 1)))"),
    ] {
        let component = hostile::with_instances(common::assigns(0, 0), module, 1);
        let refused = compiles(&component).expect_err(what);
        assert!(refused.len() < 2000, "{what}: {refused}");
    }
    compiles(&common::assigns(0, 0)).unwrap();
}

#[test]
fn a_component_with_too_many_parts_is_refused_before_it_is_compiled() {
    let globals = format!("(module {})", "(global i64 (i64.const 0))".repeat(100_000));
    // Once it is within the bounds; often it is not.
    compiles(&hostile::with_instances(common::assigns(0, 0), &globals, 1)).unwrap();
    let refused = compiles(&hostile::with_instances(
        common::assigns(0, 0),
        &globals,
        100,
    ));
    let refused = refused.unwrap_err();
    assert!(refused.contains("its instances would take"), "{refused}");
    let globals = format!("(module {})", "(global i64 (i64.const 0))".repeat(160_000));
    let refused = compiles(&hostile::with_instances(common::assigns(0, 0), &globals, 0));
    let refused = refused.unwrap_err();
    assert!(refused.contains("150000 are allowed"), "{refused}");
}

#[test]
fn no_component_that_is_damaged_anywhere_harms_the_host() {
    let whole = common::denies("no");
    let started = Instant::now();
    let host = Host::new().unwrap();
    let mut ran = 0;
    // A fixed sequence of places and bytes: the same at every run.
    let mut chance = 1_u32;
    let mut next = || {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(chance >> 8).unwrap()
    };
    for _ in 0..3000 {
        let mut damaged = whole.clone();
        let place = next() % damaged.len();
        damaged[place] = u8::try_from(next() % 256).unwrap();
        if next() % 8 == 0 {
            damaged.truncate(place);
        }
        if artifact::compile("damaged.wasm".as_ref(), &damaged).is_err() {
            continue;
        }
        let Ok(plugin) = common::load(&host, &damaged, common::settings("damaged")) else {
            continue;
        };
        let chain = Chain::new(vec![plugin]);
        let outcome = chain.scopes(&common::pod(), Some(&named("x")));
        let line: Value = serde_json::to_value(&outcome.decisions).unwrap();
        assert!(line.to_string().len() < AUDIT);
        ran += 1;
        if started.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    assert!(ran > 0, "some of them run");
}
