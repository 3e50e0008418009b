//! What is in /dev besides what is mounted there.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::place::Root;
use crate::error::{Doing, JobError};
use crate::mount_api::{self, Depth};

/// Those that the runtime specification has in every container: name, major and minor.
const DEFAULT: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// As the runtime specification names them: link and target.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// Which not every kernel has.
const KCORE: &str = "/proc/kcore";
const FOR_ALL: u32 = 0o666;

/// A device as mknod(2) knows it.
struct Device<'a> {
    path: &'a Path,
    kind: SFlag,
    mode: u32,
    number: libc::dev_t,
    owner: Option<(u32, u32)>,
}

/// Makes devices and links. The umask must be 0. In a user namespace, which no device may be made in,
/// the node's are bound.
pub(super) fn make(root: &Root, devices: &[LinuxDevice], bind: bool) -> Result<(), JobError> {
    let dev = root
        .make_directory(Path::new("/dev"))
        .doing(|| "make the directory /dev of the container")?;
    for (link, target) in LINKS {
        make_link(&dev, link, target)?;
    }
    if Path::new(KCORE).exists() {
        make_link(&dev, "core", KCORE)?;
    }
    for (name, major, minor) in DEFAULT {
        let path = Path::new("/dev").join(name);
        if devices.iter().any(|device| *device.path() == path) {
            continue;
        }
        let device = Device {
            path: &path,
            kind: SFlag::S_IFCHR,
            mode: FOR_ALL,
            number: makedev(major, minor),
            owner: None,
        };
        make_device(&dev, Path::new(name), &device, bind)?;
    }
    for device in devices {
        make_asked(root, device, bind)?;
    }
    // Some images have one: only this one leads to the container's own terminals.
    match unlinkat(&dev, "ptmx", UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(JobError::from_errno(errno, "replace /dev/ptmx")),
    }
    make_link(&dev, "ptmx", "pts/ptmx")
}

fn make_asked(root: &Root, asked: &LinuxDevice, bind: bool) -> Result<(), JobError> {
    let path = asked.path();
    let what = || format!("make the device {}", path.display());
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(JobError::invalid(format!(
            "linux.devices: {} is not the path of a device",
            path.display()
        )));
    };
    let number = |number: i64| {
        u64::try_from(number)
            .map_err(|_| JobError::invalid(format!("cannot {}: a negative number", what())))
    };
    let kind = match asked.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(JobError::invalid(format!(
                "cannot {}: the type a is for rules, not for devices",
                what()
            )));
        }
    };
    let number = match kind {
        SFlag::S_IFIFO => 0,
        _ => makedev(number(asked.major())?, number(asked.minor())?),
    };
    let device = Device {
        path,
        kind,
        mode: asked.file_mode().unwrap_or(FOR_ALL),
        number,
        owner: Some((asked.uid().unwrap_or(0), asked.gid().unwrap_or(0))),
    };
    let parent = root.make_directory(above).doing(what)?;
    make_device(&parent, Path::new(name), &device, bind)
}

fn make_device(
    parent: &OwnedFd,
    name: &Path,
    device: &Device<'_>,
    bind: bool,
) -> Result<(), JobError> {
    if bind && device.kind != SFlag::S_IFIFO {
        return bind_device(parent, name, device);
    }
    let what = || format!("mknod {}", device.path.display());
    let mode = Mode::from_bits_truncate(device.mode);
    match mknodat(parent, name, device.kind, mode, device.number) {
        Ok(()) => {}
        // The image's, or that of a container before it: this very device, or a trap
        // (CVE-2025-31133).
        Err(Errno::EEXIST) if is_there(parent, name, device) => {}
        Err(errno) => return Err(JobError::from_errno(errno, what())),
    }
    let Some((user, group)) = device.owner.filter(|owner| *owner != (0, 0)) else {
        return Ok(());
    };
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    let itself = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(parent, name, Some(user), Some(group), itself)
        // Changing the owner takes set-id bits away.
        .and_then(|()| fchmodat(parent, name, mode, FchmodatFlags::NoFollowSymlink))
        .doing(what)
}

/// Shows the node's device of that path, if it is the one that is meant.
fn bind_device(parent: &OwnedFd, name: &Path, device: &Device<'_>) -> Result<(), JobError> {
    let path = device.path.display();
    let what = || format!("bind the node's {path}");
    let itself = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let theirs = open(device.path, itself, Mode::empty()).doing(what)?;
    let stat = fstat(&theirs).doing(what)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind != device.kind || stat.st_rdev != device.number {
        return Err(JobError::invalid(format!(
            "linux.devices: the node's {path} is another device, and in a user namespace none is made"
        )));
    }
    let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, new, Mode::empty()) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(JobError::from_errno(errno, what())),
    }
    let place = openat(parent, name, itself, Mode::empty()).doing(what)?;
    // A link of the image's would lead the mount astray.
    let found = fstat(&place).doing(what)?.st_mode;
    if SFlag::from_bits_truncate(found) & SFlag::S_IFMT == SFlag::S_IFLNK {
        return Err(JobError::invalid(format!(
            "cannot {}: it is a link",
            what()
        )));
    }
    mount_api::copy(theirs.as_fd(), Depth::One)
        .and_then(|copy| mount_api::attach(copy, place.as_fd()))
        .doing(what)
}

fn is_there(parent: &OwnedFd, name: &Path, device: &Device<'_>) -> bool {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        kind == device.kind && stat.st_rdev == device.number
    })
}

fn make_link(dev: &OwnedFd, name: &str, target: &str) -> Result<(), JobError> {
    match symlinkat(target, dev.as_fd(), name) {
        // The image's own is as good: it is the container that follows it.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(JobError::from_errno(
            errno,
            format!("make the link /dev/{name}"),
        )),
    }
}
