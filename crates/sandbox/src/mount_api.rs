//! The mount system calls that work on descriptors, of which neither libc nor nix has wrappers: see
//! open_tree(2), move_mount(2), mount_setattr(2), fsopen(2).
//!
//! What they mount is attached nowhere before all of its attributes are set, and goes onto the very
//! place that a descriptor stands for. Linux 5.12.
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::mount::MsFlags;

// linux/mount.h; libc has no names for these.
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x01;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x02;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x04;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x08;
pub(crate) const MOUNT_ATTR_RELATIME: u64 = 0;
pub(crate) const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub(crate) const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// All bits that say when access times are written.
pub(crate) const MOUNT_ATTR_ATIME: u64 = 0x70;
pub(crate) const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
pub(crate) const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Linux's `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear before that.
    pub(crate) clear: u64,
    /// `MS_PRIVATE` and the like; 0 changes nothing.
    pub(crate) propagation: u64,
    userns: u64,
}

/// Whether a call is about a mount alone, or those below it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    One,
    All,
}

impl Attributes {
    /// Nothing but this propagation.
    pub(crate) fn propagation(propagation: MsFlags) -> Self {
        Self {
            propagation: propagation.difference(MsFlags::MS_REC).bits(),
            ..Self::default()
        }
    }

    /// Nothing but that its files' owners are seen through a user namespace, which must stay open for
    /// the call.
    pub(crate) fn id_mapped(namespace: &OwnedFd) -> Self {
        Self {
            set: MOUNT_ATTR_IDMAP,
            userns: u64::from(namespace.as_raw_fd().cast_unsigned()),
            ..Self::default()
        }
    }

    /// Nothing but these set.
    pub(crate) fn set(set: u64) -> Self {
        Self {
            set,
            ..Self::default()
        }
    }
}

impl Depth {
    /// Of flags as mount(2) takes them.
    pub(crate) fn of(flags: MsFlags) -> Self {
        if flags.contains(MsFlags::MS_REC) {
            Self::All
        } else {
            Self::One
        }
    }

    fn flag(self) -> libc::c_uint {
        match self {
            Self::One => 0,
            Self::All => libc::AT_RECURSIVE.cast_unsigned(),
        }
    }
}

const EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH.cast_unsigned();
// `FSCONFIG_*` of linux/mount.h.
const SET_FLAG: libc::c_uint = 0;
const SET_STRING: libc::c_uint = 1;
const SET_FD: libc::c_uint = 5;
const CREATE: libc::c_uint = 6;
/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_EMPTY_PATH` of linux/mount.h.
const FROM_AND_ONTO_DESCRIPTORS: libc::c_uint = 0x04 | 0x40;

/// A copy of what is mounted at a place, attached nowhere yet.
pub(crate) fn copy(place: BorrowedFd<'_>, depth: Depth) -> Result<OwnedFd, Errno> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | EMPTY_PATH | depth.flag();
    // SAFETY: the path is a string that outlives the call; the rest are integers.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags) };
    own(fd)
}

/// A filesystem in the making; see fsopen(2).
pub(crate) struct Context(OwnedFd);

impl Context {
    pub(crate) fn open(kind: &CStr) -> Result<Self, Errno> {
        const FSOPEN_CLOEXEC: libc::c_uint = 1;
        // SAFETY: the kind is a string that outlives the call.
        let context = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        own(context).map(Self)
    }

    /// Sets an option with a value, or one that is a name alone.
    pub(crate) fn set(&self, name: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
        let command = if value.is_some() {
            SET_STRING
        } else {
            SET_FLAG
        };
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        self.configure(command, name.as_ptr(), value, 0)
    }

    /// Sets an option whose value is a descriptor.
    pub(crate) fn set_descriptor(&self, name: &CStr, value: BorrowedFd<'_>) -> Result<(), Errno> {
        self.configure(SET_FD, name.as_ptr(), std::ptr::null(), value.as_raw_fd())
    }

    /// Makes the filesystem and a mount of it, attached nowhere yet.
    pub(crate) fn mount(&self, attributes: u64) -> Result<OwnedFd, Errno> {
        const FSMOUNT_CLOEXEC: libc::c_uint = 1;
        self.configure(CREATE, std::ptr::null(), std::ptr::null(), 0)?;
        // SAFETY: fsmount(2) takes integers.
        let mount = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            )
        };
        own(mount)
    }

    /// fsconfig(2).
    fn configure(
        &self,
        command: libc::c_uint,
        name: *const libc::c_char,
        value: *const libc::c_char,
        number: libc::c_int,
    ) -> Result<(), Errno> {
        // SAFETY: name and value are strings that outlive the call, or null where the command takes
        // none.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                name,
                value,
                number,
            )
        };
        Errno::result(answer).map(drop)
    }
}

impl From<OwnedFd> for Context {
    /// A context that another process has opened.
    fn from(context: OwnedFd) -> Self {
        Self(context)
    }
}

/// A new filesystem with these options, each a name and its value, or a name alone; attached nowhere
/// yet.
pub(crate) fn new_filesystem(
    kind: &CStr,
    options: &[(&CStr, Option<&CStr>)],
) -> Result<OwnedFd, Errno> {
    let context = Context::open(kind)?;
    options
        .iter()
        .try_for_each(|(name, value)| context.set(name, *value))?;
    context.mount(0)
}

/// Changes what is mounted at a place; it must be the root of a mount.
pub(crate) fn set(
    place: BorrowedFd<'_>,
    attributes: Attributes,
    depth: Depth,
) -> Result<(), Errno> {
    // SAFETY: `attributes` has the kernel's layout and outlives the call, as does the path.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            place.as_raw_fd(),
            c"".as_ptr(),
            EMPTY_PATH | depth.flag(),
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    Errno::result(answer).map(drop)
}

/// Attaches a mount to a place, on top of what is mounted there.
pub(crate) fn attach(mount: impl AsFd, place: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the paths are strings that outlive the call; the rest are integers.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            place.as_raw_fd(),
            c"".as_ptr(),
            FROM_AND_ONTO_DESCRIPTORS,
        )
    };
    Errno::result(answer).map(drop)
}

fn own(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned this descriptor; no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
