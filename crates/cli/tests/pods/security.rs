//! What a container may do.
use crate::node::{Node, lines_of, stderr};

crate::under_each_shim!(
    users_and_groups,
    run_as_non_root_refuses_root,
    capabilities_and_privileges,
    a_read_only_root,
    masked_paths,
    system_calls_are_filtered,
    a_privileged_container,
);

fn run(node: &Node, security: &str, script: &str) -> Vec<String> {
    let output = node.run(&format!(
        "  restartPolicy: Never\n  securityContext: {{supplementalGroups: [88]}}\n  containers:\n\
         \x20 - {{name: a, image: ROOTFS, securityContext: {{{security}}}, command: [sh, -c, \
         '{script}']}}\n"
    ));
    assert!(output.status.success(), "{}", stderr(&output));
    lines_of(&output, "a")
}

fn users_and_groups(node: &Node) {
    let script = "id -u; id -g; id -G; echo $HOME";
    assert_eq!(
        run(node, "runAsUser: 7", script),
        ["7", "8", "8 9 88", "/me"]
    );
    assert_eq!(
        run(node, "runAsUser: 7, runAsGroup: 5", script)[..2],
        ["7", "5"]
    );
    assert_eq!(run(node, "", script)[..2], ["0", "0"]);
}

fn run_as_non_root_refuses_root(node: &Node) {
    let output = node.run(
        "  securityContext: {runAsNonRoot: true}\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: ['true']}\n",
    );
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("container a: runAsNonRoot is true"),
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn capabilities_and_privileges(node: &Node) {
    let script = "grep -e CapEff -e CapBnd -e NoNewPrivs /proc/self/status | tr -d \"\\\\t\"";
    let security = "allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_RAW]}";
    assert_eq!(
        run(node, security, script),
        [
            "CapEff:0000000000002000",
            "CapBnd:0000000000002000",
            "NoNewPrivs:1"
        ]
    );
    assert_eq!(
        run(node, "", script),
        [
            "CapEff:00000000a80425fb",
            "CapBnd:00000000a80425fb",
            "NoNewPrivs:0"
        ]
    );
}

fn a_read_only_root(node: &Node) {
    let lines = run(
        node,
        "readOnlyRootFilesystem: true",
        "touch /f 2>&1; echo $?",
    );
    assert_eq!(lines, ["touch: /f: Read-only file system", "1"]);
    assert_eq!(run(node, "", "touch /f 2>&1; echo $?"), ["0"]);
}

fn masked_paths(node: &Node) {
    let script =
        "exec 2>&1; cat /proc/keys | wc -c; touch /proc/sys/vm/swappiness; touch /sys/x; true";
    let lines = run(node, "", script);
    assert!(lines.contains(&"0".into()), "{lines:?}");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("Read-only file system"))
            .count(),
        2
    );
}

fn system_calls_are_filtered(node: &Node) {
    let script = "grep Seccomp: /proc/self/status | tr -d \"\\\\t\"; unshare -m true 2>/dev/null; \
                  echo $?";
    assert_eq!(run(node, "", script), ["Seccomp:2", "1"]);
    let unconfined = "seccompProfile: {type: Unconfined}";
    assert_eq!(run(node, unconfined, script)[0], "Seccomp:0");
}

fn a_privileged_container(node: &Node) {
    let lines = run(
        node,
        "privileged: true",
        "grep Seccomp: /proc/self/status | tr -d \"\\\\t\"; mount -t tmpfs none /tmp && echo \
         mounted; ls /dev/loop-control /dev/fuse 2>/dev/null | head -1",
    );
    assert_eq!(lines[..2], ["Seccomp:0", "mounted"]);
}
