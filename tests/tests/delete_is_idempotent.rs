//! Removing what is already gone is no error for the shim, and no harm.
use husk_tests::containerd::Containerd;

#[test]
fn a_running_container_is_not_deleted() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    assert_ne!(container.task(&["delete"]).code, 0);
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}

#[test]
fn a_second_delete_finds_nothing_and_breaks_nothing() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["true"]);
    container.until_status("STOPPED");
    let _ = container.task(&["delete"]).ok();
    let second = container.task(&["delete"]);
    assert!(second.stderr.contains("not found"), "{second:?}");
    // The container is still there and can have a new task.
    let started = container.task(&["start", "--detach", "--null-io"]);
    assert_eq!(started.code, 0, "{started:?}");
    container.until_status("STOPPED");
}

#[test]
fn a_created_container_that_never_started_leaves_nothing() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let container = ctr.container();
    let created = ctr.run(&[
        "container",
        "create",
        "--runtime",
        &containerd.lab().runtime,
        husk_tests::image::BUSYBOX,
        &container.id,
        "true",
    ]);
    let _ = created.ok();
}
