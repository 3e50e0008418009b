//! A pod's shim was started for its first container; the end of that one is not the end of the pod.
use std::thread;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{A_WHILE, Mode};
use husk_tests::ctr::{Container, unique};
use husk_tests::process::is_alive;
use k8s_cri::v1::ContainerState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn the_death_of_the_pause_container_kills_no_other() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::Podsandbox).run();
    let app = pod.sleeper("app");
    let init = app.pid();
    let (_, information) = pod.status().unwrap();
    let pause = i32::try_from(information["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pause), Signal::SIGKILL).unwrap();
    until("the pod is not ready", || !pod.is_ready());
    // containerd now deletes the pause container, and clears away after its connection.
    thread::sleep(A_WHILE * 2);
    assert!(is_alive(init), "the container was killed");
    assert_eq!(app.status().state(), ContainerState::ContainerRunning);
    assert_eq!(app.sh("echo alive"), "alive");
}

/// Of two containers of one pod the first, after which the pod may be named, is removed first.
fn outlives(first: Container<'_>, second: Container<'_>) {
    for container in [&first, &second] {
        container.start(&["sleep", "1000000"]);
    }
    first.kill("KILL");
    first.until_status("STOPPED");
    first.remove();
    thread::sleep(A_WHILE * 2);
    assert_eq!(second.exec(&["echo", "alive"]).ok(), "alive\n");
}

#[test]
fn the_removal_of_a_groups_first_kills_no_other() {
    let containerd = Containerd::of_the_suite();
    let (first, second) = (containerd.ctr().container(), containerd.ctr().container());
    let group = format!("io.containerd.runc.v2.group={}", first.id);
    outlives(
        first.flag("--annotation").flag(&group),
        second.flag("--annotation").flag(&group),
    );
}

#[test]
fn the_removal_of_a_pods_first_kills_no_other() {
    let containerd = Containerd::of_the_suite();
    for named_after_the_first in [true, false] {
        let (first, second) = (containerd.ctr().container(), containerd.ctr().container());
        let pod = match named_after_the_first {
            true => first.id.clone(),
            false => unique("pod"),
        };
        let annotation = format!("io.husk.pod={pod}");
        outlives(
            first.flag("--annotation").flag(&annotation),
            second.flag("--annotation").flag(&annotation),
        );
    }
}
