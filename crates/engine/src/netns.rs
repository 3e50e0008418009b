//! A pod's network namespace: its own, with nothing but loopback.
//!
//! CRI makes it before the shim is started and removes it after the sandbox has stopped
//! (contract 13). What leads out of it is made by [`network`](crate::network).
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Makes a network namespace with `lo` up and pins it at `path` by a bind mount.
///
/// # Errors
/// What the kernel answered.
pub fn create(path: &Path) -> io::Result<()> {
    File::create_new(path)?;
    let pinned = thread::scope(|scope| {
        // A thread of its own: unshare(2) changes the network of the calling thread alone, which
        // then ends.
        scope.spawn(|| unshare_and_pin(path)).join()
    });
    pinned.unwrap_or_else(|_| Err(io::Error::other("the thread that makes it panicked")))
}

/// Unpins the namespace; no error if it is not there.
///
/// # Errors
/// What the kernel answered.
pub fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a network namespace that of this thread; what it opens afterwards is there.
///
/// # Errors
/// What the kernel answered.
pub fn enter(network: File) -> io::Result<()> {
    Ok(setns(network, CloneFlags::CLONE_NEWNET)?)
}

fn unshare_and_pin(path: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    loopback_up()?;
    let own = Path::new("/proc/thread-self/ns/net");
    Ok(mount(
        Some(own),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?)
}

/// Sets IFF_UP on interface 1, which is `lo` in every network namespace: rtnetlink(7).
fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::new();
    // struct nlmsghdr, netlink(7): length, type, flags, sequence number, port.
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    // struct ifinfomsg: family and type, index, flags, which of them to change.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());

    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // struct nlmsgerr follows the header: the negated errno, 0 for an acknowledgement.
    let code = answer.get(..length).and_then(|answer| answer.get(16..20));
    match code
        .and_then(|code| code.try_into().ok())
        .map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("netlink answered with too little")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_pinned_and_unpinned() {
        let directory = tempfile::tempdir_in("/run").unwrap();
        let path = directory.path().join("net");
        create(&path).unwrap();
        let inode = |path: &Path| {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::metadata(path).unwrap().ino()
        };
        assert_ne!(inode(&path), inode(Path::new("/proc/self/ns/net")));
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
