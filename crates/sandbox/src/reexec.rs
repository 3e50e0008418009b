//! Executes this program anew, from a mount that nothing can be written through.
//!
//! What is on its way into a container runs this program's file until it executes another. A
//! container gets at that file: it executes a script whose interpreter is /proc/self/exe, or, with
//! CAP_SYS_PTRACE, opens /proc/PID/exe, and keeps the descriptor until no process runs the file any
//! more. It must not be possible to write through that descriptor then (CVE-2019-5736).
//!
//! So the shim's daemon, and with it all that it forks, runs the same file by way of a mount of its
//! own: a copy (open_tree(2)) of the mount that the file is on, from the file's directory on, which is
//! read-only (mount_setattr(2)). Its memory is shared with every other pod's, as before. The copy is
//! attached nowhere, and in no mount namespace once its descriptor is closed: nobody can remount it,
//! change its attributes, bind it or move it (all four want a mount of a mount namespace, and answer
//! `EINVAL`), and fspick(2) wants the root of a mount, which a directory is that nobody can name.
//! Every mount of the file that was read-only to begin with would do as well, but for those who may
//! change *that*; so nothing is saved where there is one, and there is one way only.
//!
//! What this costs, against a fork alone: one execve(2) in a process that nobody waits for.
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::execveat;

use crate::mount_api::{
    self, Attributes, Depth, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
};
use crate::sys;

/// Where the first descriptor is that is handed over.
const FIRST: RawFd = 3;

/// This program's file, by way of a read-only mount of its own.
#[derive(Debug)]
pub struct ReadOnlyProgram {
    file: OwnedFd,
    /// The copied mount. Whoever closes it last waits until the kernel has taken it apart: let that
    /// be the process that executes, which closes it thereby.
    _tree: OwnedFd,
}

impl ReadOnlyProgram {
    /// # Errors
    /// `ENOSYS` before Linux 5.12; `EINVAL` where the file is on an unbindable mount, or one of
    /// another mount namespace; `EPERM` without CAP_SYS_ADMIN.
    pub fn open() -> io::Result<Self> {
        const OWN: &str = "/proc/self/exe";
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let file = open(OWN, flags, Mode::empty())?;
        let path = std::fs::read_link(OWN)?;
        if let Some(found) = in_its_directory(&path, &file)? {
            return Ok(found);
        }
        // The file is mounted itself, or was replaced just now.
        let tree = read_only(&file)?;
        let file = tree.try_clone()?;
        Ok(Self { file, _tree: tree })
    }

    /// Executes it. Of the descriptors of this process the next program has standard input, output
    /// and error, and these as 3, 4 and so on; see [`inherited`].
    ///
    /// # Errors
    /// What dup3(2) and execveat(2) say. Descriptors that were where these shall be are closed then.
    pub fn execute<const N: usize>(
        &self,
        arguments: Vec<OsString>,
        environment: Vec<OsString>,
        descriptors: [OwnedFd; N],
    ) -> io::Result<Infallible> {
        let strings = |texts: Vec<OsString>| {
            let texts = texts.into_iter().map(|text| CString::new(text.into_vec()));
            texts.collect::<Result<Vec<CString>, _>>()
        };
        let (arguments, environment) = (strings(arguments)?, strings(environment)?);
        let end = FIRST + RawFd::try_from(N).map_err(io::Error::other)?;
        // Above the places where they shall be, so that none is closed that is still needed.
        let above = |fd: &OwnedFd| {
            let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(end))?;
            // SAFETY: the kernel has just returned this descriptor; no one else owns it.
            Ok::<_, Errno>(unsafe { OwnedFd::from_raw_fd(copy) })
        };
        let program = above(&self.file)?;
        let mut copies = Vec::with_capacity(N);
        for descriptor in &descriptors {
            copies.push(above(descriptor)?);
        }
        sys::close_on_exec_from(FIRST)?;
        for (copy, place) in copies.iter().zip(FIRST..) {
            // SAFETY: dup2(2) takes integers. What is replaced is open for none but this process,
            // which ends by this call or by its failure.
            if unsafe { libc::dup2(copy.as_raw_fd(), place) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let flags = AtFlags::AT_EMPTY_PATH;
        Ok(execveat(&program, c"", &arguments, &environment, flags)?)
    }
}

/// Takes the descriptors that [`ReadOnlyProgram::execute`] has handed over; to be called once.
///
/// # Errors
/// `EBADF`: this program was executed by someone else.
pub fn inherited<const N: usize>() -> io::Result<[OwnedFd; N]> {
    let mut taken = Vec::with_capacity(N);
    for place in (FIRST..).take(N) {
        // SAFETY: whoever executed this program left the descriptor to it, or none: then nothing is
        // done with the number but this call.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(place) };
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // SAFETY: it is open, and by the rule of this function nobody else owns it.
        taken.push(unsafe { OwnedFd::from_raw_fd(place) });
    }
    taken.try_into().map_err(|_| Errno::EBADF.into())
}

/// The file by way of a copy of the mount of its directory, if that is where it is found.
fn in_its_directory(path: &Path, file: &OwnedFd) -> io::Result<Option<ReadOnlyProgram>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let directory = match open(directory, flags | OFlag::O_DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        directory => directory?,
    };
    let tree = read_only(&directory)?;
    let found = match openat(&tree, name, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        found => found?,
    };
    let (own, other) = (fstat(file)?, fstat(&found)?);
    let is_it = (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino);
    Ok(is_it.then_some(ReadOnlyProgram {
        file: found,
        _tree: tree,
    }))
}

fn read_only(place: &OwnedFd) -> Result<OwnedFd, Errno> {
    let tree = mount_api::copy(place.as_fd(), Depth::One)?;
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    mount_api::set(tree.as_fd(), Attributes::set(attributes), Depth::One)?;
    Ok(tree)
}
