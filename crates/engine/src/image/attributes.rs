//! What a tar entry says about a file besides what is in it.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use super::archive::Entry;
use super::place::{Place, Refused, is};

/// Owner, extended attributes, mode and times, in this order: a change of owner clears the others.
/// Gives the modification time. What is there has them even if the entry is a hard link to it.
pub(super) fn set_attributes(place: &Place, entry: &Entry) -> Result<TimeSpec, Refused> {
    let id = |id: i64| {
        u32::try_from(id)
            .ok()
            // To chown(2) it means "as it is".
            .filter(|id| *id != u32::MAX)
            .ok_or(Refused::Because("an owner that is no 32-bit id"))
    };
    let (owner, group) = (Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?));
    let mtime = bounded(entry.mtime);
    let name = place.name.as_os_str();
    fchownat(
        &place.parent,
        name,
        Some(owner),
        Some(group),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    for (key, value) in &entry.xattrs {
        set_xattr(place, OsStr::from_bytes(key), value)?;
    }
    let there = place.stat()?;
    if !there.is_some_and(|there| is(&there, SFlag::S_IFLNK)) {
        let mode = Mode::from_bits_truncate(entry.mode.into());
        fchmodat(&place.parent, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    utimensat(
        &place.parent,
        name,
        &mtime,
        &mtime,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(mtime)
}

/// A time that 64 bits of nanoseconds since 1970 can hold; any other becomes 1970, as containerd
/// has it.
fn bounded((seconds, nanoseconds): (i64, i64)) -> TimeSpec {
    let all = seconds
        .checked_mul(1_000_000_000)
        .and_then(|all| all.checked_add(nanoseconds));
    match all {
        Some(0..) => TimeSpec::new(seconds, nanoseconds),
        _ => TimeSpec::new(0, 0),
    }
}

fn set_xattr(place: &Place, key: &OsStr, value: &[u8]) -> Result<(), Refused> {
    let bytes = key.as_bytes();
    if bytes.starts_with(b"trusted.") || bytes.starts_with(b"user.overlay.") {
        // What only the node's root may say, and what steers overlayfs, is never a file's own.
        return Ok(());
    }
    let Err(error) = xattr::set(place.path(), key, value) else {
        return Ok(());
    };
    let lost = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP) => true,
        // Links and devices have no attributes of users, see xattr(7).
        Some(Errno::EPERM) => bytes.starts_with(b"user."),
        _ => false,
    };
    if !lost {
        return Err(error.into());
    }
    log::warn!(
        "{} cannot have {}: {error}",
        place.name.display(),
        key.display()
    );
    Ok(())
}
