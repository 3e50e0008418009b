//! Whoever is killed, at whichever moment: when all is deleted, nothing is left.
//!
//! `HUSK_FAULT_ROUNDS` says how many rounds each scenario has, 6 if it says nothing, and
//! `HUSK_FAULT_SEED` with which delays they begin. Each round ends with the drop of its container or
//! pod, which counts processes, mounts, cgroups, files and sockets.
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use husk_tests::command::{self, poll, run, until};
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::Container;
use husk_tests::process::{descendants, shims, status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

in_both_modes!(
    the_zygote_while_a_pods_container_is_made,
    the_shim_while_a_pods_container_is_made,
    containerd_while_a_pod_is_made,
);

/// The rounds of a scenario: a delay each, of at most this many milliseconds.
fn delays(most: u64) -> impl Iterator<Item = Duration> {
    let number = |name, otherwise| {
        let said: Result<u64, _> = env::var(name).unwrap_or_default().parse();
        said.unwrap_or(otherwise)
    };
    let mut state = number("HUSK_FAULT_SEED", 11);
    (0..number("HUSK_FAULT_ROUNDS", 6)).map(move |_| {
        // Knuth's linear congruential generator; its low bits are poor.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((state >> 33) % (most * 1000))
    })
}

fn spawn(command: &mut std::process::Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Waits for the end of a client, which has lost its peer.
fn join(mut client: Child) {
    assert!(
        command::wait(&mut client, command::DEADLINE).is_some(),
        "a client waits for ever"
    );
}

/// Waits until there is a shim whose command line has one of these words; at first it is `start`.
fn until_a_shim(words: &[String]) {
    poll(Duration::from_secs(5), || {
        (!shims(words).is_empty()).then_some(())
    });
}

fn zygote(words: &[String]) -> Option<Pid> {
    let named = |pid: &Pid| status(*pid).get("Name").map(String::as_str) == Some("husk-zygote");
    shims(words).into_iter().flat_map(descendants).find(named)
}

fn kill_zygote(words: &[String]) {
    zygote(words).into_iter().for_each(kill_dead);
}

fn kill_shim(words: &[String]) {
    shims(words).into_iter().for_each(kill_dead);
}

fn kill_dead(pid: Pid) {
    // One that has ended by itself was not there to be killed.
    kill(pid, Signal::SIGKILL).ok();
}

fn start(container: &Container<'_>) -> Child {
    spawn(&mut container.command(&["--detach", "--null-io"], &["sleep", "1000000"]))
}

#[test]
fn the_client_while_a_container_is_made_and_started() {
    let containerd = Containerd::of_the_suite();
    for delay in delays(250) {
        let container = containerd.ctr().container();
        let client = start(&container);
        thread::sleep(delay);
        kill_dead(Pid::from_raw(client.id().cast_signed()));
        join(client);
    }
}

#[test]
fn the_zygote_while_a_container_is_made_and_started() {
    let containerd = Containerd::of_the_suite();
    for delay in delays(100) {
        let container = containerd.ctr().container();
        let client = start(&container);
        until_a_shim(std::slice::from_ref(&container.id));
        thread::sleep(delay);
        kill_zygote(std::slice::from_ref(&container.id));
        join(client);
    }
}

#[test]
fn the_shim_while_a_container_is_made_and_started() {
    let containerd = Containerd::of_the_suite();
    for delay in delays(100) {
        let container = containerd.ctr().container();
        let client = start(&container);
        until_a_shim(std::slice::from_ref(&container.id));
        thread::sleep(delay);
        kill_shim(std::slice::from_ref(&container.id));
        join(client);
        container.delete_by_hand();
    }
}

#[test]
fn the_zygote_while_processes_are_executed() {
    let containerd = Containerd::of_the_suite();
    for delay in delays(50) {
        let container = containerd.ctr().container();
        container.start(&["sleep", "1000000"]);
        let client = spawn(&mut container.exec_command(&[], &["sleep", "0.1"]));
        thread::sleep(delay);
        kill_zygote(std::slice::from_ref(&container.id));
        join(client);
    }
}

#[test]
fn the_client_while_processes_are_executed() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    for delay in delays(50) {
        let client = spawn(&mut container.exec_command(&[], &["sleep", "0.1"]));
        thread::sleep(delay);
        kill_dead(Pid::from_raw(client.id().cast_signed()));
        join(client);
    }
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}

#[test]
fn the_shim_while_a_container_is_deleted() {
    let containerd = Containerd::of_the_suite();
    for delay in delays(50) {
        let container = containerd.ctr().container();
        container.start(&["sleep", "1000000"]);
        let ctr = containerd.ctr();
        let client = spawn(ctr.command().args(["task", "rm", "-f", &container.id]));
        thread::sleep(delay);
        kill_shim(std::slice::from_ref(&container.id));
        join(client);
        // What was killed may have been containerd's own `delete`: another has to find it all.
        container.delete_by_hand();
    }
}

#[test]
fn containerd_while_a_container_is_made_and_started() {
    let containerd = Containerd::own("killed-at-any-moment");
    for delay in delays(200) {
        let container = containerd.ctr().container();
        let client = start(&container);
        thread::sleep(delay);
        containerd.end(Signal::SIGKILL);
        join(client);
        containerd.launch();
    }
}

/// The client dies while the shim is at work on its Create, and does not see its end.
#[test]
fn the_client_while_a_create_hangs() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let ids = [container.id.clone()];
    // The zygote has to be stopped before it has anything to do: the log comes before.
    let fifo = container.folder().join("gate");
    let _ = run(std::process::Command::new("mkfifo").arg(&fifo)).ok();
    let log = format!("binary:///bin/sh?-c=read line <{}", fifo.display());
    let mut command = container.command(&["--detach", "--log-uri", &log], &["sleep", "1000000"]);
    let client = spawn(&mut command);
    let zygote = poll(Duration::from_secs(5), || zygote(&ids)).unwrap();
    kill(zygote, Signal::SIGSTOP).unwrap();
    fs::write(&fifo, "go on\n").unwrap();
    thread::sleep(Duration::from_millis(500));
    kill_dead(Pid::from_raw(client.id().cast_signed()));
    join(client);
    // containerd gives it up after five seconds, and again five.
    until("containerd has forgotten the container", || {
        container.status().is_none() && !container.bundle().exists()
    });
    kill(zygote, Signal::SIGCONT).unwrap();
    until("the shim has ended", || shims(&ids).is_empty());
}

/// What a killer does while a pod's container is being made.
fn while_a_container_is_made(mode: Mode, name: &str, most: u64, killer: fn(&[String])) {
    let containerd = Containerd::own(name);
    let cri = containerd.cri();
    for delay in delays(most) {
        let pod = cri.pod(mode).run();
        let app = pod.container("app", &["sleep", "1000000"]);
        let words = [pod.id.clone()];
        let killing = thread::spawn(move || {
            thread::sleep(delay);
            killer(&words);
        });
        if let Ok(app) = app.try_create() {
            app.try_start().ok();
        }
        killing.join().unwrap();
    }
}

fn the_zygote_while_a_pods_container_is_made(mode: Mode) {
    let name = format!("zygote-of-{mode:?}");
    while_a_container_is_made(mode, &name, 80, kill_zygote);
}

fn the_shim_while_a_pods_container_is_made(mode: Mode) {
    let name = format!("shim-of-{mode:?}");
    while_a_container_is_made(mode, &name, 80, kill_shim);
}

fn containerd_while_a_pod_is_made(mode: Mode) {
    let containerd = Containerd::own(&format!("containerd-of-{mode:?}"));
    for delay in delays(100) {
        let cri = containerd.cri();
        let making = cri.pod(mode);
        let pid = containerd.pid().unwrap();
        let words = [containerd.socket().display().to_string()];
        let killing = thread::spawn(move || {
            // Before it has a shim, containerd may forget the network namespace that it has made.
            until_a_shim(&words);
            thread::sleep(delay);
            kill_dead(pid);
        });
        drop(making.run_while_it_fails(|| {
            killing.join().unwrap();
            containerd.end(Signal::SIGKILL);
            containerd.launch();
        }));
    }
}
