//! The floor's containers are as isolated as their spec says: what leaves something out is no floor.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use husk_engine::spec;

fn busybox() -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("busybox"))
        .find(|file| file.is_file())
        .expect("busybox is not in PATH: `apt-get install busybox-static` provides it")
}

fn root(directory: &Path) -> PathBuf {
    let root = directory.join("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    for name in ["dev", "proc", "sys"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::copy(busybox(), root.join("bin/busybox")).unwrap();
    for applet in ["sh", "grep", "touch", "wc", "test", "unshare"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    root
}

/// What the container of these words ended with, as the floor says it.
fn status(words: &[&str]) -> String {
    let directory = tempfile::tempdir_in("/run").unwrap();
    let root = root(directory.path());
    let config = directory.path().join("config.json");
    spec::alone("pod", "", words)
        .unwrap()
        .save(&config)
        .unwrap();
    let mut floor = Command::new(env!("CARGO_BIN_EXE_husk-floor"))
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let cgroup = format!("/husk-floor-test-{}-{}", std::process::id(), words.len());
    let mut input = floor.stdin.take().unwrap();
    // Twice: nothing of the first may be in the way of the second.
    for _ in 0..2 {
        writeln!(input, "{} {cgroup}", root.display()).unwrap();
    }
    drop(input);
    let output = floor.wait_with_output().unwrap();
    assert!(!Path::new("/sys/fs/cgroup").join(&cgroup[1..]).exists());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_container_is_isolated_as_its_spec_says() {
    // The number that the container ends with says which of these did not hold.
    let checks = [
        "test $$ = 1",
        "test $(cat /proc/sys/kernel/hostname) = alone",
        "grep -q '^Seccomp:.*2$' /proc/self/status",
        "grep -q '^NoNewPrivs:.*1$' /proc/self/status",
        "! unshare -m true",
        "! touch /new && ! touch /proc/sys/kernel/domainname",
        "test $(wc -l </proc/net/dev) = 3 && grep -q lo: /proc/net/dev",
        "test ! -s /proc/keys && test -z \"$(echo /sys/firmware/*[a-z]*)\" || \
         test \"$(echo /sys/firmware/*)\" = '/sys/firmware/*'",
        "for at in /dev /dev/pts /dev/shm /dev/mqueue /proc /sys /sys/fs/cgroup; do \
         grep -q \" $at \" /proc/self/mountinfo || exit 9; done",
        "grep -q '/husk-floor-test' /proc/self/cgroup",
    ];
    let cat = "cat() { while read -r line; do echo \"$line\"; done <$1; };";
    let script: Vec<_> = checks
        .iter()
        .zip(10..)
        .map(|(check, number)| format!("{{ {check}; }} || exit {number}"))
        .collect();
    let script = format!("{cat} {}", script.join("\n"));
    assert_eq!(status(&["/bin/sh", "-c", &script]), "0\n0\n");
}

#[test]
fn how_a_container_ends_is_told() {
    assert_eq!(status(&["/bin/sh", "-c", "exit 7", "seven"]), "7\n7\n");
    assert_eq!(status(&["/no/such/program"]), "");
}
