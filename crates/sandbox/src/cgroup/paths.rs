//! Where cgroups are: `/proc/PID/cgroup` and the mounts of the cgroup filesystems.
//!
//! A process is in one cgroup of each hierarchy. With cgroup v2 there is one hierarchy; with v1
//! there is one for each controller or group of controllers, each a filesystem of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::error::{Error, Result};
use super::files;
use crate::mountinfo::unescape;

/// The controllers that decide who is in charge of a node: where v1 has one of them, v2 is at most
/// a tree for systemd to track processes in ("hybrid"), or holds what nobody mounted as v1.
const DECIDING: [&str; 3] = ["memory", "cpu", "pids"];

/// A mounted cgroup filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Empty for v2; else the controllers as mount options, or `name=...`.
    pub(super) controllers: Vec<String>,
    /// The cgroup that is visible at `point`, as `/proc/PID/cgroup` would name it.
    pub(super) root: PathBuf,
    /// Where it is mounted.
    pub(super) point: PathBuf,
}

/// All usable cgroup mounts of this process's mount namespace.
///
/// A node mounts them when it boots: they are looked for once, and what is forked knows them too.
pub(super) fn mounts() -> Result<&'static [Mount]> {
    static MOUNTS: OnceLock<Vec<Mount>> = OnceLock::new();
    if let Some(mounts) = MOUNTS.get() {
        return Ok(mounts);
    }
    let membership = parse_membership(&files::read_bytes(Path::new("/proc/self/cgroup"))?);
    let path = Path::new("/proc/self/mountinfo");
    // One that is hidden below another mount is still listed, but its files are not there.
    let shown = |mount: &Mount| mount.point.join("cgroup.procs").exists();
    let mounts = File::open(path)
        .and_then(|list| read_mounts(BufReader::with_capacity(PART, list), &membership, shown))
        .map_err(Error::file("read", path))?;
    Ok(MOUNTS.get_or_init(|| mounts))
}

/// How much of the list of mounts is asked for at once, in bytes: the kernel writes no more of it.
const PART: usize = 4096;

/// Reads the list of mounts until all that can matter is there: cgroups are mounted when the node
/// boots, and what pods mount later comes after them and makes the list long.
fn read_mounts(
    list: impl BufRead,
    membership: &BTreeMap<String, PathBuf>,
    shown: impl Fn(&Mount) -> bool,
) -> io::Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for line in list.split(b'\n') {
        if let Some(mount) = parse_mount(&line?).filter(&shown) {
            mounts.push(mount);
            if are_whole(&mounts, membership) {
                break;
            }
        }
    }
    Ok(mounts)
}

/// Whether the whole of every hierarchy in charge is among these.
fn are_whole(mounts: &[Mount], membership: &BTreeMap<String, PathBuf>) -> bool {
    let all: Vec<&Mount> = mounts.iter().collect();
    let is_whole = |controllers: &str| {
        let root = Path::new("/");
        locate(&all, controllers, root).is_some()
    };
    let v1 = || membership.keys().filter(|name| !name.is_empty());
    let decides = |name: &String| name.split(',').any(|name| DECIDING.contains(&name));
    v1().all(|name| is_whole(name)) && (v1().any(decides) || is_whole(""))
}

/// Picks the hierarchies in charge: all of v1 if v1 has a deciding controller, else v2.
pub(super) fn in_charge(mounts: &[Mount]) -> Result<Vec<&Mount>> {
    let v1 = mounts.iter().any(|mount| {
        mount
            .controllers
            .iter()
            .any(|name| DECIDING.contains(&name.as_str()))
    });
    let chosen: Vec<_> = mounts
        .iter()
        .filter(|mount| mount.controllers.is_empty() != v1)
        .collect();
    if chosen.is_empty() {
        return Err(Error::Unsupported(
            "no cgroup filesystem is mounted: mount cgroup2 at /sys/fs/cgroup".into(),
        ));
    }
    Ok(chosen)
}

/// Parses a line of `/proc/self/mountinfo` that is about cgroups; see proc_pid_mountinfo(5).
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    // Optional fields end with a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?;
    let options = fields.nth(1)?;
    let controllers = match kind {
        b"cgroup2" => Vec::new(),
        b"cgroup" => controllers(std::str::from_utf8(options).ok()?),
        _ => return None,
    };
    if kind == b"cgroup" && controllers.is_empty() {
        return None;
    }
    Some(Mount {
        controllers,
        root,
        point,
    })
}

/// What of a v1 mount's options is not a controller.
const FLAGS: [&str; 9] = [
    "rw",
    "ro",
    "xattr",
    "noprefix",
    "clone_children",
    "cpuset_v2_mode",
    "favordynmods",
    "nofavordynmods",
    "none",
];

fn controllers(options: &str) -> Vec<String> {
    options
        .split(',')
        .filter(|option| !FLAGS.contains(option))
        .filter(|option| !option.contains('=') || option.starts_with("name="))
        .map(str::to_owned)
        .collect()
}

/// Parses `/proc/PID/cgroup` into controllers (empty for v2) and path; see cgroups(7).
pub(super) fn parse_membership(text: &[u8]) -> BTreeMap<String, PathBuf> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
            let controllers = String::from_utf8(fields.next()?.to_vec()).ok()?;
            let path = fields.next()?;
            // The kernel appends this for a process whose cgroup was removed.
            let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
            Some((
                controllers,
                PathBuf::from(std::ffi::OsStr::from_bytes(path)),
            ))
        })
        .collect()
}

/// The mount point that shows a cgroup, and its directory below that.
///
/// `None` when no mount shows it: a bind mount, or a mount from within a cgroup namespace, shows
/// only a part of the hierarchy.
pub(super) fn locate(
    mounts: &[&Mount],
    controllers: &str,
    path: &Path,
) -> Option<(PathBuf, PathBuf)> {
    let same = |mount: &&&Mount| {
        let mut names: Vec<&str> = controllers
            .split(',')
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        let mut mounted: Vec<&str> = mount.controllers.iter().map(String::as_str).collect();
        mounted.sort_unstable();
        names == mounted
    };
    mounts
        .iter()
        .filter(same)
        .filter_map(|mount| Some((mount, path.strip_prefix(&mount.root).ok()?)))
        // The mount that shows most of the hierarchy: with it, parents can be reached too.
        .min_by_key(|(mount, _)| mount.root.components().count())
        .map(|(mount, below)| {
            // Joined with nothing, the path would end with a slash.
            let dir = match below.as_os_str().is_empty() {
                true => mount.point.clone(),
                false => mount.point.join(below),
            };
            (mount.point.clone(), dir)
        })
}

/// A cgroup's path with no `.` and no `//`, absolute; `None` if `..` would lead out of its place.
pub(super) fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_mounts(text: &[u8]) -> Vec<Mount> {
        text.split(|byte| *byte == b'\n')
            .filter_map(parse_mount)
            .collect()
    }

    const UNIFIED: &[u8] = b"\
35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
36 24 0:31 / /sys rw - sysfs sysfs rw
";
    const HYBRID: &[u8] = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 master:2 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup systemd rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn unified_has_one_hierarchy() {
        let mounts = parse_mounts(UNIFIED);
        assert_eq!(
            mounts,
            [Mount {
                controllers: vec![],
                root: "/".into(),
                point: "/sys/fs/cgroup".into()
            }]
        );
        assert_eq!(in_charge(&mounts).unwrap().len(), 1);
    }

    #[test]
    fn hybrid_is_v1() {
        let mounts = parse_mounts(HYBRID);
        let chosen = in_charge(&mounts).unwrap();
        let names: Vec<_> = chosen
            .iter()
            .map(|mount| mount.controllers.join(","))
            .collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "name=systemd"]);
    }

    /// Fails where the list is read on.
    fn read_no_further(text: &[u8], membership: &[u8]) -> Vec<Mount> {
        let end = io::Error::other("read too far");
        let list = BufReader::new(io::Read::chain(text, Failing(Some(end))));
        read_mounts(list, &parse_membership(membership), |_| true).unwrap()
    }

    struct Failing(Option<io::Error>);

    impl io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.take().map_or(Ok(0), Err)
        }
    }

    #[test]
    fn the_list_is_read_until_the_whole_of_each_hierarchy_is_found() {
        assert_eq!(read_no_further(UNIFIED, b"0::/a\n").len(), 1);
        let v1 = b"3:cpu,cpuacct:/a\n2:memory:/a\n1:name=systemd:/\n0::/\n";
        assert_eq!(read_no_further(HYBRID, v1).len(), 3, "v2 is not in charge");
    }

    #[test]
    fn the_list_is_read_to_its_end_for_a_hierarchy_that_is_not_there() {
        let of = |membership: &[u8]| {
            let membership = parse_membership(membership);
            read_mounts(HYBRID, &membership, |_| true).unwrap().len()
        };
        assert_eq!(of(b"4:freezer:/\n2:memory:/\n0::/\n"), 4);
        assert_eq!(of(b"0::/\n"), 4);
        let part = b"1 2 0:3 /pod /mnt rw - cgroup2 none rw\n";
        let found = read_mounts(
            &[part, UNIFIED].concat()[..],
            &parse_membership(b"0::/"),
            |_| true,
        );
        assert_eq!(found.unwrap().len(), 2, "a part is not the whole");
    }

    #[test]
    fn a_stray_v1_mount_does_not_make_a_node_v1() {
        let mut text = UNIFIED.to_vec();
        text.extend(b"50 24 0:50 / /run/net_cls rw - cgroup net_cls rw,net_cls\n");
        let mounts = parse_mounts(&text);
        assert_eq!(mounts.len(), 2);
        let chosen = in_charge(&mounts).unwrap();
        assert_eq!(chosen.len(), 1);
        assert!(chosen[0].controllers.is_empty());
    }

    #[test]
    fn nothing_mounted_says_what_to_do() {
        let error = in_charge(&[]).unwrap_err();
        assert!(error.to_string().contains("mount cgroup2"), "{error}");
    }

    #[test]
    fn escapes_are_undone() {
        let mounts = parse_mounts(b"1 2 0:3 /a\\040b /mnt/x\\134y\\011 rw - cgroup2 none rw");
        assert_eq!(mounts[0].root, Path::new("/a b"));
        assert_eq!(mounts[0].point, Path::new("/mnt/x\\y\t"));
    }

    #[test]
    fn membership_of_both_versions() {
        let paths = parse_membership(b"4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/x (deleted)\n");
        assert_eq!(paths["cpu,cpuacct"], Path::new("/a:b"));
        assert_eq!(paths["name=systemd"], Path::new("/"));
        assert_eq!(paths[""], Path::new("/x"));
    }

    #[test]
    fn a_cgroup_is_found_below_the_root_of_its_mount() {
        let mount = |root: &str, point: &str| Mount {
            controllers: vec![],
            root: root.into(),
            point: point.into(),
        };
        let (part, whole) = (mount("/pod", "/mnt"), mount("/", "/sys/fs/cgroup"));
        let found = |mounts: &[&Mount], path| locate(mounts, "", Path::new(path)).map(|it| it.1);
        assert_eq!(found(&[&part], "/pod/c"), Some("/mnt/c".into()));
        assert_eq!(found(&[&part], "/pod"), Some("/mnt".into()));
        assert_eq!(found(&[&part], "/podium"), None);
        let both = found(&[&part, &whole], "/pod/c");
        assert_eq!(both, Some("/sys/fs/cgroup/pod/c".into()));
        assert_eq!(locate(&[&whole], "memory", Path::new("/pod")), None);
    }

    #[test]
    fn comounted_controllers_match_in_any_order() {
        let mounts = parse_mounts(HYBRID);
        let chosen = in_charge(&mounts).unwrap();
        assert_eq!(
            locate(&chosen, "cpuacct,cpu", Path::new("/a")),
            Some((
                "/sys/fs/cgroup/cpu,cpuacct".into(),
                "/sys/fs/cgroup/cpu,cpuacct/a".into()
            ))
        );
    }

    #[test]
    fn parent_steps_are_refused() {
        assert_eq!(normal(Path::new("a//./b/")), Some("/a/b".into()));
        assert_eq!(normal(Path::new("/a/../b")), None);
    }

    proptest! {
        #[test]
        fn what_the_kernel_escapes_is_undone(name in "[a-z \\t\\n\\\\:]{1,12}") {
            let escaped: String = name
                .chars()
                .map(|c| match c {
                    'a'..='z' | ':' => c.to_string(),
                    c => format!("\\{:03o}", u32::from(c)),
                })
                .collect();
            let line = format!("1 2 0:3 /{escaped} /m/{escaped} rw - cgroup2 none rw");
            let mounts = parse_mounts(line.as_bytes());
            prop_assert_eq!(&mounts[0].root, &Path::new("/").join(&name));
            prop_assert_eq!(&mounts[0].point, &Path::new("/m").join(&name));
        }

        #[test]
        fn no_line_is_too_strange(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            // Left out or not, nothing panics.
            drop(parse_mounts(&text));
            drop(parse_membership(&text));
        }

        #[test]
        fn a_path_stays_below_its_mount(path in "[a./]{0,12}") {
            if let Some(path) = normal(Path::new(&path)) {
                prop_assert!(path.is_absolute());
                prop_assert!(!path.components().any(|it| it == Component::ParentDir));
            }
        }
    }
}
