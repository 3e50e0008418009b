//! A directory on a filesystem of its own.
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// An empty tmpfs, gone when dropped: wherever the tests run, in a container too, overlayfs can
/// have its layers there.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let none = None::<&str>;
        mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}
