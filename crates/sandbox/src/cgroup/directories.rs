//! Making the directories of a cgroup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::{Cgroup, Hierarchy, files};

/// How often to start again when a cgroup above goes away meanwhile: another container that could
/// not be made took along what it had made.
const ATTEMPTS: usize = 5;

/// Makes the directories of a cgroup and what is missing above it; `made` gets those that were not
/// there, each after the one above it, in case of an error too.
pub(super) fn make(cgroup: &Cgroup, made: &mut Vec<PathBuf>) -> Result<()> {
    for hierarchy in &cgroup.hierarchies {
        let mut attempt = 1;
        while let Err(error) = make_way(hierarchy, made) {
            if !error.is_gone() || attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
        }
    }
    Ok(())
}

/// Removes what was made, as far as it is not in use by others.
pub(super) fn unmake(made: &[PathBuf]) {
    for dir in made.iter().rev() {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::debug!("the cgroup {} stays: {error}", dir.display());
            }
            _ => {}
        }
    }
}

fn make_way(hierarchy: &Hierarchy, made: &mut Vec<PathBuf>) -> Result<()> {
    let unified = hierarchy.controllers.is_empty();
    // Nearly always what is above is there, and needs nothing but with these two.
    let alone = !unified && !hierarchy.has("cpuset");
    if let Some(above) = hierarchy.dir.parent().filter(|_| alone) {
        match make_one(hierarchy, above, &hierarchy.dir, made) {
            Err(error) if error.is_gone() => {}
            done => return done,
        }
    }
    let mut way: Vec<&Path> = hierarchy
        .dir
        .ancestors()
        .take_while(|dir| dir.starts_with(&hierarchy.mount))
        .collect();
    way.reverse();
    for step in way.windows(2) {
        let [above, dir] = step else { continue };
        if unified {
            hand_down_controllers(above)?;
        }
        make_one(hierarchy, above, dir, made)?;
    }
    if unified {
        // One that was left behind frozen would hold its first process before it can do anything.
        files::write(&hierarchy.dir.join("cgroup.freeze"), "0")?;
    }
    Ok(())
}

fn make_one(
    hierarchy: &Hierarchy,
    above: &Path,
    dir: &Path,
    made: &mut Vec<PathBuf>,
) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        done => {
            done.map_err(Error::file("make the cgroup", dir))?;
            made.push(dir.to_owned());
        }
    }
    if hierarchy.has("cpuset") {
        inherit_cpuset(above, dir)?;
    }
    Ok(())
}

/// Enables for the children what the cgroup has itself.
///
/// What cannot be is left out: where a limit needs it, that fails with a message of its own. A
/// cgroup with processes hands down none ("no internal processes", cgroup-v2.rst).
fn hand_down_controllers(dir: &Path) -> Result<()> {
    let available = files::read(&dir.join("cgroup.controllers"))?;
    let control = dir.join("cgroup.subtree_control");
    let enabled = files::read(&control)?;
    let enabled: Vec<_> = enabled.split_whitespace().collect();
    for controller in available
        .split_whitespace()
        .filter(|name| !enabled.contains(name))
    {
        // One by one: the kernel takes all of a write or nothing.
        if let Err(error) = files::write(&control, &format!("+{controller}")) {
            log::debug!(
                "the controller {controller} stays off below {}: {error}",
                dir.display()
            );
        }
    }
    Ok(())
}

/// A v1 cpuset starts empty and takes no process before it has CPUs and memory nodes.
fn inherit_cpuset(above: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(file);
        if files::read(&own)?.trim().is_empty() {
            files::write(&own, files::read(&above.join(file))?.trim())?;
        }
    }
    Ok(())
}
