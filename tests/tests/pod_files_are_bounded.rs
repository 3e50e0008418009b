//! A pod's hostname, hosts and resolv.conf may be written by its containers, and are on file systems
//! of the node: what they take there is bounded.
use std::process::Command;

use husk_tests::command::run;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;

in_both_modes!(a_container_does_not_fill_the_nodes_run);

const MIB: u64 = 1 << 20;

/// The bytes in use on the file system at `path`.
fn used(path: &str) -> u64 {
    let output = run(Command::new("df").args(["--output=used", "-B1", path])).ok();
    output.lines().nth(1).unwrap().trim().parse().unwrap()
}

fn a_container_does_not_fill_the_nodes_run(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    let before = ["/run/husk", "/run/containerd"].map(used);
    for file in ["hostname", "hosts", "resolv.conf"] {
        // To the end of the space, or enough to see that it is not the node's memory.
        let fill = format!("dd if=/dev/zero of=/etc/{file} bs=1M count=20 conv=notrunc");
        app.exec(&["sh", "-c", &fill]);
    }
    let after = ["/run/husk", "/run/containerd"].map(used);
    for (before, after) in before.into_iter().zip(after) {
        assert!(
            after < before + 2 * MIB,
            "{before} bytes have become {after}"
        );
    }
    if mode == Mode::SandboxApi {
        // Nor does it make a file of its own beside them.
        let free = app.sh("stat -f -c %d /etc/hosts");
        assert_eq!(free, "0", "inodes are left");
    }
    // The pod can still be used, and others made.
    assert_eq!(app.sh("echo alive"), "alive");
    let other = cri.pod(mode).run();
    assert_eq!(other.sleeper("app").sh("cat /etc/hostname"), "the-pod");
}
