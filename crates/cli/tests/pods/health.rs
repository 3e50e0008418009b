//! Probes, hooks, and what comes from objects of the same file.

use crate::node::{Node, lines_of, stderr};

crate::under_each_shim!(
    a_container_that_is_not_well_is_stopped,
    probes_ask_in_the_pod_s_network,
    hooks_run_after_the_start_and_before_the_stop,
    a_hook_that_fails_stops_its_container,
    objects_become_files_and_variables,
    a_sub_path_is_writable_for_the_user,
    an_input_stays_open,
    limits_of_zero_limit_nothing,
    limits_may_be_tiny_and_beyond_any_machine,
    a_grace_period_beyond_all_time_ends_with_the_container,
);

fn a_container_that_is_not_well_is_stopped(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: a\n    \
         image: ROOTFS\n    command: [sh, -c, 'touch /tmp/well; sleep 2; rm /tmp/well; sleep 100']\n    \
         livenessProbe: {exec: {command: [cat, /tmp/well]}, periodSeconds: 1, failureThreshold: \
         2}\n    readinessProbe: {exec: {command: ['true']}, periodSeconds: 1}\n",
    );
    let said = stderr(&output);
    for part in [
        "is ready",
        "is stopped: its liveness probe failed 2 times: `cat /tmp/well`",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!output.status.success(), "{said}");
    node.assert_nothing_left();
}

fn probes_ask_in_the_pod_s_network(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n  - name: a\n    image: ROOTFS\n    ports: \
         [{name: web, containerPort: 8080}]\n    command: [sh, -c, 'mkdir /tmp/w; echo yes > \
         /tmp/w/there; httpd -f -p 8080 -h /tmp/w & sleep 4; kill $!; sleep 100']\n    \
         startupProbe: {httpGet: {path: there, port: web}, periodSeconds: 1}\n    livenessProbe: \
         {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1, \
         terminationGracePeriodSeconds: 1}\n    readinessProbe: {httpGet: {path: /missing, port: \
         8080}, periodSeconds: 1, failureThreshold: 1}\n",
    );
    let said = stderr(&output);
    assert!(
        said.contains("its liveness probe failed 1 times: 127.0.0.1:8080: Connection refused"),
        "{said}"
    );
    // A page that is not there never makes it ready.
    assert!(!said.contains("is ready"), "{said}");
    node.assert_nothing_left();
}

fn hooks_run_after_the_start_and_before_the_stop(node: &Node) {
    let output = node.run(&format!(
        "  restartPolicy: Never\n  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n  \
         terminationGracePeriodSeconds: 20\n  containers:\n  - name: a\n    image: ROOTFS\n    \
         command: [sh, -c, 'trap \"cat /v/order; exit 0\" TERM; while true; do sleep 0.1; done']\n    \
         volumeMounts: [{{name: v, mountPath: /v}}]\n    lifecycle:\n      postStart: {{exec: \
         {{command: [sh, -c, 'echo after the start >> /v/order']}}}}\n      preStop: {{exec: {{command: \
         [sh, -c, 'echo before the stop >> /v/order']}}}}\n    livenessProbe: {{exec: {{command: \
         ['false']}}, initialDelaySeconds: 1, failureThreshold: 1}}\n",
        node.scratch().display()
    ));
    assert_eq!(
        lines_of(&output, "a"),
        ["after the start", "before the stop"],
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn a_hook_that_fails_stops_its_container(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: a\n    \
         image: ROOTFS\n    command: [sleep, '100']\n    lifecycle: {postStart: {exec: {command: \
         ['false']}}}\n",
    );
    let said = stderr(&output);
    assert!(
        said.contains("its postStart hook failed: `false` exited with 1"),
        "{said}"
    );
    node.assert_nothing_left();
}

fn objects_become_files_and_variables(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  securityContext: {runAsUser: 7, fsGroup: 55}\n  volumes:\n  - {name: \
         c, configMap: {name: words, items: [{key: k, path: deep/file}]}}\n  - {name: s, secret: \
         {secretName: keys, defaultMode: 0400}}\n  containers:\n  - name: a\n    image: ROOTFS\n    \
         envFrom: [{prefix: P_, configMapRef: {name: words}}]\n    env: [{name: KEY, valueFrom: \
         {secretKeyRef: {name: keys, key: key}}}]\n    volumeMounts: [{name: c, mountPath: /c}, {name: \
         s, mountPath: /s}]\n    command: [sh, -c, 'exec 2>&1; echo $P_k $KEY; cat /c/deep/file; echo; cat \
         /s/key; echo; stat -c \"%a %g\" /s/key; stat -f -c %T /s; touch /c/x']\n---\napiVersion: \
         v1\nkind: ConfigMap\nmetadata: {name: words}\ndata: {k: value}\n---\napiVersion: v1\nkind: \
         Secret\nmetadata: {name: keys}\ndata: {key: a2V5}\n",
    );
    assert_eq!(
        lines_of(&output, "a"),
        [
            "value key",
            "value",
            "key",
            "440 55",
            "tmpfs",
            "touch: /c/x: Read-only file system",
        ],
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn a_sub_path_is_writable_for_the_user(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  securityContext: {runAsUser: 1000, runAsGroup: 1000}\n  volumes: \
         [{name: v, emptyDir: {}}]\n  containers:\n  - name: a\n    image: ROOTFS\n    volumeMounts: \
         [{name: v, mountPath: /v, subPath: a/b}]\n    command: [sh, -c, 'echo mine > /v/f; cat \
         /v/f']\n",
    );
    assert_eq!(lines_of(&output, "a"), ["mine"], "{}", stderr(&output));
}

fn an_input_stays_open(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n  - {name: a, image: ROOTFS, stdin: true, command: [sh, \
         -c, 'exec 2>&1; timeout 1 cat; echo $?']}\n  - {name: b, image: ROOTFS, command: [sh, -c, 'timeout 1 cat; \
         echo $?']}\n",
    );
    // Ended by the signal of timeout(1), which the shell tells, and at once by the end of its input.
    assert_eq!(
        lines_of(&output, "a"),
        ["Terminated", "143"],
        "{}",
        stderr(&output)
    );
    assert_eq!(lines_of(&output, "b"), ["0"], "{}", stderr(&output));
    node.assert_nothing_left();
}

fn limits_of_zero_limit_nothing(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n  - {name: a, image: ROOTFS, resources: {limits: {cpu: \
         '0', memory: '0'}}, command: [echo, runs]}\n  - {name: b, image: ROOTFS, resources: {limits: \
         {cpu: 1m}}, command: [echo, runs]}\n",
    );
    for name in ["a", "b"] {
        assert_eq!(lines_of(&output, name), ["runs"], "{}", stderr(&output));
    }
}

fn limits_may_be_tiny_and_beyond_any_machine(node: &Node) {
    for cpu in ["1m", "9P"] {
        let output = node.run(&format!(
            "  restartPolicy: Never\n  containers: [{{name: a, image: ROOTFS, resources: {{limits: \
             {{cpu: {cpu}}}}}, command: [echo, runs]}}]\n"
        ));
        assert_eq!(lines_of(&output, "a"), ["runs"], "{}", stderr(&output));
        node.assert_nothing_left();
    }
}

fn a_grace_period_beyond_all_time_ends_with_the_container(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  terminationGracePeriodSeconds: 9223372036854775807\n  containers:\n  \
         - {name: a, image: ROOTFS, livenessProbe: {periodSeconds: 1, failureThreshold: 1, exec: \
         {command: ['false']}}, command: [sh, -c, 'trap \"echo ends; exit 0\" TERM; while :; do sleep \
         0.1; done']}\n",
    );
    assert_eq!(lines_of(&output, "a"), ["ends"], "{}", stderr(&output));
    node.assert_nothing_left();
}
