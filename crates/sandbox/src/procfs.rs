//! A procfs that is one, for what the kernel is told through it.
//!
//! Whoever controls a mount namespace controls what is found at /proc in it, and over single files
//! there: what is written to `attr/exec` could go elsewhere, and the process run unconfined, or be
//! written where it changes the node (CVE-2019-16884, CVE-2025-52881). So nothing is written by a
//! path. The files are opened from a procfs of our own that is mounted nowhere, or, where none may be
//! made, from the root of one that was seen to be that, and no link and no other mount is crossed.
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::mount_api::{self, Depth};

/// The inode of a procfs's root, and of nothing else in it: `PROC_ROOT_INO` of linux/proc_ns.h.
const ROOT_INODE: u64 = 1;

/// The root of a procfs.
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// One that shows the processes of this process's pid namespace, and that nobody else can
    /// mount over.
    pub(crate) fn private() -> Result<Self, Errno> {
        // Processes are all that is written to; the kernel need not make the rest.
        match mount_api::new_filesystem(c"proc", &[(c"subset", Some(c"pid"))]) {
            Ok(root) => Ok(Self(root)),
            // A user namespace that does not own the pid namespace, or an older kernel.
            Err(_) => {
                let mounted = Self::mounted()?;
                // Without what is mounted on it, if this process may.
                let bare = mount_api::copy(mounted.0.as_fd(), Depth::One);
                Ok(bare.map_or(mounted, Self))
            }
        }
    }

    /// The one at /proc of this process's mount namespace.
    pub(crate) fn mounted() -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open("/proc", flags, Mode::empty())?;
        if !is_of_procfs(&root)? || fstat(&root)?.st_ino != ROOT_INODE {
            return Err(Errno::EXDEV);
        }
        Ok(Self(root))
    }

    /// Opens a file to write to it, `EXDEV` or `ELOOP` when something else is in its way.
    pub(crate) fn open_to_write(&self, path: &Path) -> Result<File, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_XDEV
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS
                    | ResolveFlag::RESOLVE_NO_SYMLINKS,
            );
        let file = openat2(&self.0, path, how)?;
        let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG || !is_of_procfs(&file)? {
            return Err(Errno::EXDEV);
        }
        Ok(File::from(file))
    }

    /// Opens a file of this thread's own, such as `attr/exec`, to write to it.
    pub(crate) fn open_own_to_write(&self, path: &str) -> Result<File, Errno> {
        // A link, but one whose text the kernel makes up: `PID/task/TID`.
        let own = readlinkat(&self.0, "thread-self")?;
        self.open_to_write(&PathBuf::from(own).join(path))
    }
}

fn is_of_procfs(file: &impl AsFd) -> Result<bool, Errno> {
    Ok(fstatfs(file)?.filesystem_type() == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_thread_finds_its_own_files() {
        for procfs in [Procfs::private().unwrap(), Procfs::mounted().unwrap()] {
            let mut comm = procfs.open_own_to_write("comm").unwrap();
            comm.write_all(b"checked").unwrap();
            let path = format!("/proc/self/task/{}/comm", nix::unistd::gettid());
            assert_eq!(std::fs::read_to_string(path).unwrap(), "checked\n");
        }
    }

    #[test]
    fn nothing_else_is_opened() {
        let procfs = Procfs::mounted().unwrap();
        for path in [
            "self/comm",
            "/proc/self/comm",
            "1/root/etc/passwd",
            "../etc/passwd",
        ] {
            let opened = procfs.open_to_write(Path::new(path));
            assert!(matches!(opened, Err(Errno::ELOOP | Errno::EXDEV)), "{path}");
        }
    }
}
