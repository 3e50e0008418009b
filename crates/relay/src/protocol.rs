//! What travels between a relay and the shim.
//!
//! Every message is one packet of a `SOCK_SEQPACKET` socket: a byte that says what it is, then
//! little-endian numbers. The relay trusts what it is sent; the shim must not trust what it gets, as
//! strangers talk to the relay.
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{self, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most sockets of one link: IPv4 and IPv6.
pub const MOST_SOCKETS: usize = 2;

/// How many links one packet counts: an unprivileged socket takes about 200 kB.
const COUNTED: usize = 1024;

/// The longest packet, in bytes.
pub const LONGEST: usize = 2 + COUNTED * Counts::LENGTH;

/// What the relay is told.
#[derive(Debug)]
pub enum Order {
    /// The pid of the shim, which is its parent by now: it is to die with it.
    Obey(i32),
    /// Carry a link: these sockets listen, and lead to that port of a loopback address.
    Carry {
        /// The link's number, for all that is said of it later.
        link: u32,
        /// Datagrams, not connections.
        datagrams: bool,
        /// The port that it leads to.
        port: u16,
        /// Bound, of TCP listening, and not blocking.
        sockets: Vec<OwnedFd>,
    },
    /// Carry it no more, and end its connections.
    Drop(u32),
    /// Say what was carried.
    Count,
}

/// What the relay tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// What was carried; the answer to one [`Order::Count`] may take several.
    Counts {
        /// Link by link.
        links: Vec<Counts>,
        /// No more come.
        last: bool,
    },
    /// A limit was reached.
    Limit {
        /// On which link.
        link: u32,
        /// Which.
        limit: Limit,
        /// How often since it was last told.
        times: u32,
    },
}

/// What was carried over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The link.
    pub link: u32,
    /// Connections, or senders of datagrams, now.
    pub open: u32,
    /// All there have been.
    pub total: u64,
    /// Those that nobody listened to, or that were too many.
    pub refused: u64,
    /// Bytes that went the way the link leads.
    pub bytes_to: u64,
    /// Bytes that came back.
    pub bytes_from: u64,
}

/// What there can be too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Connections of a link.
    Connections,
    /// Senders of datagrams of a link.
    Senders,
    /// Descriptors or memory of the relay.
    Resources,
    /// Ports to connect from.
    Ports,
}

const OBEY: u8 = 1;
const CARRY: u8 = 2;
const DROP: u8 = 3;
const COUNT: u8 = 4;
const COUNTS: u8 = 5;
const LIMIT: u8 = 6;

/// Tells a relay what to do, with the link's sockets if it gets any. It waits while the relay is busy,
/// unless the socket does not block.
///
/// # Errors
/// What sendmsg(2) says; `EPIPE` when the relay is gone.
pub fn order(socket: impl AsFd, order: &Order) -> io::Result<()> {
    send_order(socket, order, SendFlags::NOSIGNAL)
}

/// As [`order`](self::order()), but never waits.
///
/// # Errors
/// `EAGAIN` when the relay has not taken what was sent before.
pub fn order_now(socket: impl AsFd, order: &Order) -> io::Result<()> {
    send_order(socket, order, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

fn send_order(socket: impl AsFd, order: &Order, flags: SendFlags) -> io::Result<()> {
    match order {
        Order::Obey(pid) => send(socket, &packet(OBEY, &[&pid.to_le_bytes()]), &[], flags),
        Order::Carry {
            link,
            datagrams,
            port,
            sockets,
        } => {
            let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            let parts: [&[u8]; 3] = [
                &link.to_le_bytes(),
                &[u8::from(*datagrams)],
                &port.to_le_bytes(),
            ];
            send(socket, &packet(CARRY, &parts), &fds, flags)
        }
        Order::Drop(link) => send(socket, &packet(DROP, &[&link.to_le_bytes()]), &[], flags),
        Order::Count => send(socket, &[COUNT], &[], flags),
    }
}

/// Takes the next order; `None` when the other end is closed, or sends what is none.
///
/// # Errors
/// `EAGAIN` when there is none.
pub(crate) fn next_order(socket: impl AsFd) -> io::Result<Option<Order>> {
    let mut bytes = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Ok(None);
    }
    Ok(read_order(
        bytes.get(..message.bytes).unwrap_or_default(),
        sockets,
    ))
}

fn read_order(bytes: &[u8], sockets: Vec<OwnedFd>) -> Option<Order> {
    let (tag, mut rest) = bytes.split_first()?;
    let order = match *tag {
        OBEY => Order::Obey(i32::from_le_bytes(take(&mut rest)?)),
        CARRY => Order::Carry {
            link: u32::from_le_bytes(take(&mut rest)?),
            datagrams: take::<1>(&mut rest)? != [0],
            port: u16::from_le_bytes(take(&mut rest)?),
            sockets,
        },
        DROP => Order::Drop(u32::from_le_bytes(take(&mut rest)?)),
        COUNT => Order::Count,
        _ => return None,
    };
    rest.is_empty().then_some(order)
}

/// Tells the shim. A shim that does not listen is not waited for.
pub(crate) fn tell_counts(socket: impl AsFd, counts: &[Counts]) -> io::Result<()> {
    let mut chunks = counts.chunks(COUNTED).peekable();
    if chunks.peek().is_none() {
        return send_now(socket, &[COUNTS, 1]);
    }
    while let Some(chunk) = chunks.next() {
        let last = chunks.peek().is_none();
        let mut packet = vec![COUNTS, u8::from(last)];
        for counts in chunk {
            counts.write(&mut packet);
        }
        send_now(&socket, &packet)?;
    }
    Ok(())
}

pub(crate) fn tell_limit(socket: impl AsFd, link: u32, limit: Limit, times: u32) -> io::Result<()> {
    let parts: [&[u8]; 3] = [&link.to_le_bytes(), &[limit.number()], &times.to_le_bytes()];
    send_now(socket, &packet(LIMIT, &parts))
}

impl Told {
    /// Reads a packet of a relay; `None` for one that says nothing.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (tag, mut rest) = packet.split_first()?;
        match *tag {
            COUNTS => {
                let last = take::<1>(&mut rest)? != [0];
                let (links, more) = rest.as_chunks::<{ Counts::LENGTH }>();
                let links = links.iter().filter_map(|link| Counts::read(link)).collect();
                more.is_empty().then_some(Self::Counts { links, last })
            }
            LIMIT => Some(Self::Limit {
                link: u32::from_le_bytes(take(&mut rest)?),
                limit: Limit::numbered(take::<1>(&mut rest)?)?,
                times: u32::from_le_bytes(take(&mut rest)?),
            }),
            _ => None,
        }
    }
}

impl Counts {
    const LENGTH: usize = 40;

    fn write(&self, packet: &mut Vec<u8>) {
        packet.extend(self.link.to_le_bytes());
        packet.extend(self.open.to_le_bytes());
        for number in [self.total, self.refused, self.bytes_to, self.bytes_from] {
            packet.extend(number.to_le_bytes());
        }
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        Some(Self {
            link: u32::from_le_bytes(take(bytes)?),
            open: u32::from_le_bytes(take(bytes)?),
            total: u64::from_le_bytes(take(bytes)?),
            refused: u64::from_le_bytes(take(bytes)?),
            bytes_to: u64::from_le_bytes(take(bytes)?),
            bytes_from: u64::from_le_bytes(take(bytes)?),
        })
    }
}

impl Limit {
    const ALL: [Self; 4] = [
        Self::Connections,
        Self::Senders,
        Self::Resources,
        Self::Ports,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Connections => 0,
            Self::Senders => 1,
            Self::Resources => 2,
            Self::Ports => 3,
        }
    }

    fn numbered([number]: [u8; 1]) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

fn packet(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![tag];
    packet.extend(parts.iter().flat_map(|part| part.iter().copied()));
    packet
}

fn send_now(socket: impl AsFd, packet: &[u8]) -> io::Result<()> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::send(socket, packet, flags).map(|_| ())
}

fn send(
    socket: impl AsFd,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MOST_SOCKETS {
        return Err(io::Errno::INVAL);
    }
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Errno::INVAL);
    }
    loop {
        let sent = sendmsg(&socket, &[IoSlice::new(packet)], &mut control, flags);
        match sent {
            Err(io::Errno::INTR) => {}
            sent => return sent.map(|_| ()),
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, recv, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn told(socket: &OwnedFd) -> Option<Told> {
        let mut bytes = vec![0; LONGEST];
        let (count, _) = recv(socket, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
        Told::read(&bytes[..count])
    }

    #[test]
    fn orders_arrive_with_their_sockets() {
        let (ours, theirs) = pair();
        let (one, two) = pair();
        order(&ours, &Order::Obey(-7)).unwrap();
        let carry = Order::Carry {
            link: 70_000,
            datagrams: true,
            port: 65535,
            sockets: vec![one, two],
        };
        order(&ours, &carry).unwrap();
        order(&ours, &Order::Drop(5)).unwrap();
        order(&ours, &Order::Count).unwrap();
        let next = || next_order(&theirs).unwrap();
        assert!(matches!(next(), Some(Order::Obey(-7))));
        match next() {
            Some(Order::Carry {
                link: 70_000,
                datagrams: true,
                port: 65535,
                sockets,
            }) => {
                assert_eq!(sockets.len(), 2);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(next(), Some(Order::Drop(5))));
        assert!(matches!(next(), Some(Order::Count)));
        assert_eq!(next_order(&theirs).unwrap_err(), io::Errno::AGAIN);
        drop(ours);
        assert!(next_order(&theirs).unwrap().is_none());
    }

    #[test]
    fn counts_of_many_links_arrive_whole() {
        let (ours, theirs) = pair();
        let counts: Vec<_> = (0..2500)
            .map(|link| Counts {
                link,
                open: 1,
                total: 2,
                refused: 3,
                bytes_to: u64::MAX,
                bytes_from: 5,
            })
            .collect();
        tell_counts(&ours, &counts).unwrap();
        let mut seen = Vec::new();
        loop {
            let Some(Told::Counts { links, last }) = told(&theirs) else {
                panic!()
            };
            seen.extend(links);
            if last {
                break;
            }
        }
        assert_eq!(seen, counts);
        tell_counts(&ours, &[]).unwrap();
        let nothing = Told::Counts {
            links: Vec::new(),
            last: true,
        };
        assert_eq!(told(&theirs), Some(nothing));
        for limit in Limit::ALL {
            tell_limit(&ours, 7, limit, 9).unwrap();
            assert_eq!(
                told(&theirs),
                Some(Told::Limit {
                    link: 7,
                    limit,
                    times: 9
                })
            );
        }
    }

    #[test]
    fn a_relay_is_not_held_up_by_a_shim_that_does_not_listen() {
        let (ours, _theirs) = pair();
        let refused = (0..100_000).find_map(|_| tell_limit(&ours, 1, Limit::Ports, 1).err());
        assert_eq!(refused, Some(io::Errno::AGAIN));
    }

    proptest! {
        #[test]
        fn no_packet_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Told::read(&bytes);
            let _ = read_order(&bytes, Vec::new());
        }
    }

    #[test]
    fn more_sockets_than_a_link_has_are_no_order() {
        let (ours, theirs) = pair();
        let path = std::env::temp_dir().join(format!("husk-relay-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let carry = Order::Carry {
            link: 1,
            datagrams: false,
            port: 1,
            sockets: (0..3)
                .map(|_| listener.try_clone().unwrap().into())
                .collect(),
        };
        assert_eq!(order(&ours, &carry), Err(io::Errno::INVAL));
        assert_eq!(next_order(&theirs).unwrap_err(), io::Errno::AGAIN);
    }
}
