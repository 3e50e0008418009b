//! User namespaces, as containerd's client asks for them. What is in one is tested in
//! `crates/sandbox/tests/user_namespaces.rs`.
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use husk_tests::containerd::Containerd;

const HOST: u32 = 100_000;

#[test]
fn a_container_of_an_image_runs_and_executes_in_one() {
    let containerd = Containerd::of_the_suite();
    let map = format!("0:{HOST}:65536");
    let container = containerd
        .ctr()
        .container()
        .flag("--uidmap")
        .flag(&map)
        .flag("--gidmap")
        .flag(&map);
    container.start(&["sleep", "1000000"]);
    let pid = container.pid();
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(owner, HOST);
    let said = container
        .exec(&["sh", "-c", "id -u; stat -c %u /bin/busybox"])
        .ok();
    assert_eq!(said, "0\n0\n", "the image's files are remapped");
    let _ = container.task(&["pause"]).ok();
    let _ = container.task(&["resume"]).ok();
}

#[test]
fn a_spec_s_mappings_are_taken() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let ids = serde_json::json!([{"containerID": 0, "hostID": HOST, "size": 65536}]);
    let container = container.spec(&["sh", "-c", "id -u; cat /proc/self/uid_map"], |spec| {
        spec["linux"]["uidMappings"] = ids.clone();
        spec["linux"]["gidMappings"] = ids;
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(serde_json::json!({"type": "user"}));
    });
    // Whoever writes the spec sees to the owner of the files.
    chown(container.folder().join("rootfs"), Some(HOST), Some(HOST)).unwrap();
    let said = container.run(&[]).ok();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536"]);
}
