//! A container's root filesystem: what containerd asks to mount, and its undoing.
mod id_mapped;
pub(crate) mod options;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::chdir;
use serde::{Deserialize, Serialize};

use self::id_mapped::Layers;
use self::options::Options;
use crate::error::{Doing, JobError, Leftovers};
use crate::id_map::IdMap;
use crate::mount_api;
use crate::mountinfo::unescape;

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

/// Mounts all of `mounts` at and below `rootfs`, in order, or none of them; with `owners`, so that their
/// files, also new ones, belong to the node's users, and are seen by these ids.
///
/// It may change the working directory of the process.
pub(crate) fn mount_all(
    rootfs: &Path,
    mounts: &[Mount],
    owners: Option<&IdMap>,
) -> Result<(), JobError> {
    if mounts.is_empty() {
        return match fs::metadata(rootfs) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(JobError::invalid(format!(
                "the root filesystem {} is not a directory",
                rootfs.display()
            ))),
            Err(error) => Err(JobError::not_found(format!(
                "there is no root filesystem {}: {error}",
                rootfs.display()
            ))),
        };
    }
    // 0711: users of a container's user namespace pass through it, others see no names.
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(rootfs)
        .doing(|| format!("make the directory {}", rootfs.display()))?;
    let mounted = mounts
        .iter()
        .try_for_each(|mount| mount_one(rootfs, mount, owners));
    mounted.map_err(|error| {
        let mut left = Leftovers::default();
        left.note(unmount_all(rootfs), || {
            format!("unmount {}", rootfs.display())
        });
        error.leaving(left)
    })
}

fn mount_one(rootfs: &Path, request: &Mount, owners: Option<&IdMap>) -> Result<(), JobError> {
    let what = || {
        format!(
            "mount {} {} at {}{}",
            request.kind,
            request.source,
            rootfs.display(),
            request.target
        )
    };
    let options = Options::parse(&request.options)
        .map_err(|reason| JobError::invalid(format!("cannot {}: {reason}", what())))?;
    let target = open_in_root(rootfs, Path::new(&request.target), OFlag::O_PATH)
        .map_err(|errno| JobError::from_errno(errno, what()))?;
    let map = options.id_map.as_ref().or(owners);
    match map {
        Some(map) if request.kind == "overlay" => {
            let layers = match owners {
                Some(_) => Layers::All,
                None => Layers::Lower,
            };
            let mapped = id_mapped::overlay(rootfs, &options, map, layers)?;
            mount_api::attach(mapped, target.as_fd()).doing(what)?;
        }
        _ => mount_by_name(request, &options, &target).map_err(|errno| match errno {
            Errno::ENOENT => JobError::not_found(format!("cannot {}: {errno}", what())),
            _ => JobError::from_errno(errno, what()),
        })?,
    }

    // A bind mount takes over the flags of its source; its own need a second call.
    let no_path = None::<&str>;
    let restriction = options.flags & RESTRICTIONS;
    let mounted = open_in_root(rootfs, Path::new(&request.target), OFlag::O_PATH)
        .map_err(|errno| JobError::from_errno(errno, what()))?;
    let target = format!("/proc/self/fd/{}", mounted.as_raw_fd());
    if options.flags.contains(MsFlags::MS_BIND) && !restriction.is_empty() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | restriction;
        mount(no_path, target.as_str(), no_path, flags, no_path)
            .map_err(|errno| JobError::from_errno(errno, what()))?;
    }
    if let Some(propagation) = options.propagation {
        mount(no_path, target.as_str(), no_path, propagation, no_path)
            .map_err(|errno| JobError::from_errno(errno, what()))?;
    }
    match map {
        Some(map) if request.kind != "overlay" => id_mapped::remap(&mounted, map),
        _ => Ok(()),
    }
}

fn mount_by_name(request: &Mount, options: &Options, target: &File) -> Result<(), Errno> {
    // The descriptor stands for the place that was resolved, whatever becomes of the path.
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    let mut data = options.data.clone();
    if options.is_longer_than_a_page() {
        let directory;
        (directory, data) = options.relative_lower_directories();
        chdir(&directory)?;
    }
    let data = Some(data.as_str()).filter(|data| !data.is_empty());
    let (kind, source) = (Some(request.kind.as_str()), Some(request.source.as_str()));
    mount(source, target.as_str(), kind, options.flags, data)
}

/// The flags that belong to a mount rather than to its filesystem.
const RESTRICTIONS: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOATIME)
    .union(MsFlags::MS_NODIRATIME)
    .union(MsFlags::MS_RELATIME)
    .union(options::MS_NOSYMFOLLOW);

/// Opens `path` as a process whose root is `root` would: neither `..` nor a symlink leads out.
pub(crate) fn open_in_root(root: &Path, path: &Path, flags: OFlag) -> Result<File, Errno> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let root = File::open(root)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(&root, path, how).map(File::from)
}

/// Unmounts everything at and below `path`, topmost first; nothing there is no error (contract 26).
///
/// A mount that is busy is detached: it is gone from the tree at once, and from the kernel when its
/// last user is. Below a mount at `path` itself only what is mounted on it is looked for: what it
/// hides was there before.
///
/// # Errors
/// What umount2(2) says other than "not mounted".
pub fn unmount_all(path: &Path) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // The filesystem that is mounted there may be broken: the name is as good as it gets.
        Err(_) => path.to_owned(),
    };
    if unmount_bare(&path) {
        return Ok(());
    }
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    let mut mounted = mount_points(&mountinfo, &path);
    // Later mounts lie on top of earlier ones.
    mounted.reverse();
    for point in mounted {
        unmount(&point)?;
    }
    Ok(())
}

/// Unmounts what is mounted at `path`, as long as nothing uses it or is mounted on it: without the
/// list of all mounts, which grows with every pod of the node. Whether that was all there was.
fn unmount_bare(path: &Path) -> bool {
    let mut mounted = false;
    loop {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => mounted = true,
            // Not mounted; what is below may be.
            Err(Errno::EINVAL) => return mounted,
            Err(_) => return false,
        }
    }
}

/// Unmounts one mount; not mounted is no error.
pub(crate) fn unmount(point: &Path) -> io::Result<()> {
    let answer = match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EBUSY) => umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW),
        answer => answer,
    };
    match answer {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(io::Error::other(format!(
            "cannot unmount {}: {errno}",
            point.display()
        ))),
    }
}

/// The mount points at and below `path`, in the order they were mounted.
fn mount_points(mountinfo: &[u8], path: &Path) -> Vec<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|point| point.starts_with(path))
        .collect()
}

/// Whether `path` is a mount point of this process's mount namespace.
#[cfg(test)]
fn is_mounted(path: &Path) -> bool {
    let mountinfo = fs::read("/proc/self/mountinfo").unwrap();
    mount_points(&mountinfo, path)
        .iter()
        .any(|point| point == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &Path, target: &str, options: &[&str]) -> Mount {
        Mount {
            kind: "bind".to_owned(),
            source: source.display().to_string(),
            target: target.to_owned(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn only_what_is_at_and_below_a_path_is_its_mounts() {
        let mountinfo =
            b"1 2 0:1 / /a rw - x x rw\n3 1 0:1 / /ab rw - x x rw\n4 1 0:1 / /a/b rw - x x rw\n";
        let found = mount_points(mountinfo, Path::new("/a"));
        assert_eq!(found, [Path::new("/a"), Path::new("/a/b")]);
    }

    #[test]
    fn a_tree_of_mounts_is_made_and_unmade() {
        let dir = tempfile::tempdir().unwrap();
        let (source, inner, rootfs) = (
            dir.path().join("source"),
            dir.path().join("in ner"),
            dir.path().join("root fs"),
        );
        fs::create_dir_all(source.join("below")).unwrap();
        fs::create_dir(&inner).unwrap();
        let mounts = [
            bind(&source, "", &["rbind", "ro"]),
            bind(&inner, "/below", &["bind"]),
        ];
        mount_all(&rootfs, &mounts, None).unwrap();
        assert!(is_mounted(&rootfs) && is_mounted(&rootfs.join("below")));
        assert!(fs::write(rootfs.join("file"), "").is_err(), "read-only");
        fs::write(rootfs.join("below/file"), "").unwrap();
        unmount_all(&rootfs).unwrap();
        assert!(!is_mounted(&rootfs) && !is_mounted(&rootfs.join("below")));
        unmount_all(&rootfs).unwrap();
    }

    #[test]
    fn mounts_on_top_of_each_other_are_all_unmade() {
        let dir = tempfile::tempdir().unwrap();
        let (source, rootfs) = (dir.path().join("source"), dir.path().join("rootfs"));
        fs::create_dir_all(source.join("below")).unwrap();
        let twice = [bind(&source, "", &["bind"]), bind(&source, "", &["bind"])];
        mount_all(&rootfs, &twice, None).unwrap();
        mount_all(&rootfs, &[bind(&source, "/below", &["bind"])], None).unwrap();
        // One that is in use is detached.
        let _used = File::open(rootfs.join("below")).unwrap();
        unmount_all(&rootfs).unwrap();
        assert!(!is_mounted(&rootfs) && !is_mounted(&rootfs.join("below")));
    }

    #[test]
    fn a_target_does_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (source, outside, rootfs) = (
            dir.path().join("source"),
            dir.path().join("outside"),
            dir.path().join("rootfs"),
        );
        for made in [&source, &outside, &rootfs.join("outside")] {
            fs::create_dir_all(made).unwrap();
        }
        std::os::unix::fs::symlink("../outside", rootfs.join("link")).unwrap();
        mount_all(&rootfs, &[bind(&source, "/link", &["bind"])], None).unwrap();
        assert!(!is_mounted(&outside));
        assert!(is_mounted(&rootfs.join("outside")));
        unmount_all(&rootfs).unwrap();
    }

    #[test]
    fn a_failed_mount_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        let mounts = [
            bind(dir.path(), "", &["bind"]),
            bind(Path::new("/nowhere"), "", &["bind"]),
        ];
        let error = mount_all(&rootfs, &mounts, None).unwrap_err();
        assert_eq!(error.kind, crate::error::JobErrorKind::NotFound, "{error}");
        assert!(error.message.contains("/nowhere"), "{error}");
        assert!(!is_mounted(&rootfs));
    }
}
