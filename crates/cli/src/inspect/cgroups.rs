//! Cgroups read where they are mounted: limits and use, v2 and v1.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// v1 writes "no limit" as the largest number of pages.
const V1_UNLIMITED: u64 = 1 << 62;

/// Limits and use of one cgroup. What its hierarchy does not tell is null; so is "no limit".
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cgroup {
    /// The path as in `/proc/PID/cgroup`, of the memory controller where hierarchies differ.
    pub(super) path: PathBuf,
    /// Bytes in use, page cache included.
    pub(super) memory_bytes: Option<u64>,
    /// The most bytes it may use.
    pub(super) memory_limit_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub(crate) oom_kills: Option<u64>,
    /// Processor time used, in microseconds.
    pub(super) cpu_usec: Option<u64>,
    /// The most processors it may use at a time, such as 0.5.
    pub(super) cpu_limit: Option<f64>,
    /// Processes and threads in it and below.
    pub(super) pids: Option<u64>,
    /// The most it may have.
    pub(super) pids_limit: Option<u64>,
}

/// Where hierarchies are mounted: controllers, empty for v2, to directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies(BTreeMap<String, PathBuf>);

/// Where a process or a container is: hierarchy, empty for v2, to path.
pub(crate) type Paths = BTreeMap<String, PathBuf>;

impl Hierarchies {
    /// Those of this node.
    pub(super) fn of_node() -> Self {
        Self::below(Path::new("/"))
    }

    /// Those of a node whose root is mounted here.
    pub(crate) fn below(root: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&mounts, root)
    }

    /// One hierarchy of v2, mounted here.
    #[cfg(test)]
    pub(crate) fn v2(at: &Path) -> Self {
        Self(BTreeMap::from([(String::new(), at.to_owned())]))
    }

    fn parse(mountinfo: &str, root: &Path) -> Self {
        let mut found = BTreeMap::new();
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else {
                continue;
            };
            let at = mount.split(' ').nth(4).map(Path::new);
            let Some(at) = at.filter(|at| at.starts_with(root)) else {
                continue;
            };
            let mut filesystem = filesystem.split(' ');
            match filesystem.next() {
                Some("cgroup2") => {
                    found.entry(String::new()).or_insert_with(|| at.into());
                }
                Some("cgroup") => {
                    // Options mix controllers with flags, which do no harm here.
                    let options = filesystem.nth(1).unwrap_or_default();
                    for option in options.split(',') {
                        found.entry(option.to_owned()).or_insert_with(|| at.into());
                    }
                }
                _ => {}
            }
        }
        Self(found)
    }

    /// The directory that has a controller's files for these paths, and whether it is v2.
    fn dir(&self, paths: &Paths, controller: &str) -> Option<(PathBuf, bool)> {
        let v1 = paths
            .iter()
            .find(|(hierarchy, _)| hierarchy.split(',').any(|name| name == controller))
            .and_then(|(_, path)| Some((below(self.0.get(controller)?, path), false)));
        v1.or_else(|| Some((below(self.0.get("")?, paths.get("")?), true)))
    }

    /// Limits and use of the cgroup at these paths; `None` when it is not there.
    pub(crate) fn read(&self, paths: &Paths) -> Option<Cgroup> {
        let mut cgroup = Cgroup::default();
        let (memory, v2) = self.dir(paths, "memory")?;
        if !memory.exists() {
            return None;
        }
        cgroup.path = shown_path(paths)?;
        let (cpu, cpu_v2) = self.dir(paths, "cpu")?;
        let (pids, _) = self.dir(paths, "pids")?;
        if v2 {
            cgroup.memory_bytes = number(&memory, "memory.current");
            cgroup.memory_limit_bytes = number(&memory, "memory.max");
            cgroup.oom_kills = keyed(&memory, "memory.events", "oom_kill");
        } else {
            cgroup.memory_bytes = number(&memory, "memory.usage_in_bytes");
            cgroup.memory_limit_bytes =
                number(&memory, "memory.limit_in_bytes").filter(|limit| *limit < V1_UNLIMITED);
            cgroup.oom_kills = keyed(&memory, "memory.oom_control", "oom_kill");
        }
        if cpu_v2 {
            cgroup.cpu_usec = keyed(&cpu, "cpu.stat", "usage_usec");
            cgroup.cpu_limit = text(&cpu, "cpu.max").and_then(|text| {
                let (quota, period) = text.split_once(' ')?;
                share(quota, period)
            });
        } else {
            let quota = text(&cpu, "cpu.cfs_quota_us");
            let period = text(&cpu, "cpu.cfs_period_us");
            cgroup.cpu_limit = quota
                .zip(period)
                .and_then(|(quota, period)| share(&quota, &period));
            let account = self.dir(paths, "cpuacct").filter(|(_, v2)| !v2);
            cgroup.cpu_usec = account
                .and_then(|(dir, _)| number(&dir, "cpuacct.usage"))
                .map(|nanos| nanos / 1000);
        }
        cgroup.pids = number(&pids, "pids.current");
        cgroup.pids_limit = number(&pids, "pids.max");
        Some(cgroup)
    }

    /// The processes in the cgroup and those below it, in order.
    pub(super) fn pids(&self, paths: &Paths) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some((dir, _)) = self.dir(paths, "memory") {
            collect(&dir, &mut pids);
        }
        pids.sort_unstable();
        pids
    }
}

/// Where a process is, from `/proc/PID/cgroup`.
pub(super) fn of(pid: i32) -> Paths {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_id, hierarchy, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some((hierarchy.to_owned(), PathBuf::from(path)))
    });
    lines.collect()
}

/// The cgroup right above all of these, hierarchy by hierarchy; those where it is the root, which
/// is everyone's, are left out.
pub(crate) fn common_parent(all: &[&Paths]) -> Paths {
    let Some((first, rest)) = all.split_first() else {
        return Paths::new();
    };
    let mut common = Paths::new();
    for (hierarchy, path) in *first {
        let parent = path.parent().filter(|parent| {
            let same = |other: &&Paths| {
                other.get(hierarchy).and_then(|path| path.parent()) == Some(*parent)
            };
            *parent != Path::new("/") && rest.iter().all(same)
        });
        if let Some(parent) = parent {
            common.insert(hierarchy.clone(), parent.to_owned());
        }
    }
    common
}

fn shown_path(paths: &Paths) -> Option<PathBuf> {
    let memory = paths
        .iter()
        .find(|(name, _)| name.split(',').any(|name| name == "memory"));
    memory
        .map(|(_, path)| path)
        .or_else(|| paths.get(""))
        .cloned()
}

fn below(mount: &Path, path: &Path) -> PathBuf {
    mount.join(path.strip_prefix("/").unwrap_or(path))
}

fn text(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file))
        .ok()
        .map(|text| text.trim().to_owned())
}

/// A number, `None` for `max` too.
fn number(dir: &Path, file: &str) -> Option<u64> {
    text(dir, file)?.parse().ok()
}

fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    text(dir, file)?.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// Processors that a quota per period allows; `None` for `max` and for -1, which is v1's.
fn share(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u32>().ok()?, period.parse::<u32>().ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}

fn collect(dir: &Path, pids: &mut Vec<i32>) {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), format!("{text}\n")).unwrap();
        }
    }

    fn paths(pairs: &[(&str, &str)]) -> Paths {
        pairs
            .iter()
            .map(|(name, path)| ((*name).to_owned(), PathBuf::from(path)))
            .collect()
    }

    #[test]
    fn mounts_are_found_by_their_controllers() {
        let found = Hierarchies::parse(
            "25 1 0:22 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             26 1 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             27 1 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             28 1 0:25 / /proc rw - proc proc rw\n",
            Path::new("/"),
        );
        assert_eq!(found.0["memory"], Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.0["cpuacct"], Path::new("/sys/fs/cgroup/cpu"));
        assert_eq!(found.0[""], Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn v2_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("pod/app");
        write(
            &app,
            &[
                ("memory.current", "1048576"),
                ("memory.max", "268435456"),
                (
                    "memory.events",
                    "low 0\noom 3\noom_kill 2\noom_group_kill 0",
                ),
                ("cpu.stat", "usage_usec 1500000\nuser_usec 1"),
                ("cpu.max", "50000 100000"),
                ("pids.current", "3"),
                ("pids.max", "max"),
                ("cgroup.procs", "7\n5"),
            ],
        );
        write(&app.join("below"), &[("cgroup.procs", "6")]);
        let node = Hierarchies(BTreeMap::from([(String::new(), dir.path().to_owned())]));
        let at = paths(&[("", "/pod/app")]);
        let expected = Cgroup {
            path: "/pod/app".into(),
            memory_bytes: Some(1 << 20),
            memory_limit_bytes: Some(256 << 20),
            oom_kills: Some(2),
            cpu_usec: Some(1_500_000),
            cpu_limit: Some(0.5),
            pids: Some(3),
            pids_limit: None,
        };
        assert_eq!(node.read(&at), Some(expected));
        assert_eq!(node.pids(&at), [5, 6, 7]);
        assert_eq!(node.read(&paths(&[("", "/gone")])), None);
    }

    #[test]
    fn v1_is_read_hierarchy_by_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write(
            &at("memory/m/app"),
            &[
                ("memory.usage_in_bytes", "4096"),
                ("memory.limit_in_bytes", "9223372036854771712"),
                (
                    "memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 1",
                ),
                ("cgroup.procs", "9"),
            ],
        );
        write(
            &at("cpu/c/app"),
            &[("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000")],
        );
        write(&at("acct/c/app"), &[("cpuacct.usage", "2500000")]);
        write(
            &at("pids/p/app"),
            &[("pids.current", "1"), ("pids.max", "64")],
        );
        let node = Hierarchies(
            [
                ("memory", "memory"),
                ("cpu", "cpu"),
                ("cpuacct", "acct"),
                ("pids", "pids"),
            ]
            .map(|(controller, name)| (controller.to_owned(), at(name)))
            .into(),
        );
        let of_app = paths(&[
            ("memory", "/m/app"),
            ("cpu,cpuacct", "/c/app"),
            ("pids", "/p/app"),
            ("", "/"),
        ]);
        let expected = Cgroup {
            path: "/m/app".into(),
            memory_bytes: Some(4096),
            memory_limit_bytes: None,
            oom_kills: Some(1),
            cpu_usec: Some(2500),
            cpu_limit: None,
            pids: Some(1),
            pids_limit: Some(64),
        };
        assert_eq!(node.read(&of_app), Some(expected));
        assert_eq!(node.pids(&of_app), [9]);
    }

    #[test]
    fn the_pods_cgroup_is_right_above_its_containers() {
        let (a, b) = (
            paths(&[("", "/pod/a"), ("cpu", "/a")]),
            paths(&[("", "/pod/b"), ("cpu", "/b")]),
        );
        assert_eq!(common_parent(&[&a, &b]), paths(&[("", "/pod")]));
        assert_eq!(
            common_parent(&[&a, &paths(&[("", "/else/b")])]),
            Paths::new()
        );
        assert_eq!(common_parent(&[]), Paths::new());
    }
}
