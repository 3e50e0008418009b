//! A shim that has not got every capability itself: what it cannot grant is left out, not refused.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use husk_sandbox::lenient;
use husk_sandbox::process::Ended;
use serde_json::{Value, json};
use support::{Lab, run};

const AGAIN: &str = "HUSK_TEST_WITH_FEWER_CAPABILITIES";

fn main() {
    if std::env::var_os(AGAIN).is_none() && !std::env::args().any(|arg| arg == "--list") {
        // What is not in the bounding set is in no set of what is executed.
        let error = Command::new("setpriv")
            .arg("--bounding-set=-wake_alarm")
            .arg(std::env::current_exe().unwrap())
            .args(std::env::args_os().skip(1))
            .env(AGAIN, "1")
            .exec();
        panic!("cannot execute setpriv: {error}");
    }
    run(&[(
        "what_cannot_be_granted_is_left_out_and_told",
        what_cannot_be_granted,
    )]);
}

fn what_cannot_be_granted(lab: &Lab) {
    let edit = |spec: &mut Value| {
        let caps = json!(["CAP_CHOWN", "CAP_WAKE_ALARM"]);
        spec["process"]["capabilities"] = json!({
            "bounding": caps, "permitted": caps, "effective": caps, "inheritable": caps,
            "ambient": caps,
        });
    };
    let container = lab.shell("grep ^Cap /proc/self/status; sleep 60", edit);
    let text = std::fs::read(container.dir.join("config.json")).unwrap();
    let (spec, _) = lenient::read(&text).unwrap();
    assert_eq!(lenient::not_granted(&spec), ["CAP_WAKE_ALARM"]);
    let process = support::shell_process("grep ^Cap /proc/self/status");
    let mut of_exec = json!({"process": process});
    edit(&mut of_exec);
    let (process, output) = lab.exec(&container, of_exec["process"].take()).unwrap();
    assert_eq!(support::wait(&process), Ended::Exited(0));
    let of_exec = support::read_all(output);
    let of_init = container.kill().1;
    for said in [of_init, of_exec] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let chown = format!("{set}:\t0000000000000001");
            assert!(said.contains(&chown), "no {chown} in {said}");
        }
    }
}
