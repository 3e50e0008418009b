//! Places in a directory tree that no link can lead out of.
//!
//! A directory is found by openat2(2) with RESOLVE_IN_ROOT: whatever links a layer holds, they
//! lead nowhere but into it. What is done there is done relative to that directory's descriptor.
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, major, minor,
    mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

/// The extended attribute by which overlayfs knows a directory whose lower content is hidden.
const OPAQUE: &str = "trusted.overlay.opaque";

/// As many links as the kernel follows on one path, or a loop; containerd's limit.
const MOST_LINKS: usize = 255;

/// A directory tree that is being made.
pub(super) struct Tree(OwnedFd);

impl Tree {
    /// The tree below this directory.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self(openat(AT_FDCWD, root, flags, Mode::empty())?))
    }

    /// A directory of the layer, which must be there.
    pub(super) fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_below(path, OFlag::O_DIRECTORY, ResolveFlag::empty())
    }

    /// Whatever is there.
    pub(super) fn find_any(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_below(path, OFlag::empty(), ResolveFlag::empty())
    }

    fn open_below(&self, path: &Path, flags: OFlag, how: ResolveFlag) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
            .resolve(how | ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.0, path, how)
    }

    /// Where a path leads once every link in it is followed, as far as there is something: a link to
    /// what is not there yet leads to where it will be. As if the tree were the root.
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, Refused> {
        let mut resolved = PathBuf::new();
        let mut links = 0;
        let mut rest: Vec<OsString> = parts(path);
        while let Some(name) = rest.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let followed = resolved.join(&name);
            let nofollow = OFlag::O_NOFOLLOW;
            match self.open_below(&followed, nofollow, ResolveFlag::RESOLVE_NO_SYMLINKS) {
                Ok(there) => match readlinkat(&there, c"") {
                    Ok(target) => {
                        links += 1;
                        if links > MOST_LINKS {
                            return Err(Errno::ELOOP.into());
                        }
                        let target = PathBuf::from(target);
                        if target.is_absolute() {
                            resolved.clear();
                        }
                        rest.extend(parts(&target));
                    }
                    // It is no link.
                    Err(_) => resolved = followed,
                },
                Err(Errno::ENOENT) => resolved = followed,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(resolved)
    }
}

/// The names of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.rev().collect()
}

/// Where an entry goes: a directory of the layer, and a name in it.
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
}

impl Place {
    /// A path to it for calls that take no directory descriptor. It cannot be led astray: the
    /// descriptor's link is the directory itself, and such calls do not follow the last name.
    pub(super) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.parent.as_raw_fd().to_string())
            .join(&self.name)
    }

    /// What is there now.
    pub(super) fn stat(&self) -> Result<Option<FileStat>, Errno> {
        match fstatat(
            &self.parent,
            self.name.as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the directory that is there.
    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.parent, self.name.as_os_str(), flags, Mode::empty())
    }

    /// Makes the directory that a layer has things in and does not list. `there` is what is there.
    pub(super) fn missing_directory(&self, there: Option<&FileStat>) -> Result<(), Refused> {
        match there {
            None => {}
            Some(stat) if is_whiteout(stat) => self.remove(stat)?,
            Some(_) => return Err(Refused::Because("what should be its directory is none")),
        }
        let name = self.name.as_os_str();
        mkdirat(&self.parent, name, Mode::S_IRWXU)?;
        let mode = Mode::from_bits_truncate(0o755);
        fchmodat(&self.parent, name, mode, FchmodatFlags::FollowSymlink)?;
        if there.is_some() {
            self.make_opaque()?;
        }
        Ok(())
    }

    /// Gives the directory that is there the owner, mode, times and extended attributes of another;
    /// of what is no directory, nothing.
    pub(super) fn become_like(&self, other: &OwnedFd) -> io::Result<()> {
        let stat = fstat(other)?;
        if !is(&stat, SFlag::S_IFDIR) {
            return Ok(());
        }
        let name = self.name.as_os_str();
        let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(&self.parent, name, Some(owner), Some(group), nofollow)?;
        let from = format!("/proc/self/fd/{}", other.as_raw_fd());
        for key in xattr::list_deref(&from)? {
            // overlayfs' own marks are not the directory's.
            if key.as_bytes().starts_with(b"trusted.") {
                continue;
            }
            if let Some(value) = xattr::get_deref(&from, &key)? {
                xattr::set(self.path(), &key, &value)?;
            }
        }
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        fchmodat(&self.parent, name, mode, FchmodatFlags::FollowSymlink)?;
        let mtime = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
        let nofollow = UtimensatFlags::NoFollowSymlink;
        Ok(utimensat(&self.parent, name, &mtime, &mtime, nofollow)?)
    }

    /// Marks the directory that is there for overlayfs: nothing of lower layers shows in it.
    pub(super) fn make_opaque(&self) -> io::Result<()> {
        xattr::set(self.path(), OPAQUE, b"y")
    }

    /// Removes what is there, with all that is in it.
    pub(super) fn remove(&self, stat: &FileStat) -> io::Result<()> {
        if is(stat, SFlag::S_IFDIR) {
            return fs::remove_dir_all(self.path());
        }
        Ok(unlinkat(
            &self.parent,
            self.name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        )?)
    }
}

/// Whether it is of this kind.
pub(super) fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// Whether it is overlayfs' mark for a deleted file.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    is(stat, SFlag::S_IFCHR) && (major(stat.st_rdev), minor(stat.st_rdev)) == (0, 0)
}

/// Why an entry was not made.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is not safe, or makes no sense.
    Because(&'static str),
    /// The system refused.
    System(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Because(reason) => f.write_str(reason),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

/// A path of a tar entry as one below the root: tar knows no other place. `..` takes back the name
/// before it, whatever that is, and leads nowhere from the root.
pub(super) fn inside(path: &Path) -> PathBuf {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => drop(inside.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    inside
}
