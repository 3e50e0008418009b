//! One connection: what comes in on one side goes out on the other.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::{self, Errno};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, connect, shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use crate::pipes::{Pipe, Pipes};
use crate::slab::Key;

/// The most that one splice moves, in bytes.
const CHUNK: usize = 512 * 1024;

/// How much one side may send before it is another connection's turn, in bytes.
const TURN: u64 = 1024 * 1024;

/// A side that sent less than this has probably nothing more to send: to ask costs a system call.
const ENOUGH: usize = 16 * 1024;

/// When keep-alive begins to ask whether a silent peer is there, how often, and how many times.
const KEEP_ALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(120), Duration::from_secs(15), 8);

/// Which side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connected to the link.
    Client = 0,
    /// What the link leads to.
    Target = 1,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Target];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) link: Key,
    client: End,
    target: End,
    state: State,
}

/// One side's socket, and the way out of it.
#[derive(Debug)]
struct End {
    socket: OwnedFd,
    way: Way,
    /// What epoll watches it for; `None` if it does not.
    watched: Option<EventFlags>,
    /// It is shut both ways, which epoll says again and again to whoever watches.
    hung_up: bool,
}

/// What came in on one side and is to go out on the other.
#[derive(Debug, Default)]
struct Way {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
    /// The side has said that no more comes.
    ended: bool,
    /// And so was the other one told.
    passed_on: bool,
}

/// What the target has answered.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet; the address that is tried next if it refuses.
    Connecting(Option<SocketAddr>),
    Connected,
}

/// What is left to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Wait for the next event.
    Wait,
    /// Nothing: both sides have ended.
    Close,
    /// Both are to know that something is wrong.
    Reset,
    /// As [`Then::Reset`]; and nobody listens.
    Refused,
    /// As [`Then::Reset`]; and the relay may have no more descriptors.
    Exhausted,
}

/// Why a target could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotConnected {
    /// Nobody listens.
    Refused,
    /// The relay may have no more descriptors, or the kernel no memory.
    Exhausted,
    /// All ports to connect from are in use.
    NoPorts,
}

impl Connection {
    /// Begins to connect a client to the target: to the loopback address of its own family first,
    /// then to that of the other.
    pub(crate) fn begin(
        link: Key,
        client: OwnedFd,
        is_ipv6: bool,
        port: u16,
    ) -> Result<Self, (OwnedFd, NotConnected)> {
        let [first, second] = loopback(is_ipv6, port);
        let connecting = match connecting(first) {
            Ok((target, true)) => Ok((target, State::Connected)),
            Ok((target, false)) => Ok((target, State::Connecting(Some(second)))),
            Err(NotConnected::Refused) => self::connecting(second).map(|(target, at_once)| {
                let state = if at_once {
                    State::Connected
                } else {
                    State::Connecting(None)
                };
                (target, state)
            }),
            Err(error) => Err(error),
        };
        let (target, state) = match connecting {
            Ok(begun) => begun,
            Err(error) => return Err((client, error)),
        };
        settle(&client);
        Ok(Self {
            link,
            client: End::new(client),
            target: End::new(target),
            state,
        })
    }

    pub(crate) fn socket(&self, side: Side) -> &OwnedFd {
        &self.end(side).socket
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Target => &self.target,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }

    /// What epoll is to watch a side for, and what it watches it for now.
    pub(crate) fn watch(&mut self, side: Side) -> (Option<EventFlags>, &mut Option<EventFlags>) {
        let wanted = self.wanted(side);
        let watched = &mut self.end_mut(side).watched;
        (wanted, watched)
    }

    fn wanted(&self, side: Side) -> Option<EventFlags> {
        if self.state != State::Connected {
            return Some(match side {
                // Its reset, which is always told.
                Side::Client => EventFlags::empty(),
                Side::Target => EventFlags::OUT,
            });
        }
        let own = &self.end(side).way;
        let others = &self.end(side.other()).way;
        let mut wanted = EventFlags::empty();
        if !own.ended && own.held == 0 {
            wanted |= EventFlags::IN;
        }
        if others.held > 0 {
            wanted |= EventFlags::OUT;
        }
        // What can only be heard of a socket that is shut both ways is that it is.
        let is_mute = self.end(side).hung_up && !wanted.contains(EventFlags::IN);
        (!is_mute).then_some(wanted)
    }

    /// Something has happened on a side. Says how many bytes went out of each.
    pub(crate) fn happened(
        &mut self,
        side: Side,
        flags: EventFlags,
        pipes: &mut Pipes,
    ) -> (Then, [u64; 2]) {
        if let State::Connecting(next) = self.state {
            return (self.connected(side, flags, next), [0, 0]);
        }
        if flags.contains(EventFlags::ERR) {
            return (Then::Reset, [0, 0]);
        }
        self.end_mut(side).hung_up |= flags.contains(EventFlags::HUP);
        let mut moved = [0, 0];
        let mut then = Then::Wait;
        for from in Side::BOTH {
            // Either its own way, or room for the other's.
            let wakes = if from == side {
                EventFlags::IN | EventFlags::HUP
            } else {
                EventFlags::OUT
            };
            if !flags.intersects(wakes) {
                continue;
            }
            let (bytes, result) = self.pump(from, pipes);
            if let Some(count) = moved.get_mut(from as usize) {
                *count = bytes;
            }
            match result {
                Ok(()) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => then = Then::Exhausted,
                Err(_) => then = Then::Reset,
            }
        }
        if then == Then::Wait && self.client.way.passed_on && self.target.way.passed_on {
            then = Then::Close;
        }
        (then, moved)
    }

    /// An event of a connection that is not made yet.
    fn connected(&mut self, side: Side, flags: EventFlags, next: Option<SocketAddr>) -> Then {
        if side == Side::Client {
            // Nothing of it is watched but that it has gone.
            return Then::Reset;
        }
        if !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            return Then::Wait;
        }
        match sockopt::socket_error(&self.target.socket) {
            Ok(Ok(())) => {
                self.state = State::Connected;
                Then::Wait
            }
            _ => match next.map(connecting) {
                Some(Ok((target, at_once))) => {
                    self.target = End::new(target);
                    self.state = if at_once {
                        State::Connected
                    } else {
                        State::Connecting(None)
                    };
                    Then::Wait
                }
                Some(Err(NotConnected::Exhausted)) => Then::Exhausted,
                _ => Then::Refused,
            },
        }
    }

    /// Moves what came in on a side to the other, until one of them can no more or its turn is over.
    fn pump(&mut self, from: Side, pipes: &mut Pipes) -> (u64, io::Result<()>) {
        let (from, to) = match from {
            Side::Client => (&mut self.client, &self.target),
            Side::Target => (&mut self.target, &self.client),
        };
        let mut moved = 0;
        let result = from.way.pump(&from.socket, &to.socket, pipes, &mut moved);
        (moved, result)
    }

    /// Ends it in order, as both peers have. Dropped without this, both see a reset.
    pub(crate) fn finish(self) {
        for side in Side::BOTH {
            // One that has ended already needs no more.
            let _ = sockopt::set_socket_linger(self.socket(side), None);
        }
    }
}

impl End {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            way: Way::default(),
            watched: None,
            hung_up: false,
        }
    }
}

impl Way {
    fn pump(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        pipes: &mut Pipes,
        moved: &mut u64,
    ) -> io::Result<()> {
        loop {
            if !self.flush(to, moved)? {
                return Ok(());
            }
            if self.ended {
                self.let_go(pipes);
                if !self.passed_on {
                    self.passed_on = true;
                    // ENOTCONN: the peer is gone, which its own event tells.
                    let _ = shutdown(to, Shutdown::Write);
                }
                return Ok(());
            }
            if *moved >= TURN {
                self.let_go(pipes);
                return Ok(());
            }
            let pipe = match &self.pipe {
                Some(pipe) => pipe,
                None => self.pipe.insert(pipes.take()?),
            };
            match through(from, &pipe.into, CHUNK) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.held = count;
                    if count < ENOUGH {
                        if self.flush(to, moved)? {
                            self.let_go(pipes);
                        }
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => {
                    self.let_go(pipes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what is held; whether all of it went.
    fn flush(&mut self, to: &OwnedFd, moved: &mut u64) -> io::Result<bool> {
        while self.held > 0 {
            let Some(pipe) = &self.pipe else {
                return Err(Errno::PIPE);
            };
            match through(&pipe.out, to, self.held) {
                Ok(0) => return Err(Errno::PIPE),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    *moved += count as u64;
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn let_go(&mut self, pipes: &mut Pipes) {
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipes.give(pipe);
        }
    }
}

fn through(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Lets a socket's close be a reset.
pub(crate) fn reset(socket: impl AsFd) {
    // A socket that cannot be asked for that has ended already.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// The loopback addresses, that of the asked family first.
pub(crate) fn loopback(is_ipv6: bool, port: u16) -> [SocketAddr; 2] {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
    if is_ipv6 { [v6, v4] } else { [v4, v6] }
}

/// Begins to connect; whether it is done at once.
fn connecting(address: SocketAddr) -> Result<(OwnedFd, bool), NotConnected> {
    let socket = socket(address, SocketType::STREAM).map_err(NotConnected::of)?;
    settle(&socket);
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok((socket, true)),
            Err(Errno::INPROGRESS) => return Ok((socket, false)),
            Err(Errno::INTR) => {}
            // There may be no such loopback address.
            Err(Errno::ADDRNOTAVAIL) if address.is_ipv6() => return Err(NotConnected::Refused),
            Err(error) => return Err(NotConnected::of(error)),
        }
    }
}

impl NotConnected {
    fn of(error: Errno) -> Self {
        match error {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => Self::Exhausted,
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::NoPorts,
            _ => Self::Refused,
        }
    }
}

/// Makes a socket that does not block.
pub(crate) fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, kind, flags, None)
}

/// Passes segments on as they come, finds out when a silent peer is gone, and is reset when it is closed:
/// if this process dies, nobody may take half of what was sent for the whole.
fn settle(socket: &OwnedFd) {
    let (idle, interval, count) = KEEP_ALIVE;
    // None of these fails on a TCP socket that is not closed, and one that is says so later.
    reset(socket);
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, idle);
    let _ = sockopt::set_tcp_keepintvl(socket, interval);
    let _ = sockopt::set_tcp_keepcnt(socket, count);
}
