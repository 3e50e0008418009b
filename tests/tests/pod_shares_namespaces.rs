//! The containers of a pod share its network, its ipc and its uts namespace, and nothing else.
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process::namespaces;

in_both_modes!(
    network_ipc_and_uts_are_the_pods_pid_and_mount_their_own,
    they_talk_over_localhost,
    they_share_memory,
    a_later_container_joins_what_is_there,
    two_pods_share_nothing,
);

fn network_ipc_and_uts_are_the_pods_pid_and_mount_their_own(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    let (one, two) = (namespaces(one.pid()), namespaces(two.pid()));
    let node = namespaces(nix::unistd::getpid());
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(one[kind], two[kind], "{kind}");
        assert_ne!(one[kind], node[kind], "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(one[kind], two[kind], "{kind}");
        assert_ne!(one[kind], node[kind], "{kind}");
    }
    assert_eq!(one["user"], node["user"], "user");
}

fn they_talk_over_localhost(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let script =
        "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www";
    let _app = pod.container("app", &["sh", "-c", script]).start();
    let sidecar = pod.sleeper("sidecar");
    let fetch = ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
    until("the app answers", || {
        sidecar.exec(&fetch).stdout == "hello\n"
    });
}

fn they_share_memory(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    let _ = one.sh("echo shared > /dev/shm/note");
    assert_eq!(two.sh("cat /dev/shm/note"), "shared");
    assert!(two.sh("mount").contains(" on /dev/shm type tmpfs"));
}

fn a_later_container_joins_what_is_there(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let first = pod.sleeper("first");
    let before = namespaces(first.pid());
    let _ = first.sh("echo kept > /dev/shm/note");
    first.stop(10);
    first.remove();
    let second = pod.sleeper("second");
    let after = namespaces(second.pid());
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(before[kind], after[kind], "{kind}");
    }
    assert_eq!(second.sh("cat /dev/shm/note"), "kept");
}

fn two_pods_share_nothing(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let (one, two) = (cri.pod(mode).run(), cri.pod(mode).run());
    let (one, two) = (one.sleeper("app"), two.sleeper("app"));
    let (one, two) = (namespaces(one.pid()), namespaces(two.pid()));
    for kind in ["net", "ipc", "uts", "pid", "mnt"] {
        assert_ne!(one[kind], two[kind], "{kind}");
    }
}
