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
use husk_sandbox::rootfs::Mount;
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
        ("lo_is_up_when_asked_for", lo_is_up_when_asked_for),
        (
            "a_rootfs_of_many_layers_is_mounted",
            a_rootfs_of_many_layers_is_mounted,
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

fn lo_is_up_when_asked_for(lab: &Lab) {
    for loopback in [true, false] {
        let (mut job, output) = lab.create_job(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", "ip -o link show lo | grep -c ,UP"]);
        });
        job.loopback = loopback;
        let container = lab.created(job, output).unwrap();
        assert_eq!(container.run().1, if loopback { "1\n" } else { "0\n" });
    }
}

fn a_rootfs_of_many_layers_is_mounted(lab: &Lab) {
    let (mut job, output) = lab.create_job(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", "ls /layer | wc -l; echo x > /layer/new"]);
    });
    // On a tmpfs: an overlay does not lie on another, which /tmp may be.
    let layers = job.dir.join("layers");
    fs::create_dir(&layers).unwrap();
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &layers, Some("tmpfs"), flags, none).unwrap();
    let mut lower = Vec::new();
    for number in 0..100 {
        let layer = layers.join(format!("layer-with-a-name-of-some-length-{number}"));
        fs::create_dir_all(layer.join("layer")).unwrap();
        fs::write(layer.join("layer").join(number.to_string()), "").unwrap();
        lower.push(layer.display().to_string());
    }
    let base = layers.join("base");
    fs::create_dir(&base).unwrap();
    for directory in ["bin", "dev", "proc", "tmp"] {
        fs::create_dir(base.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    for applet in ["sh", "ls", "wc"] {
        std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
    lower.push(base.display().to_string());
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    job.mounts = vec![Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
        ],
    }];
    assert!(job.mounts[0].options[0].len() > 4096);
    let container = lab.created(job, output).unwrap();
    let dir = container.dir.clone();
    let mut container = container;
    container.start().unwrap();
    let ended = support::wait(&container.init);
    assert_eq!(fs::read_to_string(upper.join("layer/new")).unwrap(), "x\n");
    husk_sandbox::rootfs::unmount_all(&dir).unwrap();
    assert_eq!(
        (ended, container.finish_reaped()),
        (Ended::Exited(0), "100\n".to_owned())
    );
}
