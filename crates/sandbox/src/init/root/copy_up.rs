//! `tmpcopyup`: a tmpfs that begins with what it covers.
//!
//! Whoever wrote the image, or shares a volume with the container, may change what is copied
//! meanwhile: no link is followed, and everything is reached from a directory that is open. The
//! memory is charged to the container, whose cgroup this process is in, and bounded by the tmpfs.
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

/// How deep directories may lie in each other: each level takes a descriptor and a part of the stack.
const DEEPEST: u32 = 128;
const LOOK: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

/// Copies what is in `covered` into `tmpfs`, which lies on top of it, and its access and modification
/// times; mode and owner are the tmpfs's already. Hard links become files of their own, extended
/// attributes and sockets are left out, as with runc.
pub(super) fn copy(covered: &OwnedFd, tmpfs: &OwnedFd) -> Result<(), Errno> {
    let open =
        |directory: &OwnedFd| openat(directory, ".", LOOK | OFlag::O_DIRECTORY, Mode::empty());
    let (from, into) = (open(covered)?, open(tmpfs)?);
    copy_entries(from, into.as_fd(), 0)
}

fn copy_entries(from: OwnedFd, into: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    if depth == DEEPEST {
        return Err(Errno::ELOOP);
    }
    let entries = Dir::from_fd(from.try_clone().map_err(|error| errno_of(&error))?)?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy_entry(from.as_fd(), into, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    into: BorrowedFd<'_>,
    name: &CStr,
    depth: u32,
) -> Result<(), Errno> {
    let mut stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let private = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IXUSR;
    match kind(&stat) {
        SFlag::S_IFSOCK => return Ok(()),
        SFlag::S_IFLNK => {
            let target = PathBuf::from(readlinkat(from, name)?);
            symlinkat(target.as_path(), into, name)?;
        }
        SFlag::S_IFDIR => {
            let directory = openat(from, name, LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
            stat = fstat(&directory)?;
            mkdirat(into, name, private)?;
            let copy = openat(into, name, LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
            copy_entries(directory, copy.as_fd(), depth + 1)?;
        }
        SFlag::S_IFREG => {
            let file = openat(from, name, LOOK, Mode::empty())?;
            stat = fstat(&file)?;
            if kind(&stat) != SFlag::S_IFREG {
                // It was exchanged: a fifo, say, has no content to copy.
                return Err(Errno::ESTALE);
            }
            let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let copy = openat(into, name, new, private)?;
            io::copy(&mut File::from(file), &mut File::from(copy))
                .map_err(|error| errno_of(&error))?;
        }
        special => mknodat(into, name, special, private, stat.st_rdev)?,
    }
    give(into, name, &stat)
}

/// Owner, mode and times.
fn give(into: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let itself = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(into, name, Some(user), Some(group), itself)?;
    if kind(stat) != SFlag::S_IFLNK {
        // Nobody else is in this tmpfs yet. Changing the owner takes set-id bits away.
        let mode = Mode::from_bits_truncate(stat.st_mode);
        fchmodat(into, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(
        into,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
