//! `shareProcessNamespace`: the containers of a pod see each other's processes.
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Cri, Mode, Pod};
use husk_tests::process::{is_alive, namespaces};
use k8s_cri::v1::NamespaceMode;

in_both_modes!(
    the_containers_see_each_other,
    the_first_process_reaps_orphans,
    the_end_of_one_container_leaves_the_others,
    what_a_stopped_container_left_in_the_background_ends_with_it,
);

fn pod<'a>(cri: &'a Cri<'a>, mode: Mode) -> Pod<'a> {
    let shared = NamespaceMode::Pod.into();
    cri.pod(mode)
        .namespaces(|options| options.pid = shared)
        .run()
}

fn the_containers_see_each_other(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode);
    let app = pod.container("app", &["sleep", "31415926"]).start();
    let sidecar = pod.sleeper("sidecar");
    assert_eq!(
        namespaces(app.pid())["pid"],
        namespaces(sidecar.pid())["pid"]
    );
    assert!(sidecar.sh("ps").contains("sleep 31415926"));
    // pid 1 is neither of them.
    assert_ne!(
        app.sh("cat /proc/1/cmdline | tr '\\0' ' '").trim(),
        "sleep 31415926"
    );
}

fn the_first_process_reaps_orphans(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode);
    let app = pod.sleeper("app");
    for _ in 0..20 {
        // The inner shell ends first, so its child becomes pid 1's.
        let _ = app.sh("sh -c 'sleep 0.01 &'");
    }
    until("no zombie is left", || {
        app.sh("grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null || true")
            .is_empty()
    });
}

fn the_end_of_one_container_leaves_the_others(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode);
    let (short, long) = (
        pod.container("short", &["sleep", "0.2"]).start(),
        pod.sleeper("long"),
    );
    assert_eq!(short.until_exited().exit_code, 0);
    short.remove();
    assert_eq!(long.sh("echo alive"), "alive");
    let killed = pod.sleeper("killed");
    killed.stop(0);
    assert_eq!(killed.status().exit_code, 137);
    killed.remove();
    assert_eq!(long.sh("echo alive"), "alive");
}

fn what_a_stopped_container_left_in_the_background_ends_with_it(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode);
    let neighbour = pod.sleeper("neighbour");
    let script =
        "setsid sleep 31415927 & trap 'exit 0' TERM; touch /ready; while :; do sleep 0.1; done";
    let messy = pod.container("messy", &["sh", "-c", script]).start();
    until("the background process runs", || {
        messy.exec(&["test", "-e", "/ready"]).code == 0
    });
    let pid = messy.pid();
    messy.stop(10);
    messy.remove();
    assert!(!is_alive(pid));
    until("the background process has ended", || {
        !neighbour.sh("ps").contains("sleep 31415927")
    });
    assert_eq!(neighbour.sh("echo alive"), "alive");
}
