//! Id-mapped mounts of a spec. More is in `crates/sandbox/tests/id_mapped_mounts.rs`.
use std::fs;
use std::os::unix::fs::chown;

use husk_tests::containerd::Containerd;
use serde_json::json;

#[test]
fn a_volume_is_seen_with_other_owners() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let volume = container.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    chown(&volume, Some(1234), Some(1234)).unwrap();
    let ids = json!([{"containerID": 1234, "hostID": 0, "size": 1}]);
    let container = container.spec(&["stat", "-c", "%u %g", "/volume"], |spec| {
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/volume", "source": volume, "options": ["rbind"],
            "uidMappings": ids, "gidMappings": ids,
        }));
    });
    assert_eq!(container.run(&[]).ok(), "0 0\n");
}
