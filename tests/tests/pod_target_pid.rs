//! A container that joins the pid namespace of another (`kubectl debug --target`).
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process::namespaces;
use k8s_cri::v1::NamespaceMode;

in_both_modes!(
    it_sees_its_target_and_its_end_does_no_harm,
    the_end_of_the_target_is_its_end_too,
);

fn it_sees_its_target_and_its_end_does_no_harm(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.container("app", &["sleep", "31415928"]).start();
    let other = pod.sleeper("other");
    let debugger = pod
        .container("debugger", &["sh", "-c", "sleep 1000000 & wait"])
        .namespaces(|options| {
            options.pid = NamespaceMode::Target.into();
            options.target_id.clone_from(&app.id);
        })
        .start();
    assert_eq!(
        namespaces(debugger.pid())["pid"],
        namespaces(app.pid())["pid"]
    );
    assert_ne!(
        namespaces(debugger.pid())["mnt"],
        namespaces(app.pid())["mnt"]
    );
    assert_ne!(namespaces(other.pid())["pid"], namespaces(app.pid())["pid"]);
    assert_eq!(
        debugger.sh("cat /proc/1/cmdline | tr '\\0' ' '"),
        "sleep 31415928"
    );
    debugger.stop(0);
    debugger.remove();
    assert_eq!(app.sh("echo alive"), "alive");
}

fn the_end_of_the_target_is_its_end_too(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    let debugger = pod
        .container("debugger", &["sleep", "1000000"])
        .namespaces(|options| {
            options.pid = NamespaceMode::Target.into();
            options.target_id.clone_from(&app.id);
        })
        .start();
    app.stop(0);
    assert_eq!(debugger.until_exited().exit_code, 137);
}
