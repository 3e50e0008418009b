//! containerd stops, or is killed, and starts again: the pods run on.
use std::thread;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{A_WHILE, Mode};
use husk_tests::ctr::unique;
use husk_tests::process::is_alive;
use nix::sys::signal::Signal;

in_both_modes!(
    output_goes_on_and_is_kept_when_it_stops,
    output_goes_on_and_is_kept_when_it_is_killed,
    an_exit_meanwhile_is_reported_afterwards,
    a_pod_can_be_used_and_removed_afterwards,
    a_pod_that_ended_meanwhile_is_not_ready_afterwards,
);

#[test]
fn a_plain_container_survives_and_its_exit_status_is_kept() {
    let containerd = Containerd::own(&unique("own"));
    let container = containerd.ctr().container();
    container.start(&["sh", "-c", "sleep 2; exit 5"]);
    let init = container.pid();
    containerd.end(Signal::SIGKILL);
    assert!(is_alive(init), "the container died with containerd");
    containerd.launch();
    container.until_status("STOPPED");
    let deleted = container.task(&["delete"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
}

fn output_goes_on_and_is_kept_when_it_stops(mode: Mode) {
    output_goes_on_and_is_kept(mode, Signal::SIGTERM);
}

fn output_goes_on_and_is_kept_when_it_is_killed(mode: Mode) {
    output_goes_on_and_is_kept(mode, Signal::SIGKILL);
}

fn output_goes_on_and_is_kept(mode: Mode, signal: Signal) {
    let containerd = Containerd::own(&unique("own"));
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let script =
        "n=0; while [ ! -e /tmp/enough ]; do echo $n; n=$((n+1)); sleep 0.05; done; echo last";
    let app = pod.container("app", &["sh", "-c", script]).start();
    until("some output is there", || app.log().lines().count() > 3);
    containerd.end(signal);
    thread::sleep(A_WHILE);
    containerd.launch();
    let before = app.log().lines().count();
    until("more output is there", || {
        app.log().lines().count() > before + 3
    });
    let _ = app.sh("touch /tmp/enough");
    assert_eq!(app.until_exited().exit_code, 0);
    until("the last line is there", || app.log().ends_with("last\n"));
    let log = app.log();
    let lines = log.lines().filter(|line| *line != "last");
    let numbers: Vec<usize> = lines.map(|line| line.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{log}");
    // Lines that containerd had read and not yet written go with containerd; ten were written in
    // its absence.
    let lost = numbers.last().unwrap() + 1 - numbers.len();
    assert!(lost <= 3, "{lost} lines are lost: {log}");
}

fn an_exit_meanwhile_is_reported_afterwards(mode: Mode) {
    let containerd = Containerd::own(&unique("own"));
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod
        .container("app", &["sh", "-c", "sleep 1; exit 6"])
        .start();
    let init = app.pid();
    containerd.end(Signal::SIGKILL);
    until("the container has ended", || !is_alive(init));
    containerd.launch();
    assert_eq!(app.until_exited().exit_code, 6);
    assert!(pod.is_ready());
}

fn a_pod_can_be_used_and_removed_afterwards(mode: Mode) {
    let containerd = Containerd::own(&unique("own"));
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    containerd.end(Signal::SIGTERM);
    containerd.launch();
    assert!(pod.is_ready());
    assert_eq!(app.sh("echo alive"), "alive");
    let late = pod.sleeper("late");
    assert_eq!(late.sh("hostname"), "the-pod");
    app.stop(0);
    assert_eq!(app.status().exit_code, 137);
}

fn a_pod_that_ended_meanwhile_is_not_ready_afterwards(mode: Mode) {
    let containerd = Containerd::own(&unique("own"));
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    let init = app.pid();
    containerd.end(Signal::SIGKILL);
    for pid in husk_tests::process::shim_processes(&pod.ids()) {
        nix::sys::signal::kill(pid, Signal::SIGKILL).ok();
    }
    containerd.launch();
    until("the pod is not ready", || !pod.is_ready());
    until("its container has ended", || !is_alive(init));
}
