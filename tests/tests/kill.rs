//! Signals, and whom they reach.
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::process;

#[test]
fn the_program_receives_the_signal_that_was_sent() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let script = "trap 'exit 7' USR1; touch /ready; while :; do sleep 0.05; done";
    let running = container.spawn(&["sh", "-c", script]);
    until("the trap is set", || {
        container.exec(&["test", "-e", "/ready"]).code == 0
    });
    container.kill("USR1");
    assert_eq!(running.join().unwrap().code, 7);
}

#[test]
fn with_its_first_process_the_others_of_a_container_end() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sh", "-c", "sleep 1000001 & sleep 1000002 & wait"]);
    let init = container.pid();
    until("the children run", || process::descendants(init).len() == 2);
    let children = process::descendants(init);
    container.kill("KILL");
    container.until_status("STOPPED");
    until("the children have ended", || {
        !children.iter().any(|pid| process::is_alive(*pid))
    });
}

#[test]
fn a_signal_to_a_container_that_has_ended_is_refused() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["true"]);
    container.until_status("STOPPED");
    let output = container.task(&["kill", "--signal", "TERM"]);
    assert!(output.stderr.contains("not found"), "{output:?}");
}
