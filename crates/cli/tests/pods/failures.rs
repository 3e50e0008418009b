//! What cannot be run: a clear error, and nothing left behind.
use crate::node::{Node, stderr};

crate::under_each_shim!(
    a_missing_rootfs,
    a_missing_executable,
    a_missing_host_path,
    an_unsupported_field,
    a_name_twice,
    nothing_to_run,
    one_bad_container_takes_the_pod,
);

fn refused(node: &Node, spec: &str) -> String {
    let output = node.run(spec);
    assert!(!output.status.success());
    node.assert_nothing_left();
    stderr(&output)
}

fn a_missing_rootfs(node: &Node) {
    let said = refused(
        node,
        "  containers: [{name: a, image: 'rootfs:/no/such', command: ['true']}]\n",
    );
    assert!(
        said.contains("container a") && said.contains("/no/such"),
        "{said}"
    );
}

fn a_missing_executable(node: &Node) {
    let said = refused(
        node,
        "  containers: [{name: a, image: ROOTFS, command: [/no/such]}]\n",
    );
    assert!(
        said.contains("container a") && said.contains("/no/such"),
        "{said}"
    );
}

fn a_missing_host_path(node: &Node) {
    let said = refused(
        node,
        "  volumes: [{name: v, hostPath: {path: /no/such, type: Directory}}]\n  containers: \
         [{name: a, image: ROOTFS, command: ['true']}]\n",
    );
    assert!(said.contains("volume v: hostPath /no/such"), "{said}");
}

fn an_unsupported_field(node: &Node) {
    let said = refused(
        node,
        "  activeDeadlineSeconds: 5\n  containers: [{name: a, image: ROOTFS, command: ['true'], \
         comand: x, livenessProbe: {grpc: {port: 80}}}]\n",
    );
    for part in [
        "spec.activeDeadlineSeconds: not supported by husk run",
        "spec.containers[0].comand: no such field in a Pod (v1); is `command` meant?",
        "spec.containers[0].livenessProbe.grpc: not supported",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

fn a_name_twice(node: &Node) {
    let spec = "  containers: [{name: a, image: ROOTFS, command: [sleep, '100']}]\n";
    node.detach(spec);
    let output = node.run(spec);
    assert!(
        stderr(&output).contains("there is a pod `test` already"),
        "{}",
        stderr(&output)
    );
    assert!(node.stdout(&["ps"]).contains("a (running)"));
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
}

fn nothing_to_run(node: &Node) {
    let said = refused(node, "  containers: [{name: a, image: ROOTFS}]\n");
    assert!(said.contains("container a: nothing to run"), "{said}");
}

fn one_bad_container_takes_the_pod(node: &Node) {
    let said = refused(
        node,
        "  terminationGracePeriodSeconds: 1\n  containers:\n\
         \x20 - {name: good, image: ROOTFS, command: [sleep, '100']}\n\
         \x20 - {name: bad, image: ROOTFS, command: [/no/such]}\n",
    );
    assert!(said.contains("container bad"), "{said}");
}
