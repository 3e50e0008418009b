//! Builds do not wait for each other, and the death of one is told (contract 27).
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
use std::time::{Duration, Instant};

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::job::Job;
use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run, wait};

fn main() {
    run(&[
        (
            "a_slow_build_holds_no_other_up",
            a_slow_build_holds_no_other_up,
        ),
        (
            "a_builder_killed_half_way_leaves_nothing",
            a_builder_killed_half_way,
        ),
        (
            "a_hook_that_fails_leaves_nothing",
            a_hook_that_fails_leaves_nothing,
        ),
        (
            "a_start_hook_that_fails_fails_the_start",
            a_start_hook_that_fails,
        ),
        (
            "many_at_once_are_all_answered",
            many_at_once_are_all_answered,
        ),
    ]);
}

fn hook(script: &str) -> serde_json::Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

fn a_slow_build_holds_no_other_up(lab: &Lab) {
    let (slow, _) =
        lab.create_job(|spec| spec["hooks"] = json!({"createRuntime": hook("sleep 3")}));
    let (slow_id, slow_dir) = (slow.id.clone(), slow.dir.clone());
    let began = Instant::now();
    let slow_job = lab.send(Job::Create(slow));

    let (quick, _) = lab.create_job(|_| {});
    let (quick_id, quick_dir) = (quick.id.clone(), quick.dir.clone());
    let quick_job = lab.send(Job::Create(quick));
    let (first, done) = lab.receive();
    assert_eq!(first, quick_job);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    finish(lab, &quick_id, &quick_dir, done.unwrap());

    let (second, done) = lab.receive();
    assert_eq!(second, slow_job);
    assert!(began.elapsed() >= Duration::from_secs(3));
    finish(lab, &slow_id, &slow_dir, done.unwrap());
}

fn finish(_: &Lab, id: &str, dir: &std::path::Path, done: husk_sandbox::job::Done) {
    husk_sandbox::start(dir).unwrap();
    assert_eq!(wait(&done.process.unwrap()), Ended::Exited(0));
    husk_sandbox::rootfs::unmount_all(&dir.join("rootfs")).unwrap();
    fs::remove_dir_all(dir).unwrap();
    support::remove_cgroups(id);
}

fn a_builder_killed_half_way(lab: &Lab) {
    let sleep = json!([{"path": "/bin/sleep", "args": ["sleep", "60"]}]);
    let (job, _) = lab.create_job(|spec| spec["hooks"] = json!({"createRuntime": sleep}));
    let dir = job.dir.clone();
    lab.send(Job::Create(job));
    let (builder, hook) = builder_in_a_hook(lab);
    kill(builder);
    let (_, result) = lab.receive();
    let error = result.unwrap_err();
    assert_eq!(error.kind, JobErrorKind::Failed);
    assert!(error.message.contains("killed by signal 9"), "{error}");
    assert!(error.message.contains("running hooks"), "{error}");
    // The hook belongs to whoever wrote the spec: it is not of the container.
    kill(hook);
    let left = |name: &str| dir.join(name).exists();
    assert!(left("config.json") && !left("libcontainer") && !left("console.sock"));
    fs::remove_file(dir.join("config.json")).unwrap();
    fs::remove_dir(dir.join("rootfs")).unwrap();
    fs::remove_dir(&dir).unwrap();
}

/// Waits until a builder runs its hook, by when init has been made: both.
fn builder_in_a_hook(lab: &Lab) -> (i32, i32) {
    let is_hook = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
    };
    let patience = Instant::now() + support::LONG;
    while Instant::now() < patience {
        for builder in support::children(lab.zygote.process().pid) {
            // A process of its own, forked before the builder joins anything, runs the hooks.
            let runners = support::children(builder).into_iter();
            let mut below = runners.flat_map(support::children);
            if let Some(hook) = below.find(is_hook) {
                return (builder, hook);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no builder runs a hook");
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

fn a_hook_that_fails_leaves_nothing(lab: &Lab) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let error = lab
            .try_create(|spec| spec["hooks"] = json!({kind: hook("exit 5")}))
            .err()
            .unwrap_or_else(|| panic!("a failed {kind} hook was ignored"));
        assert_eq!(error.kind, JobErrorKind::Failed, "{error}");
        assert!(error.message.contains("hook"), "{error}");
    }
}

fn a_start_hook_that_fails(lab: &Lab) {
    let mut container = lab.create(|spec| {
        spec["hooks"] = json!({"startContainer": hook("exit 5")});
    });
    let reason = container.start().unwrap_err();
    assert!(reason.contains("startContainer"), "{reason}");
    assert_ne!(container.finish().0, Ended::Exited(0));
}

fn many_at_once_are_all_answered(lab: &Lab) {
    let mut expected = Vec::new();
    for _ in 0..8 {
        let (job, _) = lab.create_job(|_| {});
        let (id, dir) = (job.id.clone(), job.dir.clone());
        expected.push((lab.send(Job::Create(job)), id, dir));
    }
    for _ in 0..8 {
        let (answered, done) = lab.receive();
        let at = expected
            .iter()
            .position(|(id, ..)| *id == answered)
            .unwrap();
        let (_, id, dir) = expected.remove(at);
        finish(lab, &id, &dir, done.unwrap());
    }
}
