//! Removing a cgroup and what is below it.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::files;

/// How long killed processes may take to leave the cgroup; `delete` has 5 s in all (contract 43).
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Removes a directory tree of cgroups, deepest first, trying until `deadline`; gone already is no
/// error.
///
/// The files in them are the kernel's and go with each rmdir(2).
pub(super) fn remove(dir: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match remove_once(dir) {
            Err(Error::File { source, .. })
                if source.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Error::Busy(format!(
                    "cannot remove the cgroup {}: processes are still in it or below it after {} \
                     s, see its cgroup.procs",
                    dir.display(),
                    PATIENCE.as_secs()
                )));
            }
            Err(error) if error.is_gone() => return Ok(()),
            done => return done,
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn remove_once(dir: &Path) -> Result<()> {
    // Most cgroups have none below them: one call and no listing.
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for dir in files::tree(dir)?.iter().rev() {
        match fs::remove_dir(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::file("remove the cgroup", dir)(source)),
        }
    }
    Ok(())
}
