//! A container's root, from the mounted image to pivot_root(2).
//!
//! All of it is made before the root is entered, with the node's /proc: nothing depends on what the
//! image has in its place.
mod cgroups;
mod console;
mod copy_up;
mod devices;
mod hide;
mod joined_procfs;
mod mounts;
mod place;
mod sources;
mod stage;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, fchdir, pivot_root};
use oci_spec::runtime::{Linux, Spec};

pub(super) use self::console::bind as bind_console;
use self::place::Root;
pub(super) use self::sources::Sources;
use super::namespaces::Wanted;
use crate::bundle;
use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError};
use crate::lsm;
use crate::mount_api::{self, Attributes, Depth, MOUNT_ATTR_RDONLY};

/// A root in the making.
struct Making<'a> {
    root: &'a Root,
    /// Where it is on the node.
    name: PathBuf,
    /// The container's, which this process is in.
    cgroup: &'a Cgroup,
    /// Not the node's, so that a cgroup filesystem shows no more than the namespace does.
    in_cgroup_namespace: bool,
    /// Of another, which this process is not in: procfs is to show that one.
    pid_namespace: Option<&'a File>,
    /// Not the node's: some things are not for this process to make.
    in_user_namespace: bool,
    /// `linux.mountLabel`: SELinux's, for all files of new filesystems.
    label: Option<CString>,
}

impl Making<'_> {
    /// A filesystem's options, with the label.
    fn labelled(&self, data: &str) -> String {
        match self.label.as_deref().map(CStr::to_string_lossy) {
            None => data.to_owned(),
            // A label may have commas.
            Some(label) if data.is_empty() => format!("context=\"{label}\""),
            Some(label) => format!("{data},context=\"{label}\""),
        }
    }
}

/// Makes the root of a container in this process's mount namespace, which is its own, runs the hooks
/// that come when all is mounted, and enters it.
pub(super) fn make_and_enter(
    spec: &Spec,
    linux: &Linux,
    rootfs: &Path,
    cgroup: &Cgroup,
    wanted: &Wanted,
    mut sources: Sources,
    hooks: impl FnOnce() -> Result<(), JobError>,
) -> Result<(), JobError> {
    let what = || format!("mount the root filesystem {}", rootfs.display());
    let propagation = Propagation::of(linux)?;
    // In a user namespace, where the builder was when it cloned this process: which need not be
    // somewhere that its root may go.
    let rootfs_from_here = match bundle::has_user_namespace(linux) {
        true => Path::new("."),
        false => rootfs,
    };
    propagation.leave_the_node(rootfs_from_here, rootfs)?;
    let root = Root::open(rootfs_from_here)
        .and_then(|root| root.mounted_on_itself())
        .doing(what)?;
    let making = Making {
        name: place::name_of(&root).doing(what)?,
        root: &root,
        cgroup,
        in_cgroup_namespace: wanted.not_the_nodes.contains(&"cgroup"),
        pid_namespace: wanted.pid_namespace(),
        label: lsm::mount_label(linux)?,
        in_user_namespace: bundle::has_user_namespace(linux),
    };
    let none_masked = umask(Mode::empty());
    let to_close = fill(&making, spec, linux, &mut sources)?;
    umask(none_masked);
    // They mount and make what the container is to have, in their root's directory: all that closes
    // it comes later, and closes what they have made, too.
    fchdir(&root).doing(what)?;
    hooks()?;
    to_close
        .iter()
        .try_for_each(|(mounted, path)| close(mounted, path))?;
    hide::make_read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    hide::mask(&root, masked, making.label.as_deref())?;
    if is_read_only(spec) {
        close(&root, Path::new("/"))?;
    }
    enter(&root).doing(|| format!("make {} the root", rootfs.display()))?;
    propagation.set_of_root()
}

/// Mounts, devices, and the working directory: comes back with the mounts that become read-only.
fn fill<'a>(
    making: &Making<'_>,
    spec: &'a Spec,
    linux: &Linux,
    sources: &mut Sources,
) -> Result<Vec<(OwnedFd, &'a Path)>, JobError> {
    let requested = spec.mounts().as_deref().unwrap_or_default();
    let mut to_close = Vec::new();
    for (at, mount) in requested.iter().enumerate() {
        let mounted = mounts::add(making, mount, sources.take(at))?;
        to_close.extend(mounted.map(|mounted| (mounted, mount.destination().as_path())));
    }
    let dev = requested.iter().find(|mount| mounts::is_dev(mount));
    // A /dev that is the node's, or a volume, is as it is.
    if !dev.is_some_and(mounts::is_bind) {
        let devices = linux.devices().as_deref().unwrap_or_default();
        devices::make(making.root, devices, making.in_user_namespace)?;
        if has_terminal(spec) {
            // While /dev is writable; whether it is no trap is seen when the terminal is there.
            let _ = making.root.make_file(Path::new(console::CONSOLE));
        }
    }
    if let Some(process) = spec.process() {
        // Images name working directories that they lack. Where none can be made, entering it
        // says why.
        let _ = making.root.make_directory(process.cwd());
    }
    Ok(to_close)
}

fn has_terminal(spec: &Spec) -> bool {
    spec.process()
        .as_ref()
        .is_some_and(|process| process.terminal() == Some(true))
}

fn is_read_only(spec: &Spec) -> bool {
    spec.root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true))
}

fn close(mounted: &impl AsFd, path: &Path) -> Result<(), JobError> {
    let read_only = Attributes::set(MOUNT_ATTR_RDONLY);
    mount_api::set(mounted.as_fd(), read_only, Depth::One)
        .doing(|| format!("make {} of the container read-only", path.display()))
}

/// Exchanges the node's root for the container's, and lets go of the node's.
fn enter(root: &Root) -> Result<(), Errno> {
    let nodes = Root::open(Path::new("/"))?;
    fchdir(root)?;
    pivot_root(".", ".")?;
    // The old root now lies on top of the new one; its unmounting is not for the node to see.
    fchdir(&nodes)?;
    set(Path::new("."), MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// `linux.rootfsPropagation`: whether mounts made later on one side are seen on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Propagation {
    kind: Kind,
    /// With an `r` before it: of all mounts of the container, whatever each of them asks for.
    recursive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As with other runtimes: the root is private, and what is bound from the node a slave.
    Unsaid,
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    fn of(linux: &Linux) -> Result<Self, JobError> {
        let asked = linux.rootfs_propagation().as_deref().unwrap_or_default();
        let (recursive, kind) = match asked.strip_prefix('r') {
            Some(kind) => (true, kind),
            None => (false, asked),
        };
        let kind = match kind {
            "" => Kind::Unsaid,
            "private" => Kind::Private,
            "slave" => Kind::Slave,
            "shared" => Kind::Shared,
            "unbindable" => Kind::Unbindable,
            _ => {
                return Err(JobError::invalid(format!(
                    "linux.rootfsPropagation {asked:?} is none of private, slave, shared and \
                     unbindable"
                )));
            }
        };
        Ok(Self { kind, recursive })
    }

    /// Sets that of the node's mounts, as this mount namespace has them, and so that of what is
    /// bound from them.
    fn leave_the_node(self, rootfs_from_here: &Path, rootfs: &Path) -> Result<(), JobError> {
        let flag = match self.kind {
            Kind::Private => MsFlags::MS_PRIVATE,
            Kind::Shared => MsFlags::MS_SHARED,
            Kind::Unsaid | Kind::Slave | Kind::Unbindable => MsFlags::MS_SLAVE,
        };
        let what = || "set the propagation of the node's mounts in the container's namespace";
        set(Path::new("/"), flag | MsFlags::MS_REC).doing(what)?;
        if self.kind == Kind::Slave {
            return Ok(());
        }
        // The root is a copy of the mount that it is in; with this one private, so is the copy.
        // pivot_root(2) wants that, and so do those who would see the new root on the node.
        for above in [rootfs_from_here].into_iter().chain(rootfs.ancestors()) {
            match set(above, MsFlags::MS_PRIVATE) {
                // Not where something is mounted; or not where root of the user namespace may go.
                Err(Errno::EINVAL | Errno::EACCES) => {}
                done => return done.doing(what),
            }
        }
        Ok(())
    }

    /// Sets that of the container's root, which this process is in.
    fn set_of_root(self) -> Result<(), JobError> {
        let flag = match self.kind {
            Kind::Unsaid | Kind::Private | Kind::Slave => return Ok(()),
            Kind::Shared => MsFlags::MS_SHARED,
            Kind::Unbindable => MsFlags::MS_UNBINDABLE,
        };
        let depth = match self.recursive {
            true => MsFlags::MS_REC,
            false => MsFlags::empty(),
        };
        set(Path::new("/"), flag | depth).doing(|| "set the propagation of the container's root")
    }
}

fn set(mounted: &Path, flags: MsFlags) -> Result<(), Errno> {
    let none = None::<&str>;
    mount(none, mounted, none, flags, none)
}
