//! Bind mounts whose files belong to others in the container than on the node.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::process::Ended;
use serde_json::{Value, json};
use support::{Lab, run};

fn main() {
    run(&[
        ("owners_are_mapped_both_ways", owners_are_mapped_both_ways),
        (
            "the_mapping_of_the_user_namespace_is_taken_without_an_own",
            the_mapping_of_the_user_namespace_is_taken,
        ),
        (
            "what_cannot_be_mapped_is_named",
            what_cannot_be_mapped_is_named,
        ),
    ]);
}

/// A directory of the node with a file of user 1000 and group 2000.
fn volume(lab: &Lab) -> PathBuf {
    let dir = lab.run_dir().join(format!("volume{}", lab.next_id()));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "text").unwrap();
    chown(dir.join("file"), Some(1000), Some(2000)).unwrap();
    chown(&dir, Some(1000), Some(2000)).unwrap();
    dir
}

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn ids(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

fn owners_are_mapped_both_ways(lab: &Lab) {
    let dir = volume(lab);
    for options in [
        json!(["bind"]),
        json!(["rbind", "idmap"]),
        json!(["rbind", "ridmap"]),
    ] {
        let container = lab.create(|spec| {
            add_mount(
                spec,
                json!({
                    "destination": "/volume", "source": dir, "options": options,
                    "uidMappings": ids(1000, 0, 1), "gidMappings": ids(2000, 7, 1),
                }),
            );
            let script = "stat -c '%u %g' /volume/file; echo x > /volume/new";
            spec["process"]["args"] = json!(["sh", "-c", script]);
            spec["process"]["user"] = json!({"uid": 0, "gid": 7});
        });
        assert_eq!(container.run(), (Ended::Exited(0), "0 7\n".to_owned()));
        let new = fs::metadata(dir.join("new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (1000, 2000));
        fs::remove_file(dir.join("new")).unwrap();
    }
    // Attributes hold as well.
    let container = lab.create(|spec| {
        add_mount(
            spec,
            json!({
                "destination": "/volume", "source": dir, "options": ["bind", "ro"],
                "uidMappings": ids(1000, 0, 1), "gidMappings": ids(2000, 0, 1),
            }),
        );
        spec["process"]["args"] = json!(["sh", "-c", "echo x > /volume/new"]);
    });
    let (ended, output) = container.run();
    assert_eq!(ended, Ended::Exited(1));
    assert!(output.contains("Read-only file system"), "{output}");
    fs::remove_dir_all(dir).unwrap();
}

fn the_mapping_of_the_user_namespace_is_taken(lab: &Lab) {
    let dir = volume(lab);
    let container = lab.create(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        spec["linux"]["uidMappings"] = ids(0, 100_000, 65536);
        spec["linux"]["gidMappings"] = ids(0, 100_000, 65536);
        add_mount(
            spec,
            json!({
                "destination": "/tmp/volume", "source": dir, "options": ["bind", "idmap"],
            }),
        );
        let script = "stat -c '%u %g' /tmp/volume/file";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    assert_eq!(
        container.run(),
        (Ended::Exited(0), "1000 2000\n".to_owned())
    );
    fs::remove_dir_all(dir).unwrap();
}

fn what_cannot_be_mapped_is_named(lab: &Lab) {
    let refuse = |mount: Value| {
        let made = lab.try_create(|spec| add_mount(spec, mount));
        made.err().expect("it is refused")
    };
    let error = refuse(json!({
        "destination": "/volume", "source": "/proc", "options": ["bind"],
        "uidMappings": ids(0, 1, 1), "gidMappings": ids(0, 1, 1),
    }));
    assert_eq!(error.kind, JobErrorKind::Invalid);
    for part in ["/proc", "/volume", "proc ("] {
        assert!(error.message.contains(part), "no {part:?} in {error}");
    }
    let error = refuse(json!({
        "destination": "/volume", "type": "tmpfs", "source": "tmpfs",
        "uidMappings": ids(0, 1, 1), "gidMappings": ids(0, 1, 1),
    }));
    assert!(error.message.contains("only bind mounts"), "{error}");
    for (given, missing) in [
        ("uidMappings", "gidMappings"),
        ("gidMappings", "uidMappings"),
    ] {
        let error = refuse(json!({
            "destination": "/volume", "source": "/tmp", "options": ["bind"], given: ids(0, 1, 1),
        }));
        assert_eq!(error.kind, JobErrorKind::Invalid);
        assert!(error.message.contains(missing), "{error}");
    }
    let error = refuse(json!({
        "destination": "/volume", "source": "/tmp", "options": ["bind", "idmap"],
    }));
    assert!(error.message.contains("uidMappings"), "{error}");
}
