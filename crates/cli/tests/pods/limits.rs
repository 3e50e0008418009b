//! Limits of containers and of the pod.
use std::fs;
use std::path::PathBuf;

use crate::node::{Node, stderr};

crate::under_each_shim!(
    a_container_has_its_limits_below_the_pod_s,
    too_much_memory_is_told_from_other_ends,
);

/// A file of a cgroup, by its names in cgroup v1 and v2.
fn cgroup_file(controller: &str, cgroup: &str, v1: &str, v2: &str) -> String {
    let root = PathBuf::from("/sys/fs/cgroup");
    let file = if root.join("cgroup.controllers").exists() {
        root.join(cgroup).join(v2)
    } else {
        root.join(controller).join(cgroup).join(v1)
    };
    let text = fs::read_to_string(&file);
    text.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .trim()
        .to_owned()
}

fn a_container_has_its_limits_below_the_pod_s(node: &Node) {
    let id = node.detach(
        "  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sleep, '100'], resources: {limits: {memory: \
         64Mi, cpu: 500m}}}\n\
         \x20 - {name: b, image: ROOTFS, command: [sleep, '100'], resources: {limits: {memory: \
         32Mi, cpu: 250m}}}\n",
    );
    let memory = |cgroup: &str| {
        let cgroup = format!("husk/{id}{cgroup}");
        cgroup_file("memory", &cgroup, "memory.limit_in_bytes", "memory.max").parse::<u64>()
    };
    assert_eq!(memory("/a"), Ok(64 << 20));
    assert_eq!(memory("/b"), Ok(32 << 20));
    assert_eq!(memory(""), Ok(96 << 20));
    let cpu = |cgroup: &str| {
        let cgroup = format!("husk/{id}{cgroup}");
        let quota = cgroup_file("cpu", &cgroup, "cpu.cfs_quota_us", "cpu.max");
        quota.split(' ').next().unwrap().parse::<u64>()
    };
    assert_eq!(cpu("/a"), Ok(50_000));
    assert_eq!(cpu(""), Ok(75_000));
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
    assert!(
        !PathBuf::from("/sys/fs/cgroup/memory/husk")
            .join(&id)
            .exists()
    );
    assert!(!PathBuf::from("/sys/fs/cgroup/husk").join(&id).exists());
}

fn too_much_memory_is_told_from_other_ends(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'exec tail /dev/zero'], resources: \
         {limits: {memory: 16Mi}}}\n",
    );
    assert_eq!(output.status.code(), Some(137));
    let said = stderr(&output);
    assert!(
        said.contains("a | killed: it used more memory than its limit"),
        "{said}"
    );
}
