//! A root filesystem that is still in use when its container is deleted.
use std::os::unix::process::CommandExt;
use std::process::Command;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;

#[test]
fn a_busy_root_filesystem_does_not_outlive_its_container() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let rootfs = container.bundle().join("rootfs");
    // Someone on the node looks into the container, and stays.
    let mut visitor = Command::new("sleep")
        .arg("1000000")
        .current_dir(&rootfs)
        .process_group(0)
        .spawn()
        .unwrap();
    container.kill("KILL");
    container.until_status("STOPPED");
    let first = container.task(&["delete"]);
    visitor.kill().unwrap();
    visitor.wait().unwrap();
    if first.code != 0 {
        until("a second delete succeeds", || {
            let second = container.task(&["delete"]);
            second.code == 0 || second.stderr.contains("not found")
        });
    }
    until("the root filesystem is gone", || !rootfs.exists());
}
