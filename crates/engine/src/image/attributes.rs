//! What a tar entry says about a file besides what is in it.
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use tar::Entry;

use super::place::{Place, Refused};

/// Owner, extended attributes, mode and times, in this order: a change of owner clears the others.
/// Gives the modification time.
pub(super) fn set_attributes(
    place: &Place,
    entry: &mut Entry<'_, impl Read>,
) -> Result<TimeSpec, Refused> {
    let too_large = |_| Refused::Because("an owner that is no 32-bit id");
    let uid = u32::try_from(entry.header().uid()?).map_err(too_large)?;
    let gid = u32::try_from(entry.header().gid()?).map_err(too_large)?;
    let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o7777);
    let symlink = entry.header().entry_type().is_symlink();
    let mut mtime = TimeSpec::new(i64::try_from(entry.header().mtime()?).unwrap_or(0), 0);
    let name = place.name.as_os_str();
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(
        &place.parent,
        name,
        Some(owner),
        Some(group),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if extension.key_bytes() == b"mtime" {
                mtime = parse_time(extension.value_bytes()).unwrap_or(mtime);
            } else if let Some(key) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                set_xattr(place, OsStr::from_bytes(key), extension.value_bytes())?;
            }
        }
    }
    if !symlink {
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

fn set_xattr(place: &Place, key: &OsStr, value: &[u8]) -> Result<(), Refused> {
    let bytes = key.as_bytes();
    if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") {
        // These steer overlayfs, and are never a file's own.
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

/// A time of a pax header: seconds with a fraction.
fn parse_time(text: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let seconds: i64 = seconds.parse().ok()?;
    let nanoseconds: i64 = digits.parse().ok()?;
    Some(if text.starts_with('-') && nanoseconds > 0 {
        TimeSpec::new(seconds - 1, 1_000_000_000 - nanoseconds)
    } else {
        TimeSpec::new(seconds, nanoseconds)
    })
}
