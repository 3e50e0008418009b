//! Terminals: of init and of an exec.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run, shell_process, wait};

fn main() {
    run(&[
        ("init_has_a_terminal", init_has_a_terminal),
        ("an_exec_has_a_terminal", an_exec_has_a_terminal),
        (
            "a_directory_may_have_a_long_name",
            a_directory_may_have_a_long_name,
        ),
        (
            "a_false_multiplexer_is_refused",
            a_false_multiplexer_is_refused,
        ),
    ]);
}

const SCRIPT: &str = "stty size; tty; stat -c %u $(tty); read line; echo got $line; \
                      echo x > /dev/tty; exit 5";
const SAID: [&str; 5] = ["33 88", "/dev/pts/", "1000", "got hello", "x"];

/// Everything a terminal says until its last user is gone.
fn talk(console: OwnedFd) -> String {
    let mut console = File::from(console);
    console.write_all(b"hello\n").unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    // EIO is the end of a terminal (contract 42).
    while let Ok(length) = console.read(&mut buffer) {
        said.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(said).unwrap()
}

fn assert_said(said: &str) {
    let mut rest = said;
    for part in SAID {
        rest = rest
            .split_once(part)
            .unwrap_or_else(|| panic!("no {part:?} in {said:?}"))
            .1;
    }
}

fn init_has_a_terminal(lab: &Lab) {
    let mut container = lab.shell(SCRIPT, |spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 33, "width": 88});
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    assert_said(&talk(container.console.take().unwrap()));
    assert_eq!(container.finish().0, Ended::Exited(5));
}

fn an_exec_has_a_terminal(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let mut process = shell_process(SCRIPT);
    process["terminal"] = json!(true);
    process["consoleSize"] = json!({"height": 33, "width": 88});
    process["user"] = json!({"uid": 1000, "gid": 1000});
    let (done, _) = lab
        .try_exec(&container, process, None)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_said(&talk(done.console.unwrap()));
    assert_eq!(wait(&done.process.unwrap()), Ended::Exited(5));
    container.kill();
}

fn a_directory_may_have_a_long_name(lab: &Lab) {
    let (mut job, _) = lab.create_job(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["args"] = json!(["sh", "-c", "exit 6"]);
    });
    let long = job.dir.join("d".repeat(200)).join("e".repeat(200));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::rename(job.dir.join("config.json"), long.join("config.json")).unwrap();
    let outer = std::mem::replace(&mut job.dir, long.clone());
    let (id, rootfs) = (job.id.clone(), job.rootfs.clone());
    let done = lab.perform(husk_sandbox::job::Job::Create(job)).unwrap();
    husk_sandbox::start(&long).unwrap();
    assert_eq!(wait(&done.process.unwrap()), Ended::Exited(6));
    husk_sandbox::rootfs::unmount_all(&rootfs).unwrap();
    std::fs::remove_dir_all(outer).unwrap();
    support::remove_cgroups(&id);
}

fn a_false_multiplexer_is_refused(lab: &Lab) {
    let mut container = lab.shell(
        "mount -t tmpfs none /dev/pts && mknod /dev/pts/ptmx c 5 2; echo done; sleep 60",
        |spec| {
            let caps = json!(["CAP_SYS_ADMIN", "CAP_MKNOD"]);
            spec["process"]["capabilities"] =
                json!({"bounding": caps, "permitted": caps, "effective": caps});
        },
    );
    container.expect("done\n");
    let mut process = shell_process("true");
    process["terminal"] = json!(true);
    let error = lab.try_exec(&container, process, None).unwrap_err();
    assert!(error.message.contains("ptmx"), "{error}");
    container.kill();
}
