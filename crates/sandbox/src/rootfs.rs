//! A container's root filesystem: what containerd asks to mount, and its undoing.
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One mount of a root filesystem, as containerd names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The filesystem type, such as `overlay` or `bind`.
    pub kind: String,
    /// What to mount.
    pub source: String,
    /// Where below the root filesystem; empty for the root itself.
    #[serde(default)]
    pub target: String,
    /// mount(8) options.
    #[serde(default)]
    pub options: Vec<String>,
}

/// Unmounts everything at and below `path`, topmost first; nothing there is no error (contract 26).
///
/// # Errors
/// What umount2(2) says other than "not mounted".
pub fn unmount_all(_path: &Path) -> io::Result<()> {
    todo!()
}
