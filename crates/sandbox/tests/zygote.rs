//! The zygote itself: how it is made, what it keeps, when it ends.
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
use std::io::{Read, Write};
use std::time::Duration;

use husk_sandbox::daemon::{Side, fork};
use husk_sandbox::process::{Ended, Pidfd};
use husk_sandbox::zygote::{Zygote, ZygoteError};
use serde_json::json;
use support::{Lab, run, shell_process, wait};

fn main() {
    run(&[
        (
            "a_threaded_process_makes_none",
            a_threaded_process_makes_none,
        ),
        ("it_dies_with_the_shim", it_dies_with_the_shim),
        ("it_keeps_nothing_of_the_shim", it_keeps_nothing_of_the_shim),
        (
            "a_job_may_be_larger_than_a_packet",
            a_job_may_be_larger_than_a_packet,
        ),
        ("it_does_not_grow", it_does_not_grow),
        ("init_does_not_keep_it_alive", init_does_not_keep_it_alive),
    ]);
}

fn a_threaded_process_makes_none(_: &Lab) {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().is_err());
    let error = Zygote::fork().unwrap_err();
    assert!(
        matches!(error, ZygoteError::Threaded { threads: 2 }),
        "{error}"
    );
    drop(stop);
    assert!(thread.join().unwrap());
    // The thread's task may take a moment to go: other tests need this process alone.
    while fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A shim of its own with a zygote of its own: the shim, and the zygote's pid.
fn another_shim(then: impl FnOnce(&Zygote)) -> (Pidfd, Pidfd) {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    match fork().unwrap() {
        Side::Child => {
            let zygote = Zygote::fork().unwrap();
            then(&zygote);
            writer
                .write_all(&zygote.process().pid.to_le_bytes())
                .unwrap();
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        Side::Parent(shim) => {
            let shim = Pidfd::open(shim).unwrap();
            let mut zygote = [0; 4];
            reader.read_exact(&mut zygote).unwrap();
            (shim, Pidfd::open(i32::from_le_bytes(zygote)).unwrap())
        }
    }
}

fn it_dies_with_the_shim(_: &Lab) {
    let (shim, zygote) = another_shim(|_| {});
    shim.signal(libc::SIGKILL).unwrap();
    assert_eq!(wait(&shim), Ended::Signaled(libc::SIGKILL));
    // It is ours by now: this process is the nearest subreaper.
    assert!(matches!(
        wait(&zygote),
        Ended::Signaled(libc::SIGKILL) | Ended::Exited(0)
    ));
}

fn init_does_not_keep_it_alive(lab: &Lab) {
    let (job, output) = lab.create_job(|_| {});
    let (dir, id) = (job.dir.clone(), job.id.clone());
    let (shim, zygote) = another_shim(|zygote| {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        zygote.send(1, husk_sandbox::job::Job::Create(job)).unwrap();
        assert!(support::readable(zygote, support::LONG));
    });
    shim.signal(libc::SIGKILL).unwrap();
    wait(&shim);
    wait(&zygote);
    // What waits for its start is found by `delete`, through its cgroup.
    let path = format!("/{}/{id}", support::cgroup_name());
    let driver = husk_sandbox::cgroup::Driver::Cgroupfs;
    let cgroup = husk_sandbox::cgroup::Cgroup::named(driver, Some(&path), &id).unwrap();
    assert_eq!(cgroup.pids().unwrap().len(), 1);
    cgroup.kill().unwrap();
    cgroup.remove().unwrap();
    drop(output);
    husk_sandbox::rootfs::unmount_all(&dir.join("rootfs")).unwrap();
    fs::remove_dir_all(dir).unwrap();
}

fn it_keeps_nothing_of_the_shim(lab: &Lab) {
    let pid = lab.zygote.process().pid;
    let proc = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(proc("comm"), "husk-zygote\n");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd"))
            .unwrap()
            .as_os_str(),
        "/"
    );
    let fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|fd| {
            fs::read_link(fd.unwrap().path())
                .unwrap()
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(
        fds.iter().filter(|name| *name == "/dev/null").count(),
        3,
        "{fds:?}"
    );
    assert_eq!(
        fds.iter()
            .filter(|name| name.starts_with("socket:"))
            .count(),
        1,
        "{fds:?}"
    );
    assert_eq!(fds.len(), 4, "{fds:?}");
    // SIGPIPE alone, as Rust itself ignores it.
    let status = proc("status");
    assert!(
        status.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\n"),
        "{status}"
    );
    assert!(status.contains("Threads:\t1\n"), "{status}");
}

fn a_job_may_be_larger_than_a_packet(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let mut process = shell_process("env | wc -c");
    let env: Vec<String> = (0..100)
        .map(|n| format!("V{n}={}", "x".repeat(10_000)))
        .collect();
    process["env"]
        .as_array_mut()
        .unwrap()
        .extend(env.into_iter().map(|entry| json!(entry)));
    let (process, output) = lab.exec(&container, process).unwrap();
    assert_eq!(wait(&process), Ended::Exited(0));
    let length: usize = support::read_all(output).trim().parse().unwrap();
    assert!(length > 1_000_000, "{length}");
    container.kill();
}

fn it_does_not_grow(lab: &Lab) {
    let private = || {
        let pid = lab.zygote.process().pid;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = rollup
            .lines()
            .find(|line| line.starts_with("Private_Dirty:"))
            .unwrap();
        let number = line.split_ascii_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap()
    };
    let lives = |count| {
        for _ in 0..count {
            assert_eq!(lab.create(|_| {}).run().0, Ended::Exited(0));
        }
    };
    lives(5);
    let before = private();
    lives(20);
    let after = private();
    println!("the zygote has {after} kB of its own");
    assert!(after <= before + 64, "from {before} to {after} kB");
}
