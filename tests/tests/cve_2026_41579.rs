//! CVE-2026-41579: an image whose /dev is a link must not have the runtime remove and make files in
//! a directory of the node, whatever else the container asks for.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use serde_json::{Value, json};

/// What has sent a container by another road, once.
type Ask = fn(&mut Value);

#[test]
fn a_dev_that_is_a_link_leads_to_nothing_of_the_node() {
    let containerd = Containerd::of_the_suite();
    let asks: [Ask; 4] = [
        |_| {},
        |spec| spec["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}]}),
        |spec| spec["hooks"] = json!({"createContainer": [{"path": "/bin/true"}]}),
        |spec| spec["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]}),
    ];
    for (at, ask) in asks.into_iter().enumerate() {
        for mounted in [true, false] {
            let container = containerd.ctr().container();
            let folder = container.folder();
            let outside = folder.join("outside");
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("ptmx"), "the node's").unwrap();
            let container = container.spec(&["true"], |spec| {
                ask(spec);
                if !mounted {
                    let mounts = spec["mounts"].as_array_mut().unwrap();
                    mounts.retain(|mount| {
                        !mount["destination"].as_str().unwrap().starts_with("/dev")
                    });
                }
            });
            let dev = folder.join("rootfs/dev");
            fs::remove_dir(&dev).unwrap();
            symlink(&outside, &dev).unwrap();
            let _ = container.run(&[]);
            let left: Vec<_> = fs::read_dir(&outside)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["ptmx"], "asked {at}, mounted {mounted}");
            let text = fs::read_to_string(outside.join("ptmx")).unwrap();
            assert_eq!(text, "the node's", "asked {at}, mounted {mounted}");
        }
    }
}
