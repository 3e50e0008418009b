//! Places below the root that is being made. Whoever wrote the image, or shares a volume with the
//! container, may change what is below it at any time: every path is resolved once, by the kernel,
//! as a process would whose root it is, and what follows is done to the descriptor.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

use crate::mount_api::{self, Depth};

/// How many dangling links to follow in a row, as the kernel counts them in path_resolution(7).
const MOST_LINKS: u32 = 40;
/// How often to resolve a path anew while files are being renamed.
const MOST_TRIES: u32 = 1000;
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// The directory that becomes the container's root.
pub(super) struct Root(OwnedFd);

impl Root {
    /// A path of the node's.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map(Self)
    }

    /// A copy of all that is mounted there, which pivot_root(2) can then exchange for the node's.
    pub(super) fn mounted_on_itself(&self) -> Result<Self, Errno> {
        let copy = mount_api::copy(self.as_fd(), Depth::All)?;
        mount_api::attach(&copy, self.as_fd())?;
        Ok(Self(copy))
    }

    /// What a path leads to. Not through `/proc/PID/fd` and the like, which lead anywhere.
    pub(super) fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlag::empty(), ResolveFlag::empty())
    }

    /// A directory that no symbolic link leads to.
    pub(super) fn find_plain_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// A directory, which is made if it is not there, with those above it.
    pub(super) fn make_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.make(path, &mut 0, new_directory)
    }

    /// A file, which is made if nothing is there, with the directories above it.
    pub(super) fn make_file(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.make(path, &mut 0, new_file)
    }

    fn make(
        &self,
        path: &Path,
        links: &mut u32,
        new: fn(BorrowedFd<'_>, &Path) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        match self.find(path) {
            Err(Errno::ENOENT) => {}
            found => return found,
        }
        let above = path.parent().ok_or(Errno::ENOENT)?;
        let parent = self.make(above, links, new_directory)?;
        // A path that ends with `..` is there once what is before it is.
        let Some(name) = path.file_name().map(Path::new) else {
            return self.find(path);
        };
        match new(parent.as_fd(), name) {
            Ok(()) => self.find(path),
            // A link to what is not there, or someone was quicker.
            Err(Errno::EEXIST) => match readlinkat(&parent, name) {
                Ok(target) if *links < MOST_LINKS => {
                    *links += 1;
                    self.make(&above.join(PathBuf::from(target)), links, new)
                }
                Ok(_) => Err(Errno::ELOOP),
                Err(_) => self.find(path),
            },
            Err(errno) => Err(errno),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlag, resolve: ResolveFlag) -> Result<OwnedFd, Errno> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let below = match below.as_os_str().is_empty() {
            true => Path::new("."),
            false => below,
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | resolve);
        // A rename elsewhere on the node may make the kernel unsure whether `..` led out. Whoever
        // renames without end must not hold the builder up for as long.
        for _ in 0..MOST_TRIES {
            match openat2(&self.0, below, how) {
                Err(Errno::EAGAIN) => {}
                answer => return answer,
            }
        }
        Err(Errno::EAGAIN)
    }
}

fn new_directory(parent: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    mkdirat(parent, name, DIRECTORY_MODE)
}

fn new_file(parent: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, FILE_MODE).map(drop)
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A path that leads to what a descriptor stands for, for as long as it is open: for calls that
/// know no descriptors. /proc must be the node's.
pub(super) fn path_of(place: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", place.as_fd().as_raw_fd())
}

/// Where a place is in the node's mount namespace.
pub(super) fn name_of(place: &impl AsFd) -> Result<PathBuf, Errno> {
    readlinkat(AT_FDCWD, path_of(place).as_str()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn image() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        fs::create_dir(&path).unwrap();
        fs::write(dir.path().join("secret"), "").unwrap();
        let root = Root::open(&path).unwrap();
        (dir, root)
    }

    #[test]
    fn a_path_that_is_there_is_found_and_one_that_is_not_is_made() {
        let (dir, root) = image();
        let made = root.make_directory(Path::new("/a/b/c")).unwrap();
        assert_eq!(name_of(&made).unwrap(), dir.path().join("root/a/b/c"));
        root.make_file(Path::new("/a/file")).unwrap();
        assert!(dir.path().join("root/a/file").is_file());
        root.make_file(Path::new("/a/file")).unwrap();
        assert_eq!(root.find(Path::new("/x")).unwrap_err(), Errno::ENOENT);
        root.find(Path::new("/")).unwrap();
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (dir, root) = image();
        let image = dir.path().join("root");
        symlink("../../..", image.join("up")).unwrap();
        symlink("/secret", image.join("absolute")).unwrap();
        symlink("../secret", image.join("relative")).unwrap();
        for path in ["/../secret", "/absolute", "/relative", "/up/secret"] {
            assert_eq!(
                root.find(Path::new(path)).unwrap_err(),
                Errno::ENOENT,
                "{path}"
            );
        }
        root.make_directory(Path::new("/up/made")).unwrap();
        assert!(image.join("made").is_dir());
        root.make_directory(Path::new("/../../beside")).unwrap();
        assert!(image.join("beside").is_dir());
    }

    #[test]
    fn a_link_to_what_is_not_there_is_followed_inside() {
        let (dir, root) = image();
        let image = dir.path().join("root");
        fs::create_dir(image.join("var")).unwrap();
        symlink("/run/here", image.join("var/run")).unwrap();
        symlink("../../../etc", image.join("var/up")).unwrap();
        root.make_directory(Path::new("/var/run/secrets")).unwrap();
        assert!(image.join("run/here/secrets").is_dir());
        root.make_file(Path::new("/var/up/hosts")).unwrap();
        assert!(image.join("etc/hosts").is_file());
        symlink("loop", image.join("loop")).unwrap();
        assert!(root.make_directory(Path::new("/loop/x")).is_err());
    }

    #[test]
    fn a_plain_directory_is_no_link() {
        let (dir, root) = image();
        let image = dir.path().join("root");
        fs::create_dir(image.join("etc")).unwrap();
        symlink("etc", image.join("proc")).unwrap();
        root.find_plain_directory(Path::new("/etc")).unwrap();
        assert!(root.find_plain_directory(Path::new("/proc")).is_err());
    }

    #[test]
    fn magic_links_are_not_followed() {
        let root = Root::open(Path::new("/")).unwrap();
        assert_eq!(
            root.find(Path::new("/proc/self/root/etc")).unwrap_err(),
            Errno::ELOOP
        );
    }
}
