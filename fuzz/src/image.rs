//! What `husk run` reads: layers of images, and manifests.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use husk_engine::manifest::{self, Pod, Volume};

/// Where the records of a tar archive have the checksum, and the name of the format.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: std::ops::Range<usize> = 257..262;
const RECORD: usize = 512;

/// A layer of an image. Whatever it holds, nothing beside the directory that it is unpacked to is
/// made, changed or removed.
pub fn layer(data: &[u8]) {
    unpack(data);
    // No mutation hits a checksum: what comes after it is only reached where it is right.
    let mut right = data.to_vec();
    if set_checksums(&mut right) {
        unpack(&right);
    }
}

fn unpack(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()) else {
        return;
    };
    let root = dir.path().join("root");
    for name in ["beside", "etc"] {
        fs::create_dir(dir.path().join(name)).expect("a directory can be made");
    }
    fs::write(dir.path().join("beside/file"), "untouched").expect("a file can be made");
    let before = beside(dir.path());
    let _ = husk_engine::image::unpack(data, &root);
    assert_eq!(beside(dir.path()), before);
}

/// What lies beside the directory `root`: the mode, the size, the owner and the links of each file.
fn beside(dir: &Path) -> BTreeMap<String, [u64; 5]> {
    let mut found = BTreeMap::new();
    for place in ["", "beside", "etc"] {
        let entries = fs::read_dir(dir.join(place)).expect("a directory can be read");
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let data = entry.metadata().expect("a file can be looked at");
            if name != "root" {
                let mode = data.mode().into();
                let owner = u64::from(data.uid()) << 32 | u64::from(data.gid());
                let line = [mode, data.size(), owner, data.nlink(), data.ino()];
                found.insert(format!("{place}/{name}"), line);
            }
        }
    }
    found
}

/// Sets the checksum of all that looks like a header; whether that changed anything.
fn set_checksums(tar: &mut [u8]) -> bool {
    let before = tar.to_vec();
    for header in tar.chunks_exact_mut(RECORD) {
        if &header[MAGIC] == b"ustar" {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    before != tar
}

/// A file for `husk run`.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match manifest::parse("pod.yaml", text, "uid") {
        Ok(pod) => check(&pod),
        // Every problem has a place.
        Err(error) => assert!(error.to_string().starts_with("pod.yaml"), "{error}"),
    }
}

/// What the rest of the engine relies on.
fn check(pod: &Pod) {
    assert!(!pod.name.is_empty() && !pod.namespace.is_empty());
    // They become names of directories.
    assert!(!pod.name.contains('/') && !pod.namespace.contains('/'));
    let mut names = Vec::new();
    for container in pod.init_containers.iter().chain(&pod.containers) {
        assert!(!container.name.is_empty() && !container.name.contains('/'));
        names.push(&container.name);
        for mount in &container.mounts {
            assert!(mount.path.is_absolute(), "{mount:?}");
            assert!(pod.volumes.contains_key(&mount.volume), "{mount:?}");
            assert!(
                mount.sub_path.as_deref().is_none_or(stays_below),
                "{mount:?}"
            );
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two containers of one name");
    assert!(!pod.containers.is_empty());
    for (name, volume) in &pod.volumes {
        assert!(!name.is_empty() && !name.contains('/'), "{name:?}");
        if let Volume::Files { files, .. } = volume {
            assert!(files.keys().all(|path| stays_below(path)), "{files:?}");
        }
    }
}

fn stays_below(path: &Path) -> bool {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    path.components().all(plain)
}
