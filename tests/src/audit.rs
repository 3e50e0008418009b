//! The node's audit record, as `husk audit` shows it.
use std::process::Command;

use serde_json::Value;

use crate::command::run;
use crate::lab::Lab;

/// What is on record of a pod, by its id.
///
/// # Panics
/// Nothing is on record in this lab, or what is cannot be read.
#[must_use]
pub fn of(pod: &str) -> Vec<Value> {
    let husk = Lab::get().shim_dir.join("husk");
    let json = run(Command::new(husk).args(["audit", "--json", "--pod", pod])).ok();
    let line = |line| serde_json::from_str(line).unwrap();
    json.lines().map(line).collect()
}

/// Whether a line is about a refusal, whether or not it counted.
#[must_use]
pub fn refuses(line: &Value) -> bool {
    ["denied", "failed"]
        .iter()
        .any(|word| line["answer"] == *word)
}
