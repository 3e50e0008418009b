//! Freezing a container, and letting it run on.
use std::thread;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::A_WHILE;

#[test]
fn a_paused_container_stands_still_and_then_goes_on() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let script =
        "n=0; while :; do n=$((n+1)); echo $n > /tmp/new; mv /tmp/new /count; sleep 0.02; done";
    container.start(&["sh", "-c", script]);
    until("it counts", || {
        container.exec(&["test", "-e", "/count"]).code == 0
    });

    let _ = container.task(&["pause"]).ok();
    assert_eq!(container.status().as_deref(), Some("PAUSED"));
    let before = container.read("/count");
    thread::sleep(A_WHILE);
    assert_eq!(
        container.read("/count"),
        before,
        "it counts while it is paused"
    );

    let _ = container.task(&["resume"]).ok();
    assert_eq!(container.status().as_deref(), Some("RUNNING"));
    until("it counts again", || container.read("/count") != before);
}

#[test]
fn a_paused_container_can_be_removed() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let _ = container.task(&["pause"]).ok();
    container.kill("KILL");
    let _ = container.task(&["resume"]);
    container.until_status("STOPPED");
}
