//! A container's mounts, from its spec.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};
use oci_spec::runtime::{Mount, Spec};

use crate::cgroup::Place;

/// Makes all mounts of the spec below `rootfs`, and that the root.
pub(crate) fn make(spec: &Spec, rootfs: &Path, places: &[Place]) -> Result<()> {
    attach(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        "",
    )?;
    attach(
        Some(rootfs),
        rootfs,
        None,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        "",
    )?;
    chdir(rootfs).context("enter the root")?;
    for mount in spec.mounts().iter().flatten() {
        let below = mount
            .destination()
            .strip_prefix("/")
            .unwrap_or(mount.destination());
        if mount.typ().as_deref() == Some("cgroup") {
            cgroups(mount, below, places)?;
        } else {
            let (flags, data) = options(mount);
            fs::create_dir_all(below).with_context(|| format!("make {}", below.display()))?;
            attach(
                mount.source().as_deref(),
                below,
                mount.typ().as_deref(),
                flags,
                &data,
            )?;
        }
    }
    null_device()?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmount the node's root")?;
    chdir("/").context("enter the new root")?;
    let linux = spec.linux().as_ref().context("the spec is not Linux's")?;
    for path in linux.readonly_paths().iter().flatten() {
        make_read_only(Path::new(path))?;
    }
    for path in linux.masked_paths().iter().flatten() {
        mask(Path::new(path))?;
    }
    if spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true))
    {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        attach(None, Path::new("/"), None, flags, "")?;
    }
    Ok(())
}

/// The flags among a mount's options, and the rest as the filesystem's own.
fn options(mount: &Mount) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => flags &= !MsFlags::MS_RDONLY,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// With v2 the filesystem itself; with v1 the container's cgroup of each hierarchy, as runc does.
fn cgroups(mount: &Mount, below: &Path, places: &[Place]) -> Result<()> {
    let (flags, _) = options(mount);
    fs::create_dir_all(below).with_context(|| format!("make {}", below.display()))?;
    if places.iter().all(|place| place.hierarchy.is_empty()) {
        return attach(None, below, Some("cgroup2"), flags, "");
    }
    let writable = flags & !MsFlags::MS_RDONLY;
    attach(None, below, Some("tmpfs"), writable, "mode=755")?;
    for place in places {
        let target = below.join(&place.hierarchy);
        fs::create_dir(&target).with_context(|| format!("make {}", target.display()))?;
        attach(Some(&place.directory), &target, None, MsFlags::MS_BIND, "")?;
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
        attach(None, &target, None, again, "")?;
    }
    let again = MsFlags::MS_REMOUNT | flags;
    attach(None, below, None, again, "mode=755")
}

/// What files are masked with, and the link that every container's /dev has to its terminals.
fn null_device() -> Result<()> {
    let mode = Mode::from_bits_truncate(0o666);
    mknod("dev/null", SFlag::S_IFCHR, mode, makedev(1, 3)).context("make /dev/null")?;
    symlink("pts/ptmx", "dev/ptmx").context("make /dev/ptmx")
}

/// Paths that this kernel does not have need no protection.
fn present(made: nix::Result<()>, what: &str, path: &Path) -> Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("{what} {}", path.display())),
    }
}

fn make_read_only(path: &Path) -> Result<()> {
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let bound = mount(Some(path), path, None::<&str>, bind, None::<&str>);
    if !present(bound, "bind", path)? {
        return Ok(());
    }
    // What /proc has is kept: a remount that drops a flag is not a protection.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
    attach(None, path, None, again, "")
}

fn mask(path: &Path) -> Result<()> {
    let null = Path::new("/dev/null");
    match mount(
        Some(null),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    ) {
        Err(Errno::ENOTDIR) => attach(
            Some(Path::new("tmpfs")),
            path,
            Some("tmpfs"),
            MsFlags::MS_RDONLY,
            "",
        ),
        bound => present(bound, "mask", path).map(drop),
    }
}

fn attach(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: &str,
) -> Result<()> {
    mount(source, target, kind, flags, Some(data)).with_context(|| {
        let source = source.map(PathBuf::from).unwrap_or_default();
        format!(
            "mount {} {} at {}",
            kind.unwrap_or("bind"),
            source.display(),
            target.display()
        )
    })
}
