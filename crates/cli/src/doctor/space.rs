//! Room for what husk keeps.
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::Finding;

/// Where something is kept, what, and how much room is little; in MiB.
const PLACES: [(&str, &str, u64); 2] = [
    ("/run", "records and namespaces of pods", 32),
    ("/var/lib", "images and logs of `husk run`", 512),
];

pub(super) fn findings() -> Vec<Finding> {
    let findings = PLACES
        .iter()
        .map(|(path, what, least)| room(path, what, *least));
    findings.collect()
}

fn room(path: &str, what: &str, least: u64) -> Finding {
    let found = match statvfs(Path::new(path)) {
        Ok(found) => found,
        Err(errno) => {
            return Finding::error(
                "space",
                format!("{path}: {}", errno.desc()),
                format!("it has the {what}: make it, or mount it"),
            );
        }
    };
    let free = found
        .blocks_available()
        .saturating_mul(found.fragment_size())
        >> 20;
    let text = format!("{path}: {free} MiB free for {what}");
    if free < least {
        return Finding::warning("space", text, format!("make room: {least} MiB at least"));
    }
    if found.files() > 0 && found.files_available() < 1000 {
        let text = format!("{path}: no more than {} files", found.files_available());
        return Finding::warning("space", text, "remove files, or mount it with more inodes");
    }
    Finding::ok("space", text)
}
