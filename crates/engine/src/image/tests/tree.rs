//! What a directory tree is, as text: one line per entry, every attribute in it.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// A line per entry, in order of path; the time is left out of directories without one of their
/// own.
pub(super) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    walk(root, root, &mut lines);
    lines
}

fn walk(root: &Path, path: &Path, lines: &mut BTreeMap<String, String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        "dir".into()
    } else if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!(
            "file {:?} x{}",
            String::from_utf8_lossy(&fs::read(path).unwrap()),
            meta.nlink()
        )
    } else {
        let name = if kind.is_fifo() {
            "fifo"
        } else if kind.is_block_device() {
            "block"
        } else {
            "char"
        };
        format!(
            "{name} {}:{}",
            nix::sys::stat::major(meta.rdev()),
            nix::sys::stat::minor(meta.rdev())
        )
    };
    let xattrs: String = xattr::list(path)
        .unwrap()
        .map(|key| {
            let value = xattr::get(path, &key).unwrap().unwrap();
            format!(" {}={}", key.display(), String::from_utf8_lossy(&value))
        })
        .collect();
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let line = format!(
        "{what} {:o} {}:{} @{}.{:09}{xattrs}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    lines.insert(name, line);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(root, &entry.unwrap().path(), lines);
        }
    }
}
