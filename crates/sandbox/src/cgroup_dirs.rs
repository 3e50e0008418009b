//! The directories of a process's cgroups, in every hierarchy that is mounted.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The cgroup directories of `pid` that are not this process's own.
pub(crate) fn other_than_ours(pid: i32) -> io::Result<Vec<PathBuf>> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = directories(&mountinfo, &fs::read_to_string("/proc/self/cgroup")?);
    let its = directories(
        &mountinfo,
        &fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
    );
    Ok(its
        .into_iter()
        .filter(|directory| !ours.contains(directory))
        .collect())
}

/// Moves this process to the cgroups of `pid`.
pub(crate) fn join(pid: i32) -> io::Result<()> {
    for directory in other_than_ours(pid)? {
        let procs = directory.join("cgroup.procs");
        fs::write(&procs, "0").map_err(|error| {
            io::Error::other(format!("{} took no process: {error}", procs.display()))
        })?;
    }
    Ok(())
}

/// Where the cgroups of a `/proc/PID/cgroup` are; those that are not mounted are left out.
fn directories(mountinfo: &str, cgroups: &str) -> Vec<PathBuf> {
    cgroups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            mountinfo
                .lines()
                .find_map(|mount| directory(mount, controllers, Path::new(path)))
        })
        .collect()
}

/// Where `path` of the hierarchy with these controllers is, if this mount shows it.
fn directory(mount: &str, controllers: &str, path: &Path) -> Option<PathBuf> {
    let (place, filesystem) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut filesystem = filesystem.split(' ');
    let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
    let is_it = match kind {
        "cgroup2" => controllers.is_empty(),
        "cgroup" => {
            !controllers.is_empty()
                && controllers
                    .split(',')
                    .all(|one| options.split(',').any(|other| other == one))
        }
        _ => false,
    };
    let below = is_it.then(|| path.strip_prefix(root).ok()).flatten()?;
    Some(Path::new(point).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_hierarchies_are_found() {
        let mountinfo = "1 0 0:2 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cg rw,cpu,cpuacct\n\
            2 0 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cg rw,nsdelegate\n\
            3 0 0:4 /outer /sys/fs/cgroup/systemd rw - cgroup cg rw,xattr,name=systemd\n";
        let cgroups = "4:cpu,cpuacct:/a/b\n3:memory:/unmounted\n1:name=systemd:/outer/c\n0::/d:e\n";
        assert_eq!(
            directories(mountinfo, cgroups),
            [
                Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"),
                Path::new("/sys/fs/cgroup/systemd/c"),
                Path::new("/sys/fs/cgroup/unified/d:e"),
            ]
        );
    }

    #[test]
    fn a_process_is_where_it_is() {
        assert_eq!(
            other_than_ours(crate::process::my_pid()).unwrap(),
            Vec::<PathBuf>::new()
        );
    }
}
