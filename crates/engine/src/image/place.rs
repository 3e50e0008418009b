//! Places in a directory tree that no link can lead out of.
//!
//! A directory is found by openat2(2) with RESOLVE_IN_ROOT: whatever links a layer holds, they
//! lead nowhere but into it. What is done there is done relative to that directory's descriptor.
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, major, minor, mkdirat,
};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The extended attribute by which overlayfs knows a directory whose lower content is hidden.
const OPAQUE: &str = "trusted.overlay.opaque";

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
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.0, path, how)
    }

    /// A directory of the layer, made if a tar left it out.
    pub(super) fn directory(&self, path: &Path) -> Result<OwnedFd, Refused> {
        match self.find(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            found => return Ok(found?),
        }
        let mut parent = self.find(Path::new(""))?;
        let mut done = PathBuf::new();
        for name in path.components() {
            done.push(name);
            parent = match self.find(&done) {
                Ok(found) => found,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let place = Place {
                        parent,
                        name: name.as_os_str().to_owned(),
                    };
                    self.missing_directory(&place)?;
                    self.find(&done)?
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(parent)
    }

    fn missing_directory(&self, place: &Place) -> Result<(), Refused> {
        let there = place.stat()?;
        match there {
            None => {}
            Some(stat) if is_whiteout(&stat) => place.remove(&stat)?,
            Some(_) => return Err(Refused::Because("what should be its directory is none")),
        }
        let name = place.name.as_os_str();
        mkdirat(&place.parent, name, Mode::S_IRWXU)?;
        let mode = Mode::from_bits_truncate(0o755);
        fchmodat(&place.parent, name, mode, FchmodatFlags::FollowSymlink)?;
        if there.is_some() {
            place.make_opaque()?;
        }
        Ok(())
    }
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

/// A path of a tar entry as one below the root: tar knows no other place.
pub(super) fn inside(path: &Path) -> Result<PathBuf, Refused> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(Refused::Because("`..` leads out of the layer")),
        }
    }
    Ok(inside)
}
