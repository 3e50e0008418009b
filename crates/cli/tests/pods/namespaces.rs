//! Which namespaces the containers of a pod share.
use std::collections::BTreeMap;
use std::fs;

use crate::node::{Node, lines_of, stderr};

crate::under_each_shim!(
    a_pod_shares_network_ipc_and_uts,
    share_process_namespace,
    the_node_s_namespaces,
    containers_talk_over_localhost,
    hostname_and_hosts,
    pod_sysctls,
);

const KINDS: [&str; 5] = ["net", "ipc", "uts", "pid", "mnt"];

/// The namespaces of two containers with these further fields of the spec.
fn namespaces(node: &Node, spec: &str) -> [BTreeMap<String, String>; 2] {
    let output = node.run(&format!(
        "{spec}  restartPolicy: Never\n  containers:\n\
         \x20 - {{name: a, image: ROOTFS, command: [sh, -c, 'cd /proc/self/ns; for k in *; do echo \
         $k $(readlink $k); done; sleep 1']}}\n\
         \x20 - {{name: b, image: ROOTFS, command: [sh, -c, 'cd /proc/self/ns; for k in *; do echo \
         $k $(readlink $k); done; sleep 1']}}\n"
    ));
    assert!(output.status.success(), "{}", stderr(&output));
    ["a", "b"].map(|name| {
        let lines = lines_of(&output, name);
        let pair = |line: &String| {
            let (kind, namespace) = line.split_once(' ').unwrap();
            (kind.to_owned(), namespace.to_owned())
        };
        lines.iter().map(pair).collect()
    })
}

/// For each kind: `own`, `pod` (shared with the other container) or `node`.
fn scopes(node: &Node, spec: &str) -> Vec<&'static str> {
    let [a, b] = namespaces(node, spec);
    let scope = |kind: &str| {
        let nodes = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        if a[kind] == nodes.to_str().unwrap() {
            "node"
        } else if a[kind] == b[kind] {
            "pod"
        } else {
            "own"
        }
    };
    KINDS.map(scope).to_vec()
}

fn a_pod_shares_network_ipc_and_uts(node: &Node) {
    assert_eq!(scopes(node, ""), ["pod", "pod", "pod", "own", "own"]);
    node.assert_nothing_left();
}

fn share_process_namespace(node: &Node) {
    let scopes = scopes(node, "  shareProcessNamespace: true\n");
    assert_eq!(scopes, ["pod", "pod", "pod", "pod", "own"]);
    node.assert_nothing_left();
}

fn the_node_s_namespaces(node: &Node) {
    let scopes = scopes(
        node,
        "  hostNetwork: true\n  hostPID: true\n  hostIPC: true\n",
    );
    assert_eq!(scopes, ["node", "node", "node", "node", "own"]);
    node.assert_nothing_left();
}

fn containers_talk_over_localhost(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - {name: server, image: ROOTFS, command: [sh, -c, 'echo hello | timeout 20 nc -l -p \
         8080']}\n\
         \x20 - {name: client, image: ROOTFS, command: [sh, -c, 'for i in $(seq 50); do nc \
         127.0.0.1 8080 < /dev/null && break; sleep 0.1; done']}\n",
    );
    assert!(
        lines_of(&output, "client").contains(&"hello".to_owned()),
        "{}",
        stderr(&output)
    );
}

fn hostname_and_hosts(node: &Node) {
    let output = node.run(
        "  hostname: my-host\n  hostAliases: [{ip: 10.1.2.3, hostnames: [one, two]}]\n\
         \x20 dnsPolicy: None\n  dnsConfig: {nameservers: [10.9.8.7], searches: [a.b], options: \
         [{name: ndots, value: '3'}]}\n\
         \x20 restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'hostname; echo $HOSTNAME; cat \
         /etc/hostname; grep 10.1.2.3 /etc/hosts; cat /etc/resolv.conf']}\n",
    );
    let lines = lines_of(&output, "a");
    assert_eq!(
        lines[..4],
        ["my-host", "my-host", "my-host", "10.1.2.3 one two"],
        "{lines:?}"
    );
    let mut resolv_conf = lines[4..].to_vec();
    resolv_conf.sort();
    assert_eq!(
        resolv_conf,
        ["nameserver 10.9.8.7", "options ndots:3", "search a.b"]
    );
}

fn pod_sysctls(node: &Node) {
    let output = node.run(
        "  securityContext: {sysctls: [{name: net.ipv4.ip_forward, value: '1'}, {name: \
         kernel.shm_rmid_forced, value: '1'}]}\n  restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [cat, /proc/sys/net/ipv4/ip_forward, \
         /proc/sys/kernel/shm_rmid_forced]}\n",
    );
    assert_eq!(lines_of(&output, "a"), ["1", "1"], "{}", stderr(&output));
}
