//! A container's cgroup in each hierarchy.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// The machine's hierarchies.
pub(crate) struct Cgroups {
    hierarchies: Vec<PathBuf>,
}

/// A cgroup of one container.
pub(crate) struct Place {
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// The name of its hierarchy's mount point; empty with the unified hierarchy.
    pub(crate) hierarchy: String,
}

impl Cgroups {
    /// One hierarchy with cgroup v2, one for each controller with v1 (cgroups(7)).
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(ROOT);
        let hierarchies = if root.join("cgroup.procs").exists() {
            vec![root.to_owned()]
        } else {
            let entries = fs::read_dir(root).with_context(|| format!("read {ROOT}"))?;
            let found = entries.flatten().map(|entry| entry.path());
            // A symbolic link is a second name; an empty v2 hierarchy beside v1 has no controllers.
            found
                .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
                .filter(|path| !path.join("cgroup.controllers").exists())
                .collect()
        };
        Ok(Self { hierarchies })
    }

    /// Whether there is only the hierarchy of cgroup v2.
    pub(crate) fn unified(&self) -> bool {
        self.hierarchies.len() == 1
    }

    /// Makes the cgroup `path` in each.
    pub(crate) fn make(&self, path: &str) -> Result<Vec<Place>> {
        let places = self.hierarchies.iter().map(|hierarchy| {
            let directory = hierarchy.join(path.trim_start_matches('/'));
            fs::create_dir_all(&directory)
                .with_context(|| format!("make the cgroup {}", directory.display()))?;
            inherit_cpuset(&directory)?;
            let name = hierarchy.strip_prefix(ROOT).unwrap_or(hierarchy);
            Ok(Place {
                directory,
                hierarchy: name.to_string_lossy().into_owned(),
            })
        });
        places.collect()
    }
}

/// A cpuset of v1 begins empty, and takes no process until it has processors and memory nodes.
fn inherit_cpuset(directory: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = directory.join(name);
        let Ok(own) = fs::read_to_string(&file) else {
            return Ok(());
        };
        if !own.trim().is_empty() || directory.join("cgroup.controllers").exists() {
            continue;
        }
        let parent = directory.parent().context("a cgroup has a parent")?;
        inherit_cpuset(parent)?;
        let inherited = fs::read_to_string(parent.join(name))?;
        fs::write(&file, inherited).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Moves this process into all of them.
pub(crate) fn join(places: &[Place]) -> Result<()> {
    for place in places {
        let file = place.directory.join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("join {}", file.display()))?;
    }
    Ok(())
}

/// Removes the cgroups of a container that has ended.
pub(crate) fn remove(places: &[Place]) -> Result<()> {
    for Place { directory, .. } in places {
        fs::remove_dir(directory)
            .with_context(|| format!("remove the cgroup {}", directory.display()))?;
    }
    Ok(())
}
