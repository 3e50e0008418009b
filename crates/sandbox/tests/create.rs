//! A container's init: created, started, ended.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;

use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run};

fn main() {
    run(&[
        (
            "exit_status_and_output_reach_the_shim",
            exit_status_and_output_reach_the_shim,
        ),
        ("init_is_a_child_of_the_shim", init_is_a_child_of_the_shim),
        (
            "init_that_ends_at_once_is_still_waited_for",
            init_that_ends_at_once,
        ),
        (
            "nothing_runs_before_the_start",
            nothing_runs_before_the_start,
        ),
    ]);
}

fn exit_status_and_output_reach_the_shim(lab: &Lab) {
    let container = lab.shell("echo hello; exit 7", |_| {});
    assert_eq!(container.finish(), (Ended::Exited(7), "hello\n".to_owned()));
}

fn init_is_a_child_of_the_shim(lab: &Lab) {
    let mut container = lab.shell("echo pid $$; sleep 60", |_| {});
    container.expect("pid 1\n");
    let status = fs::read_to_string(format!("/proc/{}/status", container.init.pid)).unwrap();
    let parent = format!("PPid:\t{}\n", std::process::id());
    assert!(status.contains(&parent), "{status}");
    assert_eq!(container.kill().0, Ended::Signaled(libc::SIGKILL));
}

fn init_that_ends_at_once(lab: &Lab) {
    for _ in 0..10 {
        let container = lab.shell("exit 3", |_| {});
        assert_eq!(container.finish().0, Ended::Exited(3));
    }
}

fn nothing_runs_before_the_start(lab: &Lab) {
    let container = lab.create(|spec| {
        spec["process"]["args"] = json!(["echo", "ran"]);
    });
    assert_eq!(container.init.try_wait().unwrap(), None);
    let (ended, output) = container.kill();
    assert_eq!(ended, Ended::Signaled(libc::SIGKILL));
    assert_eq!(output, "");
}
