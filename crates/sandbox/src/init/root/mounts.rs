//! The mounts of a spec.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime::Mount;

use super::place::{Root, name_of, path_of};
use super::stage::Stage;
use super::{Making, cgroups, copy_up, joined_procfs};
use crate::error::JobError;
use crate::lsm;
use crate::mount_api::{self, Attributes, Depth, MOUNT_ATTR_RDONLY};
use crate::rootfs::options::Options;

/// The filesystem of POSIX message queues, of one IPC namespace.
pub(super) const MQUEUE: &str = "mqueue";

/// What lxcfs and its like put over single files of /proc.
const OVER_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Mounts one of them; `prepared` is what the builder has made of it. Answers with the mount if it
/// must become read-only when the root is whole: what belongs there has to be made first.
pub(super) fn add(
    making: &Making<'_>,
    request: &Mount,
    prepared: Option<OwnedFd>,
) -> Result<Option<OwnedFd>, JobError> {
    let options = request.options().as_deref().unwrap_or_default();
    let mut options =
        Options::parse(options).map_err(|reason| JobError::invalid(refusal(request, reason)))?;
    if options.is_longer_than_a_page() {
        let reason = "its options are longer than the page that mount(2) takes";
        return Err(JobError::invalid(refusal(request, reason)));
    }
    if options.id_map.is_some() {
        let reason =
            "uidmap and gidmap are options of root filesystems: set uidMappings and gidMappings";
        return Err(JobError::invalid(refusal(request, reason)));
    }
    let kind = request.typ().as_deref();
    let is_filled = kind == Some("tmpfs") || is_dev(request) && kind != Some("cgroup");
    let is_closed_later = is_filled && options.flags.contains(MsFlags::MS_RDONLY);
    if is_closed_later {
        options.flags.remove(MsFlags::MS_RDONLY);
    }
    let done = match kind {
        Some("cgroup") => cgroups::mount(making, request, &options).map(|()| None),
        _ if is_bind(request) => bind(making, request, &options, prepared).map(Some),
        Some(MQUEUE) if prepared.is_some() => queues(making, request, &options, prepared),
        Some(kind) => filesystem(making, request, kind, options, is_closed_later),
        None => Err(Refused::Because("it has no type, and is no bind mount")),
    };
    let mounted = done.map_err(|refused| refused.about(request))?;
    Ok(mounted.filter(|_| is_closed_later))
}

/// Why something is not mounted.
pub(super) enum Refused {
    /// It makes no sense, or would be dangerous.
    Because(&'static str),
    ByKernel(Errno),
    Explained(JobError),
}

impl Refused {
    /// The error, for whoever asked for the mount.
    pub(super) fn about(self, request: &Mount) -> JobError {
        match self {
            Self::Because(reason) => JobError::invalid(refusal(request, reason)),
            Self::ByKernel(errno) => {
                JobError::from_errno(errno, format_args!("mount {}", describe(request)))
            }
            Self::Explained(error) => error,
        }
    }
}

impl From<JobError> for Refused {
    fn from(error: JobError) -> Self {
        Self::Explained(error)
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::ByKernel(errno)
    }
}

/// Whether this mount is at `/dev`.
pub(super) fn is_dev(request: &Mount) -> bool {
    request
        .destination()
        .components()
        .eq(Path::new("/dev").components())
}

/// Whether this mount shows something that is mounted elsewhere.
pub(super) fn is_bind(request: &Mount) -> bool {
    let options = request.options().as_deref().unwrap_or_default();
    request.typ().as_deref() == Some("bind")
        || options
            .iter()
            .any(|option| matches!(option.as_str(), "bind" | "rbind"))
}

fn bind(
    making: &Making<'_>,
    request: &Mount,
    options: &Options,
    prepared: Option<OwnedFd>,
) -> Result<OwnedFd, Refused> {
    if !options.data.is_empty() {
        return Err(Refused::Because(
            "a bind mount has no options of a filesystem, which would be ignored",
        ));
    }
    if options.copies_up {
        return Err(Refused::Because("tmpcopyup is for a tmpfs"));
    }
    let tree = match prepared {
        Some(tree) => tree,
        None => copy(&open_source(request)?, options)?,
    };
    let place = match kind_of(&tree)? {
        SFlag::S_IFDIR => making.root.make_directory(request.destination())?,
        _ => making.root.make_file(request.destination())?,
    };
    check_place(making, &place, request, Some(&tree))?;
    attach(&tree, &place, options)?;
    Ok(tree)
}

/// What a bind mount shows. The node's own links are followed: the spec is the node's.
pub(super) fn open_source(request: &Mount) -> Result<OwnedFd, Refused> {
    let source = request
        .source()
        .as_deref()
        .ok_or(Refused::Because("it is a bind mount without a source"))?;
    Ok(open(
        source,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// Binds, with all attributes in force before anyone sees it.
pub(super) fn bind_to(source: &OwnedFd, place: &OwnedFd, options: &Options) -> Result<(), Refused> {
    attach(&copy(source, options)?, place, options)
}

/// A copy of what is mounted there, with all its attributes, attached nowhere yet.
pub(super) fn copy(source: &OwnedFd, options: &Options) -> Result<OwnedFd, Errno> {
    let tree = mount_api::copy(source.as_fd(), Depth::of(options.flags))?;
    let own = options.of_a_bind();
    if own != Attributes::default() {
        match mount_api::set(tree.as_fd(), own, Depth::One) {
            Err(Errno::EPERM) => {
                let fewer = options.of_a_locked_bind().ok_or(Errno::EPERM)?;
                mount_api::set(tree.as_fd(), fewer, Depth::One)?;
            }
            done => done?,
        }
    }
    set_recursive(&tree, options)?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, place: &OwnedFd, options: &Options) -> Result<(), Refused> {
    mount_api::attach(tree, place.as_fd())?;
    // Only now: below a mount that is shared it became shared, too.
    Ok(set_propagation(tree, options)?)
}

/// Those that the builder has made.
fn queues(
    making: &Making<'_>,
    request: &Mount,
    options: &Options,
    prepared: Option<OwnedFd>,
) -> Result<Option<OwnedFd>, Refused> {
    let Some(queues) = prepared else {
        return Ok(None);
    };
    let place = making.root.make_directory(request.destination())?;
    check_place(making, &place, request, None)?;
    mount_api::set(queues.as_fd(), options.of_a_bind(), Depth::One)?;
    set_recursive(&queues, options)?;
    attach(&queues, &place, options)?;
    Ok(None)
}

/// Answers with the mount where something is still to be done to it.
fn filesystem(
    making: &Making<'_>,
    request: &Mount,
    kind: &str,
    mut options: Options,
    is_closed_later: bool,
) -> Result<Option<OwnedFd>, Refused> {
    if options.copies_up && kind != "tmpfs" {
        return Err(Refused::Because("tmpcopyup is for a tmpfs"));
    }
    let destination = request.destination();
    if options.flags.contains(MsFlags::MS_REMOUNT) {
        return remount(making, request, kind, &options).map(Some);
    }
    let place = match kind {
        // Elsewhere, what is masked in them would not be masked (CVE-2019-19921).
        "proc" | "sysfs" => plain_directory(making.root, destination)?,
        "tmpfs" => place_of_tmpfs(making.root, destination, &mut options)?,
        _ => making.root.make_directory(destination)?,
    };
    check_place(making, &place, request, None)?;
    if !matches!(kind, "proc" | "sysfs" | MQUEUE) {
        options.data = making.labelled(&options.data);
    }
    let source = request.source().as_deref().unwrap_or(Path::new(kind));
    if let Some(namespace) = making.pid_namespace.filter(|_| kind == "proc") {
        let procfs = joined_procfs::mount(namespace, source, &options.data)?;
        mount_api::set(procfs.as_fd(), options.of_a_bind(), Depth::One)?;
        set_recursive(&procfs, &options)?;
        attach(&procfs, &place, &options)?;
        return Ok(None);
    }
    let label = making.label.as_deref().filter(|_| kind == MQUEUE);
    let is_finished = options.recursive.is_none()
        && options.propagation.is_none()
        && !options.copies_up
        && !is_closed_later
        && label.is_none();
    let stage = match is_finished {
        true => None,
        false => Some(Stage::set_up(making.root)?),
    };
    let first = stage.as_ref().map(Stage::place).transpose()?;
    match new_filesystem(source, kind, first.as_ref().unwrap_or(&place), &options) {
        // Of a network namespace that another user namespace owns.
        Err(Errno::EPERM) if kind == "sysfs" && making.in_user_namespace => {
            show_the_nodes_sysfs(&place, &options)?;
            return Ok(None);
        }
        done => done?,
    }
    let Some(stage) = stage else {
        return Ok(None);
    };
    let mounted = stage.place()?;
    if options.copies_up {
        copy_up::copy(&place, &mounted)?;
    }
    if let Some(label) = label {
        lsm::label_file(&path_of(&mounted), label)?;
    }
    set_recursive(&mounted, &options)?;
    attach(&mounted, &place, &options)?;
    Ok(Some(mounted))
}

/// Changes what an earlier mount of the spec has put there, and makes nothing.
fn remount(
    making: &Making<'_>,
    request: &Mount,
    kind: &str,
    options: &Options,
) -> Result<OwnedFd, Refused> {
    if options.copies_up {
        return Err(Refused::Because("a remount covers nothing to copy up"));
    }
    let mounted = making.root.find(request.destination())?;
    check_place(making, &mounted, request, None)?;
    let source = request.source().as_deref().unwrap_or(Path::new(kind));
    new_filesystem(source, kind, &mounted, options)?;
    set_recursive(&mounted, options)?;
    set_propagation(&mounted, options)?;
    Ok(mounted)
}

/// The directory that a tmpfs covers. What is there gives the tmpfs its mode and owner, which the
/// options may then change: a home directory that only root may look into stays one.
fn place_of_tmpfs(root: &Root, path: &Path, options: &mut Options) -> Result<OwnedFd, Refused> {
    /// What the kernel shows for an owner that a user namespace has no number for.
    const NOBODY: u32 = 65_534;
    let place = match root.find(path) {
        Err(Errno::ENOENT) => return Ok(root.make_directory(path)?),
        found => found?,
    };
    let stat = fstat(&place)?;
    let mut data = format!("mode={:o}", stat.st_mode & 0o7777);
    for (name, id) in [("uid", stat.st_uid), ("gid", stat.st_gid)] {
        if id != 0 && id != NOBODY {
            data = format!("{data},{name}={id}");
        }
    }
    if !options.data.is_empty() {
        data = format!("{data},{}", options.data);
    }
    options.data = data;
    Ok(place)
}

/// Binds what the node has, with all below it read-only: init may not make another, nor write there.
fn show_the_nodes_sysfs(place: &OwnedFd, options: &Options) -> Result<(), Refused> {
    let sysfs = open("/sys", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let tree = mount_api::copy(sysfs.as_fd(), Depth::All)?;
    mount_api::set(tree.as_fd(), Attributes::set(MOUNT_ATTR_RDONLY), Depth::All)?;
    let own = options.of_a_bind();
    if own != Attributes::default() {
        mount_api::set(tree.as_fd(), own, Depth::One)?;
    }
    attach(&tree, place, options)
}

pub(super) fn new_filesystem(
    source: &Path,
    kind: &str,
    place: &OwnedFd,
    options: &Options,
) -> Result<(), Errno> {
    let data = Some(options.data.as_str()).filter(|data| !data.is_empty());
    // One call, where fsopen(2) and its kin need one more for each option.
    mount(
        Some(source),
        path_of(place).as_str(),
        Some(kind),
        options.flags,
        data,
    )
}

fn plain_directory(root: &Root, path: &Path) -> Result<OwnedFd, Refused> {
    let found = match root.find_plain_directory(path) {
        Err(Errno::ENOENT) => {
            root.make_directory(path)?;
            root.find_plain_directory(path)
        }
        found => found,
    };
    found.map_err(|errno| match errno {
        Errno::ELOOP | Errno::ENOTDIR => {
            Refused::Because("its destination is not an ordinary directory of the image")
        }
        errno => Refused::ByKernel(errno),
    })
}

fn set_recursive(mount: &OwnedFd, options: &Options) -> Result<(), Errno> {
    if let Some(recursive) = options.recursive {
        mount_api::set(mount.as_fd(), recursive, Depth::All)?;
    }
    Ok(())
}

fn set_propagation(mount: &OwnedFd, options: &Options) -> Result<(), Errno> {
    if let Some(propagation) = options.propagation {
        let attributes = Attributes::propagation(propagation);
        mount_api::set(mount.as_fd(), attributes, Depth::of(propagation))?;
    }
    Ok(())
}

/// Refuses a place that the mount would make a trap of. At the root itself it would hide what is
/// mounted below, or be hidden; and a container that saw something else in /proc could be led to
/// write anywhere (CVE-2019-16884).
pub(super) fn check_place(
    making: &Making<'_>,
    place: &OwnedFd,
    request: &Mount,
    bound: Option<&OwnedFd>,
) -> Result<(), Refused> {
    let name = name_of(place)?;
    let Ok(below) = name.strip_prefix(&making.name) else {
        return Err(Refused::Because("its destination is not below the root"));
    };
    if below.as_os_str().is_empty() {
        return Err(Refused::Because(
            "its destination is the root itself, which root.path is for",
        ));
    }
    let Ok(in_proc) = below.strip_prefix("proc") else {
        return Ok(());
    };
    let allowed = if in_proc.as_os_str().is_empty() {
        match bound {
            Some(fd) => fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC),
            None => request.typ().as_deref() == Some("proc"),
        }
    } else {
        OVER_PROC
            .iter()
            .any(|file| Path::new("/").join(below) == Path::new(file))
    };
    if allowed {
        return Ok(());
    }
    Err(Refused::Because(
        "over /proc only a procfs may be mounted, and over its files only some",
    ))
}

fn kind_of(file: &OwnedFd) -> Result<SFlag, Errno> {
    Ok(SFlag::from_bits_truncate(fstat(file)?.st_mode) & SFlag::S_IFMT)
}

fn refusal(request: &Mount, reason: impl std::fmt::Display) -> String {
    format!("cannot mount {}: {reason}", describe(request))
}

pub(super) fn describe(request: &Mount) -> String {
    let kind = match request.typ().as_deref() {
        Some(kind) if kind != "none" => kind,
        _ => "bind",
    };
    let source = request.source().as_deref().unwrap_or(Path::new("nothing"));
    format!(
        "{kind} {} at {}",
        source.display(),
        request.destination().display()
    )
}
