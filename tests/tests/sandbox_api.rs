//! `sandboxer = "shim"`: the shim makes the sandbox, without a pause container.
use std::fs;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Mode, Pod};
use husk_tests::process::{self, namespaces};
use k8s_cri::v1::NamespaceMode;

/// What the shim started that is not the shim itself, by pid.
fn started(pod: &Pod<'_>) -> Vec<nix::unistd::Pid> {
    let shims = process::shims(&pod.ids());
    let own = process::shim_processes(&pod.ids());
    let all = shims.into_iter().flat_map(process::descendants);
    all.filter(|pid| !own.contains(pid)).collect()
}

#[test]
fn no_process_and_no_container_stands_for_the_sandbox() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::SandboxApi).run();
    assert!(pod.is_ready());
    let pids = started(&pod)
        .into_iter()
        .map(process::cmdline)
        .collect::<Vec<_>>();
    assert!(pids.is_empty(), "{pids:?}");
    let tasks = containerd.ctr_command_of("k8s.io", &["task", "list"]).ok();
    assert!(!tasks.contains(&pod.id), "{tasks}");
    for entry in fs::read_to_string(pod.cgroup("memory").join("cgroup.procs")).into_iter() {
        assert_eq!(entry, "");
    }
}

#[test]
fn a_shared_pid_namespace_has_a_holder_that_is_its_first_process() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let shared = NamespaceMode::Pod.into();
    let pod = cri
        .pod(Mode::SandboxApi)
        .namespaces(|options| options.pid = shared)
        .run();
    let app = pod.sleeper("app");
    let status = app.sh("cat /proc/1/status");
    assert!(status.lines().any(|line| line == "Pid:\t1"), "{status}");
    assert_ne!(
        app.sh("cat /proc/1/cmdline").replace('\0', " "),
        "sh -c trap 'exit 0' TERM; sleep 1000000 & wait "
    );
    // It holds nothing but the namespace: not the shim's files, not its memory.
    let holder = process::all().into_iter().find(|pid| {
        process::status(*pid)
            .get("NSpid")
            .is_some_and(|pids| pids.ends_with("\t1"))
            && fs::read_link(format!("/proc/{pid}/ns/pid"))
                .is_ok_and(|link| link.to_string_lossy() == namespaces(app.pid())["pid"])
    });
    let holder = holder.expect("a holder");
    let held = descriptors(holder);
    let shims: Vec<String> = process::shim_processes(&pod.ids())
        .into_iter()
        .filter(|pid| *pid != holder)
        .flat_map(descriptors)
        .collect();
    for target in held {
        // A pipe of its own is what it sleeps on.
        let own_pipe = target.starts_with("pipe:") && !shims.contains(&target);
        assert!(
            own_pipe || target == "/dev/null",
            "the holder holds {target}"
        );
    }
}

fn descriptors(pid: nix::unistd::Pid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_shim_makes_the_files_that_a_pod_expects() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::SandboxApi).run();
    let app = pod.sleeper("app");
    assert_eq!(app.sh("cat /etc/hostname"), "the-pod");
    assert!(app.sh("cat /etc/hosts").contains("localhost"));
    assert!(
        app.sh("cat /etc/resolv.conf")
            .contains("nameserver 10.96.0.10")
    );
    let shm = app.sh("grep ' /dev/shm ' /proc/mounts");
    // As CRI's containers have it with runc: see pod_dev_shm.rs.
    for word in ["tmpfs", "rw,relatime", "size=65536k"] {
        assert!(shm.contains(word), "{shm}");
    }
}

#[test]
fn the_end_of_a_container_does_not_end_the_pod() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::SandboxApi).run();
    for round in 0..3 {
        let app = pod.container(&format!("app-{round}"), &["true"]).start();
        assert_eq!(app.until_exited().exit_code, 0);
        app.remove();
        assert!(pod.is_ready(), "after round {round}");
    }
}

#[test]
fn stopping_ends_the_containers_and_may_be_repeated() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::SandboxApi).run();
    let app = pod.sleeper("app");
    let init = app.pid();
    pod.stop();
    assert!(!process::is_alive(init));
    assert!(!pod.is_ready());
    pod.stop();
    assert!(!pod.is_ready());
    let refused = pod
        .container("late", &["true"])
        .try_create()
        .map(|app| app.try_start());
    assert!(
        !matches!(refused, Ok(Ok(()))),
        "a container started in a stopped pod"
    );
}

#[test]
fn the_shims_death_is_seen_and_cleaned_up() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::SandboxApi).run();
    let app = pod.sleeper("app");
    let init = app.pid();
    for pid in process::shims(&pod.ids()) {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
    }
    until("the pod is not ready", || !pod.is_ready());
    until("its container has ended", || !process::is_alive(init));
}

#[test]
fn the_network_namespace_goes_with_the_pod() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::SandboxApi).run();
    let (status, _) = pod.status().unwrap();
    let address = status.network.unwrap().ip;
    let app = pod.sleeper("app");
    assert!(app.sh("ip address show dev eth0").contains(&address));
    let inode = namespaces(app.pid())["net"].clone();
    pod.stop();
    until("nobody is in the pod's network namespace", || {
        !process::all().into_iter().any(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|link| link.to_string_lossy() == inode)
        })
    });
}
