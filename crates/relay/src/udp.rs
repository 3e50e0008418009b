//! Datagrams: each sender has a socket of its own behind the link.
use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketType, connect, connect_unspec,
    getsockname, sendmmsg, sockopt,
};

use crate::slab::Key;
use crate::tcp::{loopback, socket};
use crate::{MOST_SENDERS, UDP_CLOSED, UDP_IDLE};

/// How many datagrams are taken at once.
const BATCH: usize = 16;

/// The longest datagram, in bytes.
const LONGEST: usize = 64 * 1024;

/// Who sends, to which of a link's sockets.
pub(crate) type Sender = (u8, SocketAddr);

/// A sender's socket behind the link.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) link: Key,
    pub(crate) socket: OwnedFd,
    sender: Sender,
    /// Whether anything has come back.
    answered: bool,
    last: Instant,
}

/// What a link of datagrams knows of its senders.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    known: HashMap<Sender, Key>,
    closed_until: Option<Instant>,
}

/// Room for what is received; it is there while there are datagrams.
#[derive(Default)]
pub(crate) struct Buffers(Vec<u8>);

/// Datagrams as they were received.
pub(crate) struct Batch<'a> {
    datagrams: Vec<(Option<SocketAddr>, &'a [u8])>,
}

impl Buffers {
    /// Takes the next datagrams.
    pub(crate) fn receive(&mut self, from: &OwnedFd) -> Result<Batch<'_>, Errno> {
        if self.0.is_empty() {
            // Zeroed by the kernel, page by page as they are used.
            self.0 = vec![0; BATCH * LONGEST];
        }
        let mut slices: Vec<_> = self
            .0
            .chunks_exact_mut(LONGEST)
            .map(|chunk| [IoSliceMut::new(chunk)])
            .collect();
        // Anew each time: the kernel notes the lengths of addresses in them.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let received = recvmmsg(
            from.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        );
        let received: Vec<_> = match received {
            Ok(received) => received
                .map(|message| {
                    (
                        message.address.and_then(|from| address(&from)),
                        message.bytes,
                    )
                })
                .collect(),
            Err(errno) => return Err(Errno::from_raw_os_error(errno as i32)),
        };
        let datagrams = received
            .into_iter()
            .zip(self.0.chunks_exact(LONGEST))
            .map(|((from, length), chunk)| (from, chunk.get(..length).unwrap_or_default()))
            .collect();
        Ok(Batch { datagrams })
    }

    /// Gives the memory back.
    pub(crate) fn let_go(&mut self) {
        self.0 = Vec::new();
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}

impl<'a> Batch<'a> {
    /// Runs of datagrams of one sender, in the order in which they came.
    pub(crate) fn by_sender(&self) -> impl Iterator<Item = (Option<SocketAddr>, Vec<&'a [u8]>)> {
        self.datagrams
            .chunk_by(|(one, _), (other, _)| one == other)
            .filter_map(|run| {
                let (sender, _) = run.first()?;
                Some((*sender, run.iter().map(|(_, bytes)| *bytes).collect()))
            })
    }

    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.datagrams.len() == BATCH
    }
}

/// Sends datagrams; those that there is no room for are lost, as they are on any network. Says how
/// many bytes went.
pub(crate) fn send(
    socket: &OwnedFd,
    to: Option<&SocketAddr>,
    datagrams: &[&[u8]],
) -> Result<u64, Errno> {
    let to: Option<SocketAddrAny> = to.map(SocketAddrArg::as_any);
    let slices: Vec<_> = datagrams
        .iter()
        .map(|bytes| [IoSlice::new(bytes)])
        .collect();
    let mut controls: Vec<_> = slices
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let mut messages: Vec<_> = slices
        .iter()
        .zip(&mut controls)
        .map(|(slice, control)| match &to {
            Some(to) => MMsgHdr::new_with_addr(to, slice, control),
            None => MMsgHdr::new(slice, control),
        })
        .collect();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmmsg(socket, &mut messages, flags)?;
    let bytes = datagrams.iter().take(sent).map(|bytes| bytes.len() as u64);
    Ok(bytes.sum())
}

impl Flow {
    /// Makes the socket for a sender that is new.
    pub(crate) fn new(
        link: Key,
        sender: Sender,
        is_ipv6: bool,
        port: u16,
        now: Instant,
    ) -> Result<Self, Errno> {
        let [address, _] = loopback(is_ipv6, port);
        let socket = socket(address, SocketType::DGRAM)?;
        connect(&socket, &address)?;
        Ok(Self {
            link,
            socket,
            sender,
            answered: false,
            last: now,
        })
    }

    /// Sends to the target: how many bytes went, or that nobody listens.
    ///
    /// The kernel says so at once, as both ends are on this machine: but only until something has come
    /// back is it asked.
    pub(crate) fn send(&mut self, datagrams: &[&[u8]], now: Instant) -> Result<u64, Errno> {
        self.last = now;
        let sent = send(&self.socket, None, datagrams)?;
        if !self.answered
            && let Ok(Err(error)) = sockopt::socket_error(&self.socket)
        {
            return Err(error);
        }
        Ok(sent)
    }

    /// Something has come back; says to whom it goes, by which of the link's sockets.
    pub(crate) fn answered(&mut self, now: Instant) -> Sender {
        self.answered = true;
        self.last = now;
        self.sender
    }

    pub(crate) const fn sender(&self) -> Sender {
        self.sender
    }

    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= UDP_IDLE
    }

    pub(crate) const fn last(&self) -> Instant {
        self.last
    }
}

impl Senders {
    pub(crate) fn find(&self, sender: Sender) -> Option<Key> {
        self.known.get(&sender).copied()
    }

    pub(crate) fn add(&mut self, sender: Sender, flow: Key) {
        self.known.insert(sender, flow);
    }

    /// Forgets a sender whose flow this is.
    pub(crate) fn forget(&mut self, sender: Sender, flow: Key) {
        if self.known.get(&sender) == Some(&flow) {
            self.known.remove(&sender);
        }
        if self.known.is_empty() {
            self.known = HashMap::new();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.known.len() >= MOST_SENDERS
    }

    pub(crate) fn flows(&self) -> impl Iterator<Item = Key> {
        self.known.values().copied()
    }

    /// Has the kernel refuse what comes: a socket that is connected hears its peer only, and this one's
    /// peer is itself.
    pub(crate) fn close(&mut self, sockets: &[OwnedFd], now: Instant) {
        for socket in sockets {
            if let Ok(own) = getsockname(socket)
                && let Ok(own) = SocketAddr::try_from(own)
            {
                // One that cannot be closed goes on to lose what it gets.
                let _ = connect(socket, &with_an_address(own));
            }
        }
        self.closed_until = Some(now + UDP_CLOSED);
    }

    /// Opens the link again if it is time.
    pub(crate) fn open(&mut self, sockets: &[OwnedFd], now: Instant) {
        if self.closed_until.is_some_and(|until| until <= now) {
            self.closed_until = None;
            for socket in sockets {
                let _ = connect_unspec(socket);
            }
        }
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed_until.is_some()
    }
}

/// An address to connect to, where the socket listens on all.
fn with_an_address(own: SocketAddr) -> SocketAddr {
    if own.ip().is_unspecified() {
        let [same, _] = loopback(own.is_ipv6(), own.port());
        return same;
    }
    own
}

/// Whether a socket is of IPv6.
pub(crate) fn is_ipv6(socket: impl AsFd) -> bool {
    getsockname(socket)
        .ok()
        .and_then(|own| SocketAddr::try_from(own).ok())
        .is_some_and(|own| own.is_ipv6())
}
