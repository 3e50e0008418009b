//! `husk inspect` shows any live pod as the kernel sees it, containerd's pods too.
use std::process::Command;

use husk_tests::command::run;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::lab::Lab;
use husk_tests::process::namespaces;
use nix::unistd::Pid;
use serde_json::Value;

in_both_modes!(namespaces_limits_and_processes_are_the_kernels);

fn inspected(pod: &str) -> Value {
    let husk = Lab::get().shim_dir.join("husk");
    let json = run(Command::new(husk).args(["inspect", "--json", pod])).ok();
    serde_json::from_str(&json).unwrap()
}

/// The inode in the text of a namespace's link, such as `net:[4026531840]`.
fn inode(pid: Pid, kind: &str) -> u64 {
    let link = &namespaces(pid)[kind];
    let digits = link.split(['[', ']']).nth(1).unwrap();
    digits.parse().unwrap()
}

fn namespaces_limits_and_processes_are_the_kernels(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .resources(|resources| resources.memory_limit_in_bytes = 256 << 20)
        .start();
    let sidecar = pod.sleeper("sidecar");

    let report = inspected(&pod.id);
    let containers = report["containers"].as_array().unwrap();
    let named = |name: &str| {
        let found = containers
            .iter()
            .find(|container| container["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {report:#}"))
    };
    for (name, container) in [("app", &app), ("sidecar", &sidecar)] {
        let shown = named(name);
        assert_eq!(shown["pid"], container.pid().as_raw(), "{shown:#}");
        for (kind, file) in [
            ("network", "net"),
            ("uts", "uts"),
            ("pid", "pid"),
            ("mount", "mnt"),
        ] {
            let usages = shown["namespaces"].as_array().unwrap();
            let usage = usages.iter().find(|usage| usage["kind"] == kind).unwrap();
            assert_eq!(usage["inode"], inode(container.pid(), file), "{usage:#}");
            let shared = kind == "network" || kind == "uts";
            assert_eq!(usage["actual"], if shared { "POD" } else { "CONTAINER" });
            let with = usage["with"].as_array().unwrap();
            assert_eq!(!with.is_empty(), shared, "{usage:#}");
        }
    }
    let cgroup = named("app")["cgroup"].to_string();
    assert!(cgroup.contains(&(256u64 << 20).to_string()), "{cgroup}");
}
