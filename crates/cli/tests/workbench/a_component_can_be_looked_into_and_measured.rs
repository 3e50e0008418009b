//! `husk policy inspect` and `husk policy bench`.
use std::path::Path;

use crate::{component, husk, succeeded};

#[test]
fn exports_and_imports_are_listed() {
    let output = husk()
        .args(["policy", "inspect"])
        .arg(component("no-host"))
        .output()
        .unwrap();
    let text = succeeded(&output);
    for line in [
        "exports husk:plugin/scoping@0.1.1",
        "imports husk:plugin/container@0.1.1",
    ] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    assert!(!text.contains("wasi"), "{text}");
}

#[test]
fn a_decision_s_cost_is_measured() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/no-host/cases");
    let case = std::fs::read_dir(cases).unwrap().next().unwrap().unwrap();
    let output = husk()
        .args(["policy", "bench", "-n", "20"])
        .arg(component("no-host"))
        .arg(case.path())
        .output()
        .unwrap();
    let text = succeeded(&output);
    assert!(text.contains("fuel"), "{text}");
}
