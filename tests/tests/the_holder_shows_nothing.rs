//! The first process of a pod's pid namespace, which is husk's own where the shim makes the sandbox,
//! shows its neighbours nothing of the node.
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Cri, Mode, Pod};
use husk_tests::process;
use k8s_cri::v1::{Capability, NamespaceMode};

fn pod<'a>(cri: &'a Cri<'a>) -> Pod<'a> {
    let shared = NamespaceMode::Pod.into();
    cri.pod(Mode::SandboxApi)
        .namespaces(|options| options.pid = shared)
        .run()
}

#[test]
fn its_command_line_names_nothing_of_the_node() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri);
    let app = pod.sleeper("app");
    assert_eq!(app.sh("tr '\\0' ' ' < /proc/1/cmdline").trim(), "husk");
}

#[test]
fn who_may_trace_it_finds_nothing_of_the_node() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri);
    let spy = pod
        .container("spy", &["sleep", "1000000"])
        .security(|security| {
            security.capabilities = Some(Capability {
                add_capabilities: vec!["SYS_PTRACE".into()],
                ..Default::default()
            });
        })
        .start();
    assert_eq!(spy.sh("tr -d '\\0' < /proc/1/environ"), "");
    assert_eq!(spy.sh("ls -A /proc/1/root/ /proc/1/cwd/ | grep -v :"), "");
    // Both ends of a pipe.
    assert_eq!(
        spy.sh("for fd in /proc/1/fd/*; do readlink $fd; done | sed s/:.*//"),
        "pipe\npipe"
    );
    let status = spy.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000");
        assert!(status.contains(&none), "{status}");
    }
    assert!(status.contains("Seccomp:\t1"), "{status}");
    // Its memory is that of a process that was told nothing: neither the pod, nor containerd.
    let memory = "grep -E 'heap|stack' /proc/1/maps | while IFS='- ' read start end rest; do
        dd if=/proc/1/mem bs=4096 skip=$((0x$start / 4096)) count=$(((0x$end - 0x$start) / 4096)) 2>/dev/null
    done > /tmp/memory; wc -c < /tmp/memory; grep -a -c -e containerd.sock -e 'XDG\\|PROXY' /tmp/memory; true";
    let found = spy.sh(memory);
    let (size, lines) = found.split_once('\n').unwrap();
    assert!(size.trim().parse::<u64>().unwrap() > 0, "{found}");
    assert_eq!(lines.trim(), "0", "{found}");
}

#[test]
fn no_process_of_the_shim_has_the_environment_of_containerd() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri);
    let _app = pod.sleeper("app");
    let shims = process::shim_processes(&pod.ids());
    assert!(shims.len() >= 2, "the daemon and the zygote: {shims:?}");
    for pid in shims {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let names: Vec<&str> = environment
            .split('\0')
            .filter_map(|entry| entry.split_once('=').map(|(name, _)| name))
            .collect();
        assert!(
            names.is_empty() || names == ["PATH"],
            "process {pid} has {names:?}"
        );
    }
}
