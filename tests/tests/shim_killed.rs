//! `kill -9` of the shim: what remains is `delete`, run by containerd, and it must find all.
use std::thread;
use std::time::Duration;

use husk_tests::command::{poll, run, until};
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process::{is_alive, shim_processes, shims};
use k8s_cri::v1::NamespaceMode;
use nix::sys::signal::{Signal, kill};

// Each scenario ends with the drop of its container or pod, which counts what is left.
in_both_modes!(
    a_pod_with_two_containers,
    a_pod_with_a_shared_pid_namespace,
    a_pod_on_the_nodes_pid_namespace,
    another_pod_is_not_harmed,
);

#[test]
fn a_running_container() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sh", "-c", "sleep 1000001 & sleep 1000002 & wait"]);
    let init = container.pid();
    kill_shims(std::slice::from_ref(&container.id));
    until("the container has ended", || !is_alive(init));
}

#[test]
fn a_paused_container() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let init = container.pid();
    let _ = container.task(&["pause"]).ok();
    kill_shims(std::slice::from_ref(&container.id));
    until("the container has ended", || !is_alive(init));
}

#[test]
fn an_exited_container() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["true"]);
    container.until_status("STOPPED");
    kill_shims(std::slice::from_ref(&container.id));
}

#[test]
fn a_container_with_an_exec() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let mut command = container.exec_command(&["--detach"], &["sleep", "1000003"]);
    let _ = run(&mut command).ok();
    kill_shims(std::slice::from_ref(&container.id));
}

#[test]
fn at_any_moment_of_a_start() {
    let containerd = Containerd::of_the_suite();
    for milliseconds in [0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160] {
        let container = containerd.ctr().container();
        let ids = [container.id.clone()];
        let mut command = container.command(&["--detach", "--null-io"], &["sleep", "1000000"]);
        let starting = thread::spawn(move || run(&mut command));
        poll(Duration::from_secs(5), || {
            (!shims(&ids).is_empty()).then_some(())
        });
        thread::sleep(Duration::from_millis(milliseconds));
        kill_shims(&ids);
        starting.join().unwrap();
        container.delete_by_hand();
    }
}

#[test]
fn its_helpers_alone() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let ids = [container.id.clone()];
    let tops = shims(&ids);
    for pid in shim_processes(&ids)
        .into_iter()
        .filter(|pid| !tops.contains(pid))
    {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    // Whatever it can still do, it must be able to end what it began.
    container.kill("KILL");
    container.until_status("STOPPED");
}

fn a_pod_with_two_containers(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let inits = [pod.sleeper("one").pid(), pod.sleeper("two").pid()];
    kill_shims(&pod.ids());
    until("both containers have ended", || {
        !inits.iter().any(|pid| is_alive(*pid))
    });
    until("the pod is not ready", || !pod.is_ready());
}

fn a_pod_with_a_shared_pid_namespace(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let shared = NamespaceMode::Pod.into();
    let pod = cri
        .pod(mode)
        .namespaces(|options| options.pid = shared)
        .run();
    let inits = [pod.sleeper("one").pid(), pod.sleeper("two").pid()];
    kill_shims(&pod.ids());
    until("both containers have ended", || {
        !inits.iter().any(|pid| is_alive(*pid))
    });
}

fn a_pod_on_the_nodes_pid_namespace(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let node = NamespaceMode::Node.into();
    let pod = cri.pod(mode).namespaces(|options| options.pid = node).run();
    let script = "setsid sleep 1000001 & sleep 1000002 & wait";
    let init = pod.container("app", &["sh", "-c", script]).start().pid();
    kill_shims(&pod.ids());
    until("the container has ended", || !is_alive(init));
}

fn another_pod_is_not_harmed(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let (victim, other) = (cri.pod(mode).run(), cri.pod(mode).run());
    let (_gone, stays) = (victim.sleeper("app"), other.sleeper("app"));
    kill_shims(&victim.ids());
    until("the victim is not ready", || !victim.is_ready());
    assert_eq!(stays.sh("echo alive"), "alive");
    assert!(other.is_ready());
}

/// Kills the shims of these ids and what they forked for themselves, as one `kill -9 -GROUP` does.
fn kill_shims(ids: &[String]) {
    for pid in shim_processes(ids) {
        kill(pid, Signal::SIGKILL).ok();
    }
}
