//! Pods that use the node's namespaces.
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process::{descendants, is_alive, namespaces};
use k8s_cri::v1::NamespaceMode;

in_both_modes!(
    host_pid,
    host_ipc,
    with_host_pid_a_stopped_container_leaves_no_process,
);

// containerd 2.1 itself cannot make such a pod with `sandboxer = "shim"`: it dereferences a spec
// that is not there.
#[test]
fn host_network() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let node = NamespaceMode::Node.into();
    let pod = cri
        .pod(Mode::Podsandbox)
        .namespaces(|options| options.network = node)
        .with(|config| config.hostname.clear())
        .run();
    let app = pod.sleeper("app");
    let (its, ours) = (namespaces(app.pid()), namespaces(nix::unistd::getpid()));
    assert_eq!(its["net"], ours["net"]);
    assert_eq!(
        its["uts"], ours["uts"],
        "the hostname of a host network pod is the node's"
    );
    assert_ne!(its["ipc"], ours["ipc"]);
}

fn host_pid(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let node = NamespaceMode::Node.into();
    let pod = cri.pod(mode).namespaces(|options| options.pid = node).run();
    let app = pod.sleeper("app");
    let (its, ours) = (namespaces(app.pid()), namespaces(nix::unistd::getpid()));
    assert_eq!(its["pid"], ours["pid"]);
    assert_ne!(its["net"], ours["net"]);
    let _ = app.sh(&format!("test -e /proc/{}/status", std::process::id()));
}

fn host_ipc(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let node = NamespaceMode::Node.into();
    let pod = cri.pod(mode).namespaces(|options| options.ipc = node).run();
    let app = pod.sleeper("app");
    let (its, ours) = (namespaces(app.pid()), namespaces(nix::unistd::getpid()));
    assert_eq!(its["ipc"], ours["ipc"]);
    assert_ne!(its["net"], ours["net"]);
    let note = format!("/dev/shm/husk-test-{}", std::process::id());
    let _ = app.sh(&format!("echo seen > {note}"));
    let seen = std::fs::read_to_string(&note);
    std::fs::remove_file(&note).unwrap();
    assert_eq!(seen.unwrap(), "seen\n");
}

fn with_host_pid_a_stopped_container_leaves_no_process(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let node = NamespaceMode::Node.into();
    let pod = cri.pod(mode).namespaces(|options| options.pid = node).run();
    let script = "setsid sleep 1000001 & setsid sleep 1000002 & sleep 1000003 & wait";
    let app = pod.container("app", &["sh", "-c", script]).start();
    let neighbour = pod.sleeper("neighbour");
    let init = app.pid();
    until("the children run", || descendants(init).len() == 3);
    let children = descendants(init);
    app.stop(0);
    app.remove();
    until("the children have ended", || {
        !children.iter().any(|pid| is_alive(*pid))
    });
    assert_eq!(neighbour.sh("echo alive"), "alive");
}
