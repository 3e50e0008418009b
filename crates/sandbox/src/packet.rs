//! Packets of a `SOCK_SEQPACKET` socket, and the descriptors that travel with them.
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg};

/// The longest packet.
pub(crate) const LONGEST: usize = 64 * 1024;
/// The most descriptors one packet carries: a job and stdin, stdout, stderr.
const MOST_FDS: usize = 4;

/// A packet and the descriptors that came with it.
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

pub(crate) fn send(socket: RawFd, parts: &[&[u8]], fds: &[RawFd]) -> io::Result<()> {
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(socket, &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes the next packet.
///
/// # Errors
/// `WouldBlock` when there is none, `UnexpectedEof` when the other end is closed.
pub(crate) fn receive(socket: RawFd) -> io::Result<Packet> {
    // Most packets are a few bytes: room for the longest would stay with the process for good.
    let coming = recv(
        socket,
        &mut [],
        MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
    )?;
    let mut bytes = vec![0; coming.min(LONGEST)];
    let mut control = cmsg_space!([RawFd; MOST_FDS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
    let length = message.bytes;
    let truncated = message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let fds = message
        .cmsgs()?
        .filter_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        // SAFETY: the kernel has just installed these descriptors for us; no one else owns them.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect();
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if truncated {
        return Err(io::Error::other(
            "a packet was longer than the protocol allows",
        ));
    }
    bytes.truncate(length);
    Ok(Packet { bytes, fds })
}
