//! What cannot be executed is said before the start, or at the latest when starting it.
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
use std::os::unix::fs::PermissionsExt;

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run, shell_process};

fn main() {
    run(&[
        (
            "a_missing_executable_fails_the_create",
            a_missing_executable_fails_the_create,
        ),
        (
            "what_the_user_may_not_execute_fails_the_create",
            what_the_user_may_not_execute,
        ),
        (
            "an_executable_of_the_user_alone_will_do",
            an_executable_of_the_user_alone_will_do,
        ),
        ("no_arguments_fail_the_create", no_arguments_fail_the_create),
        (
            "a_script_without_interpreter_fails_the_start",
            a_script_without_interpreter,
        ),
        (
            "a_broken_binary_fails_the_start",
            a_broken_binary_fails_the_start,
        ),
        (
            "an_exec_fails_with_the_same_reasons",
            an_exec_fails_with_the_same_reasons,
        ),
        ("a_path_is_not_needed", a_path_is_not_needed),
        (
            "the_environment_is_the_specs_alone",
            the_environment_is_the_specs_alone,
        ),
        (
            "signals_are_at_their_defaults",
            signals_are_at_their_defaults,
        ),
    ]);
}

fn refusal(lab: &Lab, args: &[&str], user: u32) -> husk_sandbox::error::JobError {
    let created = lab.try_create(|spec| {
        spec["process"]["args"] = json!(args);
        spec["process"]["user"] = json!({"uid": user, "gid": user});
    });
    match created {
        Ok(_) => panic!("{args:?} was created"),
        Err(error) => error,
    }
}

fn a_missing_executable_fails_the_create(lab: &Lab) {
    let error = refusal(lab, &["no-such-thing"], 0);
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(error.message.contains("\"no-such-thing\""), "{error}");
    assert!(
        error.message.contains("executable file not found in $PATH"),
        "{error}"
    );
    let error = refusal(lab, &["/no/such/thing"], 0);
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(
        error.message.contains("no such file or directory"),
        "{error}"
    );
}

fn what_the_user_may_not_execute(lab: &Lab) {
    write(lab, "plain", "", 0o644, 0);
    write(lab, "of-root", "#!/bin/sh\n", 0o700, 0);
    for (args, user) in [(["/srv/plain"], 0), (["/srv/of-root"], 1000), (["/srv"], 0)] {
        let error = refusal(lab, &args, user);
        assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
        assert!(error.message.contains(args[0]), "{error}");
    }
}

fn an_executable_of_the_user_alone_will_do(lab: &Lab) {
    write(lab, "of-app", "#!/bin/sh\necho ran\n", 0o700, 1000);
    let mut container = lab.create(|spec| {
        spec["process"]["args"] = json!(["/srv/of-app"]);
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    container.start().unwrap();
    assert_eq!(container.finish(), (Ended::Exited(0), "ran\n".to_owned()));
}

fn no_arguments_fail_the_create(lab: &Lab) {
    let error = refusal(lab, &[], 0);
    assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
    assert!(error.message.contains("process.args"), "{error}");
}

fn a_script_without_interpreter(lab: &Lab) {
    write(lab, "script", "#!/no/such/interpreter\n", 0o755, 0);
    let mut container = lab.create(|spec| spec["process"]["args"] = json!(["/srv/script"]));
    let reason = container.start().unwrap_err();
    assert!(
        reason.contains("/srv/script") && reason.contains("interpreter"),
        "{reason}"
    );
    assert_eq!(container.finish().0, Ended::Exited(127));
}

fn a_broken_binary_fails_the_start(lab: &Lab) {
    write(lab, "broken", "\x7fELF but not really", 0o755, 0);
    let mut container = lab.create(|spec| spec["process"]["args"] = json!(["/srv/broken"]));
    let reason = container.start().unwrap_err();
    assert!(reason.contains("exec format error"), "{reason}");
    assert_eq!(container.finish().0, Ended::Exited(127));
}

fn an_exec_fails_with_the_same_reasons(lab: &Lab) {
    write(lab, "script", "#!/no/such/interpreter\n", 0o755, 0);
    write(lab, "of-root", "#!/bin/sh\n", 0o700, 0);
    let container = lab.shell("sleep 60", |_| {});
    let refusal = |arg: &str, user: u32| {
        let mut process = shell_process("");
        process["args"] = json!([arg]);
        process["user"]["uid"] = json!(user);
        match lab.exec(&container, process) {
            Ok(_) => panic!("{arg} was executed"),
            Err(error) => error,
        }
    };
    let error = refusal("no-such-thing", 0);
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(
        error.message.contains("executable file not found in $PATH"),
        "{error}"
    );
    let error = refusal("/srv/script", 0);
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(error.message.contains("interpreter"), "{error}");
    let error = refusal("/srv/of-root", 1000);
    assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
    assert!(error.message.contains("permission denied"), "{error}");
    assert_eq!(refusal("", 0).kind, JobErrorKind::Invalid);
    container.kill();
}

fn a_path_is_not_needed(lab: &Lab) {
    let mut container = lab.create(|spec| {
        spec["process"]["args"] = json!(["env"]);
        spec["process"]["env"] = json!([]);
    });
    container.start().unwrap();
    assert_eq!(
        container.finish(),
        (Ended::Exited(0), "HOME=/root\n".to_owned())
    );
}

fn the_environment_is_the_specs_alone(lab: &Lab) {
    let mut container = lab.create(|spec| {
        spec["process"]["args"] = json!(["env"]);
        spec["process"]["env"] = json!(["B=1", "PATH=/bin", "A=1", "B=2"]);
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    container.start().unwrap();
    let (_, output) = container.finish();
    assert_eq!(output, "PATH=/bin\nA=1\nB=2\nHOME=/srv\n");
}

fn signals_are_at_their_defaults(lab: &Lab) {
    let mut container = lab.shell("cat /proc/self/status; sleep 60", |_| {});
    container.expect("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    let mut process = shell_process("");
    process["args"] = json!(["cat", "/proc/self/status"]);
    let (process, output) = lab.exec(&container, process).unwrap();
    assert_eq!(support::wait(&process), Ended::Exited(0));
    let status = support::read_all(output);
    assert!(
        status.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"),
        "{status}"
    );
    container.kill();
}

fn write(lab: &Lab, name: &str, text: &str, mode: u32, owner: u32) {
    let path = lab.image().join("srv").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
}
