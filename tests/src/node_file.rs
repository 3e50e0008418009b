//! A file of the node that no container may write.
use std::fs;
use std::path::PathBuf;

use crate::containerd::Containerd;
use crate::ctr::unique;

const CONTENT: &str = "the node's\n";

/// A file of the node that a container may lead a runtime to, and must never be able to write.
#[derive(Debug)]
pub struct NodeFile {
    /// Where it is on the node.
    pub path: PathBuf,
}

impl NodeFile {
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(containerd: &Containerd) -> Self {
        let path = containerd.lab().run.join(unique("of-the-node"));
        fs::write(&path, CONTENT).unwrap();
        Self { path }
    }

    /// # Panics
    /// If it is not what it was.
    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.path).unwrap(), CONTENT);
    }
}
