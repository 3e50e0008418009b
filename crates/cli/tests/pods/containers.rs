//! The order in which containers run, and whether they run again.
use crate::node::{Node, lines_of, stderr, stdout};

crate::under_each_shim!(
    init_containers_run_one_by_one,
    a_failed_init_container_ends_the_pod,
    sidecars_run_beside_and_end_last,
    on_failure_starts_again,
    commands_and_environment,
);

fn init_containers_run_one_by_one(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  volumes: [{name: v, emptyDir: {}}]\n  initContainers:\n\
         \x20 - {name: first, image: ROOTFS, command: [sh, -c, 'sleep 0.3; echo 1 >> /v/f'], \
         volumeMounts: [{name: v, mountPath: /v}]}\n\
         \x20 - {name: second, image: ROOTFS, command: [sh, -c, 'echo 2 >> /v/f'], volumeMounts: \
         [{name: v, mountPath: /v}]}\n\
         \x20 containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [cat, /v/f], volumeMounts: [{name: v, mountPath: \
         /v}]}\n",
    );
    assert_eq!(lines_of(&output, "a"), ["1", "2"], "{}", stderr(&output));
    node.assert_nothing_left();
}

fn a_failed_init_container_ends_the_pod(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n\
         \x20 initContainers: [{name: first, image: ROOTFS, command: [sh, -c, 'exit 4']}]\n\
         \x20 containers: [{name: a, image: ROOTFS, command: [echo, never]}]\n",
    );
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(4), "")
    );
    node.assert_nothing_left();
}

fn sidecars_run_beside_and_end_last(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  terminationGracePeriodSeconds: 10\n\
         \x20 initContainers: [{name: side, restartPolicy: Always, image: ROOTFS, command: [sh, -c, \
         'trap \"echo side over; exit 0\" TERM; echo side on; while true; do sleep 0.1; done']}]\n\
         \x20 containers: [{name: a, image: ROOTFS, command: [sh, -c, 'sleep 1; echo a over']}]\n",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let at = |text: &str, wanted: &str| text.find(wanted).unwrap_or_else(|| panic!("{text}"));
    assert!(at(&text, "side on") < at(&text, "a over"), "{text}");
    assert!(at(&text, "a over") < at(&text, "side over"), "{text}");
    node.assert_nothing_left();
}

/// Takes Kubernetes' first delay, 10 s.
fn on_failure_starts_again(node: &Node) {
    let output = node.run(
        "  restartPolicy: OnFailure\n  volumes: [{name: v, emptyDir: {}}]\n\
         \x20 containers: [{name: a, image: ROOTFS, volumeMounts: [{name: v, mountPath: /v}], \
         command: [sh, -c, 'ls /again 2>/dev/null; touch /again; echo x >> /v/f; wc -l < /v/f; \
         test $(wc -l < /v/f) = 2']}]\n",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    // The volume stays, the container's own root is new.
    assert_eq!(lines_of(&output, "a"), ["1", "2"]);
    assert!(
        stderr(&output).contains("a | starts again in 10 s"),
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn commands_and_environment(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - name: a\n    image: ROOTFS\n    workingDir: /tmp\n    command: [sh, -c]\n    args: \
         ['pwd; echo $GREETING $(WHO) $0', '$(WHO)']\n    env:\n\
         \x20   - {name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n\
         \x20   - {name: GREETING, value: 'hello $(WHO)'}\n",
    );
    assert_eq!(
        lines_of(&output, "a"),
        ["/tmp", "hello test test test"],
        "{}",
        stderr(&output)
    );
}
