//! CVE-2025-23266: what an image has in its environment, such as `LD_PRELOAD`, must not reach a hook
//! that runs as root with the node's files.
use std::fs;

use husk_tests::containerd::Containerd;
use serde_json::json;

#[test]
fn a_hook_sees_nothing_of_the_images_environment() {
    let containerd = Containerd::of_the_suite();
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let container = containerd.ctr().container();
    let folder = container.folder();
    let container = container.spec(&["true"], |spec| {
        spec["process"]["env"] = json!([
            "PATH=/bin",
            "LD_PRELOAD=./evil.so",
            "LD_LIBRARY_PATH=/",
            "IFS=/"
        ]);
        for kind in kinds {
            let script = format!("cat /proc/self/environ > {}/{kind}", folder.display());
            spec["hooks"][kind] = json!([
                {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["GIVEN=yes"]},
            ]);
        }
    });
    let _ = container.run(&[]).ok();
    for kind in kinds {
        let environment = fs::read_to_string(folder.join(kind)).unwrap();
        let entries: Vec<&str> = environment
            .split('\0')
            .filter(|entry| !entry.is_empty() && !entry.starts_with("PWD="))
            .collect();
        assert_eq!(entries, ["GIVEN=yes"], "{kind}");
    }
}
