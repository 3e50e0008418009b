//! Devices: the rules of the device cgroup, and the node's devices for privileged containers.
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

/// Character devices that every container may use, major and minor: null, zero, full, tty,
/// random, urandom, console, ptmx, and all of pts.
const EVERY_CONTAINER: [(u64, Option<u64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (5, Some(0)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// In /dev, what a runtime makes itself.
const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".udev", "console"];

/// The device cgroup's rules: all, or those that every container needs.
pub(super) fn rules(all: bool) -> Value {
    if all {
        return json!([{"allow": true, "access": "rwm"}]);
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for (major, minor) in EVERY_CONTAINER {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let (Some(minor), Some(rule)) = (minor, rule.as_object_mut()) {
            rule.insert("minor".into(), minor.into());
        }
        rules.push(rule);
    }
    Value::Array(rules)
}

/// Every device in the node's /dev.
pub(super) fn of_the_node() -> io::Result<Value> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices)?;
    Ok(Value::Array(devices))
}

fn collect(directory: &Path, devices: &mut Vec<Value>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| OWN.contains(&name))
        {
            continue;
        }
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            collect(&entry.path(), devices)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            devices.push(json!({
                "path": entry.path(),
                "type": if kind.is_block_device() { "b" } else { "c" },
                "major": major(metadata.rdev()),
                "minor": minor(metadata.rdev()),
                "fileMode": metadata.mode() & 0o7777,
                "uid": metadata.uid(),
                "gid": metadata.gid(),
            }));
        }
    }
    Ok(())
}
