//! A handler's configuration decides whose namespaces the containers use.
use std::fs;

use husk_tests::cgroup;
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use husk_tests::process::namespaces;
use k8s_cri::v1::{Capability, NamespaceMode};

in_both_modes!(
    network_container_means_no_localhost_between_containers,
    uts_container_means_a_host_name_each,
    ipc_container_means_shared_memory_each,
    cgroup_pod_means_the_pods_cgroup_is_the_root,
    time_pod_means_clocks_of_its_own,
    pid_pod_means_shared_processes_without_the_pod_asking,
    a_group_shares_and_leaves_the_rest_alone,
    a_target_is_joined_by_name,
    an_exec_is_where_its_container_is,
    the_ceiling_refuses_what_the_pod_asks_for,
);

fn network_container_means_no_localhost_between_containers(mode: Mode) {
    no_localhost_between_containers("network-container", mode);
}

#[test]
fn options_in_containerds_own_configuration_do_the_same() {
    no_localhost_between_containers("inline", Mode::Podsandbox);
}

fn no_localhost_between_containers(handler: &str, mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of(handler, mode).run();
    let serve = "mkdir /www; echo hello > /www/index.html; httpd -f -p 127.0.0.1:8080 -h /www";
    let app = pod.container("app", &["sh", "-c", serve]).start();
    let sidecar = pod.sleeper("sidecar");
    let fetch = ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
    until("the app hears itself", || {
        app.exec(&fetch).stdout == "hello\n"
    });
    let refused = sidecar.exec(&fetch);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("refused"), "{refused:?}");
    assert_eq!(sidecar.sh("ls /sys/class/net"), "lo");
    let (a, s) = (namespaces(app.pid()), namespaces(sidecar.pid()));
    assert_ne!(a["net"], s["net"]);
    assert_eq!((&a["ipc"], &a["uts"]), (&s["ipc"], &s["uts"]));
}

fn uts_container_means_a_host_name_each(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("uts-container", mode).run();
    let one = pod
        .container("one", &["sleep", "1000000"])
        .security(|security| {
            security.capabilities = Some(Capability {
                add_capabilities: vec!["SYS_ADMIN".into()],
                ..Default::default()
            });
        })
        .start();
    let two = pod.sleeper("two");
    assert_eq!(one.sh("hostname"), "the-pod");
    let _ = one.sh("hostname another");
    assert_eq!(one.sh("hostname"), "another");
    assert_eq!(two.sh("hostname"), "the-pod");
    assert_eq!(namespaces(one.pid())["net"], namespaces(two.pid())["net"]);
}

fn ipc_container_means_shared_memory_each(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("ipc-container", mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    let _ = one.sh("echo mine > /dev/shm/note");
    assert_ne!(two.exec(&["cat", "/dev/shm/note"]).code, 0);
    assert!(two.sh("grep ' /dev/shm ' /proc/mounts").contains("tmpfs"));
    assert_ne!(namespaces(one.pid())["ipc"], namespaces(two.pid())["ipc"]);
    assert_eq!(namespaces(one.pid())["net"], namespaces(two.pid())["net"]);
}

fn cgroup_pod_means_the_pods_cgroup_is_the_root(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("cgroup-pod", mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    assert_eq!(
        namespaces(one.pid())["cgroup"],
        namespaces(two.pid())["cgroup"]
    );
    assert_ne!(
        namespaces(one.pid())["cgroup"],
        namespaces(nix::unistd::getpid())["cgroup"]
    );
    // Seen from inside, the container's cgroup is a child of the root.
    let own = cgroup::of(one.pid(), "memory");
    let name = own.file_name().unwrap().to_string_lossy().into_owned();
    let seen = one.sh("cat /proc/1/cgroup");
    let line = if cgroup::is_v2() { "0::/" } else { ":memory:/" };
    assert!(
        seen.lines()
            .any(|seen| seen.ends_with(&format!("{line}{name}"))),
        "{seen}"
    );
    assert_eq!(own.parent().unwrap(), pod.cgroup("memory"));
    let folder = if cgroup::is_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/memory"
    };
    let listed = one.sh(&format!("ls -d {folder}/*/"));
    let other = cgroup::of(two.pid(), "memory");
    let other = other.file_name().unwrap().to_string_lossy();
    assert!(
        listed.contains(&name) && listed.contains(&*other),
        "{listed}"
    );
    assert_ne!(one.exec(&["mkdir", &format!("{folder}/new")]).code, 0);
}

fn time_pod_means_clocks_of_its_own(mode: Mode) {
    if !fs::exists("/proc/self/ns/time").unwrap() {
        eprintln!("skipped: this kernel has no time namespaces");
        return;
    }
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("time-pod", mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    assert_eq!(namespaces(one.pid())["time"], namespaces(two.pid())["time"]);
    let uptime = |text: &str| text.split('.').next().unwrap().parse::<u64>().unwrap();
    let ours = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    for container in [&one, &two] {
        let theirs = uptime(&container.sh("cat /proc/uptime"));
        let ahead = theirs - ours;
        assert!((604_800..604_860).contains(&ahead), "{ahead} s ahead");
    }
}

fn pid_pod_means_shared_processes_without_the_pod_asking(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("pid-pod", mode).run();
    let app = pod.container("app", &["sleep", "31415929"]).start();
    let sidecar = pod.sleeper("sidecar");
    assert!(sidecar.sh("ps").contains("sleep 31415929"));
    app.stop(0);
    assert_eq!(sidecar.sh("echo alive"), "alive");
}

fn a_group_shares_and_leaves_the_rest_alone(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("groups", mode).run();
    let [one, two, three, four] = ["one", "two", "three", "four"].map(|name| pod.sleeper(name));
    let ipc = |pid| namespaces(pid)["ipc"].clone();
    assert_eq!(ipc(one.pid()), ipc(two.pid()));
    assert_ne!(ipc(one.pid()), ipc(three.pid()));
    assert_ne!(ipc(one.pid()), ipc(four.pid()));
    assert_ne!(ipc(three.pid()), ipc(four.pid()));
    let _ = one.sh("echo ours > /dev/shm/note");
    assert_eq!(two.sh("cat /dev/shm/note"), "ours");
    for outsider in [&three, &four] {
        assert_ne!(outsider.exec(&["cat", "/dev/shm/note"]).code, 0);
    }
}

fn a_target_is_joined_by_name(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("target", mode).run();
    let app = pod.sleeper("app");
    let (debugger, other) = (pod.sleeper("debugger"), pod.sleeper("other"));
    let pid = |pid| namespaces(pid)["pid"].clone();
    assert_eq!(pid(app.pid()), pid(debugger.pid()));
    assert_ne!(pid(app.pid()), pid(other.pid()));
}

fn an_exec_is_where_its_container_is(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    for handler in [
        "network-container",
        "ipc-container",
        "pid-pod",
        "cgroup-pod",
    ] {
        let pod = cri.pod_of(handler, mode).run();
        let app = pod.sleeper("app");
        let its = namespaces(app.pid());
        for (kind, inode) in its {
            assert_eq!(
                app.sh(&format!("readlink /proc/self/ns/{kind}")),
                inode,
                "{handler}"
            );
        }
    }
}

fn the_ceiling_refuses_what_the_pod_asks_for(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let node = NamespaceMode::Node.into();
    let asked = cri
        .pod_of("ceiling", mode)
        .namespaces(|options| options.pid = node);
    // At the sandbox, in either mode with the same words: no container has to be tried.
    let error = asked.try_run().expect_err("the pod is above the ceiling");
    let words = "pid: containerd asked for NODE: above the ceiling POD";
    assert_says(&error, &["the sandbox of pod", words]);
    let pod = cri.pod_of("ceiling", mode).run();
    assert_eq!(pod.sleeper("app").sh("echo alive"), "alive");
}

#[track_caller]
fn assert_says(error: &tonic::Status, words: &[&str]) {
    for word in words {
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn a_plain_container_has_a_configuration_too() {
    let containerd = Containerd::of_the_suite();
    let config = containerd.lab().run.join(unique("config"));
    fs::write(&config, "[scopes]\nnetwork = \"node\"\n").unwrap();
    let container = containerd
        .ctr()
        .container()
        .flag(&format!("--runtime-config-path={}", config.display()));
    container.start(&["sleep", "1000000"]);
    let (its, ours) = (
        namespaces(container.pid()),
        namespaces(nix::unistd::getpid()),
    );
    assert_eq!(its["net"], ours["net"]);
    assert_ne!(its["uts"], ours["uts"]);
}
