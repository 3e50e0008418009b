//! An application and its sidecar: 256 MiB and 128 MiB, one network, one memory, two file systems.
use husk_tests::cgroup;
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process::namespaces;

in_both_modes!(an_app_and_a_sidecar_are_one_machine_with_two_budgets);

fn an_app_and_a_sidecar_are_one_machine_with_two_budgets(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let serve = "mkdir /www; echo from-the-app > /www/index.html; httpd -f -p 8080 -h /www";
    let app = pod
        .container("app", &["sh", "-c", serve])
        .resources(|resources| resources.memory_limit_in_bytes = 256 << 20)
        .start();
    let sidecar = pod
        .container("sidecar", &["sleep", "1000000"])
        .resources(|resources| resources.memory_limit_in_bytes = 128 << 20)
        .start();

    let (a, s) = (namespaces(app.pid()), namespaces(sidecar.pid()));
    for kind in ["net", "uts", "ipc"] {
        assert_eq!(a[kind], s[kind], "{kind}");
    }
    for kind in ["mnt", "pid"] {
        assert_ne!(a[kind], s[kind], "{kind}");
    }

    let fetch = ["wget", "-q", "-O", "-", "http://localhost:8080/"];
    until("the app answers", || {
        sidecar.exec(&fetch).stdout == "from-the-app\n"
    });
    let _ = app.sh("echo in memory > /dev/shm/note");
    assert_eq!(sidecar.sh("cat /dev/shm/note"), "in memory");
    let _ = app.sh("echo mine > /tmp/mine");
    assert_ne!(sidecar.exec(&["cat", "/tmp/mine"]).code, 0);

    assert_eq!(cgroup::memory_limit(app.pid()), (256 << 20).to_string());
    assert_eq!(cgroup::memory_limit(sidecar.pid()), (128 << 20).to_string());
    for container in [&app, &sidecar] {
        let cgroup = cgroup::of(container.pid(), "memory");
        assert_eq!(cgroup.parent().unwrap(), pod.cgroup("memory"));
    }
}
