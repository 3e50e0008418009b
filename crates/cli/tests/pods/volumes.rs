//! Volumes.
use std::fs;
use std::os::unix::fs::symlink;

use crate::node::{Node, lines_of, stderr};

crate::under_each_shim!(
    containers_share_an_empty_dir_in_memory,
    host_paths_can_be_read_only,
    a_sub_path_stays_in_its_volume,
    fs_group_owns_empty_dirs,
);

fn containers_share_an_empty_dir_in_memory(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: \
         1Mi}}]\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, volumeMounts: [{name: v, mountPath: /dev/shm}], command: \
         [sh, -c, 'head -c 2000000 /dev/zero > /dev/shm/big || rm /dev/shm/big; echo shared > \
         /dev/shm/f; sleep 2']}\n\
         \x20 - {name: b, image: ROOTFS, volumeMounts: [{name: v, mountPath: /v}], command: [sh, \
         -c, 'for i in $(seq 100); do test -e /v/f && break; sleep 0.1; done; cat /v/f; ls /v; \
         stat -f -c %T /v']}\n",
    );
    assert_eq!(
        lines_of(&output, "b"),
        ["shared", "f", "tmpfs"],
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn host_paths_can_be_read_only(node: &Node) {
    fs::write(node.scratch().join("f"), "from the node\n").unwrap();
    let output = node.run(&format!(
        "  restartPolicy: Never\n  volumes: [{{name: v, hostPath: {{path: {}, type: \
         Directory}}}}]\n  containers:\n\
         \x20 - {{name: a, image: ROOTFS, volumeMounts: [{{name: v, mountPath: /ro, readOnly: \
         true}}, {{name: v, mountPath: /rw}}], command: [sh, -c, 'exec 2>&1; cat /ro/f; touch /ro/x; echo $?; \
         touch /rw/x; echo $?']}}\n",
        node.scratch().display()
    ));
    let lines = lines_of(&output, "a");
    assert_eq!(
        lines,
        [
            "from the node",
            "touch: /ro/x: Read-only file system",
            "1",
            "0"
        ],
        "{}",
        stderr(&output)
    );
    assert!(node.scratch().join("x").exists());
}

fn a_sub_path_stays_in_its_volume(node: &Node) {
    fs::create_dir(node.scratch().join("inside")).unwrap();
    fs::write(node.scratch().join("inside/f"), "inside\n").unwrap();
    symlink("/etc", node.scratch().join("outside")).unwrap();
    let spec = |sub_path: &str| {
        format!(
            "  restartPolicy: Never\n  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n  \
             containers:\n\
             \x20 - {{name: a, image: ROOTFS, volumeMounts: [{{name: v, mountPath: /v, subPath: \
             {sub_path}}}], command: [cat, /v/f]}}\n",
            node.scratch().display()
        )
    };
    assert_eq!(lines_of(&node.run(&spec("inside")), "a"), ["inside"]);
    let output = node.run(&spec("outside"));
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("volume v: subPath outside"),
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn fs_group_owns_empty_dirs(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  securityContext: {fsGroup: 77, runAsUser: 7}\n  volumes: \
         [{name: v, emptyDir: {}}]\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, volumeMounts: [{name: v, mountPath: /v}], command: [sh, -c, \
         'touch /v/f; stat -c %u:%g /v/f']}\n",
    );
    assert_eq!(lines_of(&output, "a"), ["7:77"], "{}", stderr(&output));
}
