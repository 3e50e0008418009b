//! The loop: one thread, one epoll, many links.
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{self, Errno};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::time::Timespec;

use crate::pipes::Pipes;
use crate::protocol::{Counts, Limit, Order, next_order, tell_counts, tell_limit};
use crate::slab::{Key, Slab};
use crate::tcp::{Connection, NotConnected, Side, Then, reset};
use crate::udp::{self, Buffers, Flow, Sender, Senders};
use crate::{MOST_CONNECTIONS, NOTICE_EVERY};

/// How many events are taken at once.
const EVENTS: usize = 64;

/// How many connections, or batches of datagrams, one socket may bring before it is another's turn.
const TURN: usize = 32;

/// How long connections wait outside when the relay can take no more.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked for senders of datagrams that are silent.
const SWEEP: Duration = Duration::from_secs(5);

/// Why a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The shim has closed its end of the control socket, or is not the parent.
    Abandoned,
    /// The kernel refused what the relay cannot do without.
    Failed(Errno),
}

/// A link and its counts.
struct Link {
    number: u32,
    port: u16,
    sockets: Vec<OwnedFd>,
    /// Of datagrams.
    senders: Option<Senders>,
    counts: Counts,
    /// Until when its sockets are not watched.
    paused_until: Option<Instant>,
}

struct Relay {
    epoll: OwnedFd,
    control: OwnedFd,
    links: Slab<Link>,
    connections: Slab<Connection>,
    flows: Slab<Flow>,
    pipes: Pipes,
    buffers: Buffers,
    notices: HashMap<(u32, Limit), Notice>,
    now: Instant,
    swept: Instant,
}

/// When a limit was last told, and how often it was reached since.
struct Notice {
    told: Instant,
    times: u32,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Control,
    /// A link's socket.
    Link(Key, u8),
    Connection(Key, Side),
    Flow(Key),
}

impl Token {
    const CONTROL: u64 = 0;
    const LINKS: [u64; 2] = [1, 2];
    const SIDES: [u64; 2] = [3, 4];
    const FLOW: u64 = 5;

    fn to_data(self) -> EventData {
        let (kind, key) = match self {
            Self::Control => return EventData::new_u64(Self::CONTROL),
            Self::Link(key, 0) => (1, key),
            Self::Link(key, _) => (2, key),
            Self::Connection(key, Side::Client) => (3, key),
            Self::Connection(key, Side::Target) => (4, key),
            Self::Flow(key) => (Self::FLOW, key),
        };
        // Generations have 24 bits.
        EventData::new_u64(kind | u64::from(key.index) << 8 | u64::from(key.generation) << 40)
    }

    fn from_data(data: EventData) -> Self {
        let data = data.u64();
        let part = |shift: u32, bits: u32| {
            u32::try_from(data >> shift & ((1 << bits) - 1)).unwrap_or_default()
        };
        let key = Key {
            index: part(8, 32),
            generation: part(40, 24),
        };
        match data & 0xff {
            kind if kind == Self::LINKS[0] => Self::Link(key, 0),
            kind if kind == Self::LINKS[1] => Self::Link(key, 1),
            kind if kind == Self::SIDES[0] => Self::Connection(key, Side::Client),
            kind if kind == Self::SIDES[1] => Self::Connection(key, Side::Target),
            Self::FLOW => Self::Flow(key),
            _ => Self::Control,
        }
    }
}

/// Carries links as the other end of `control` orders, until that end is closed.
#[must_use]
pub fn run(control: OwnedFd) -> Ended {
    match Relay::new(control).and_then(Relay::live) {
        Ok(()) => Ended::Abandoned,
        Err(errno) => Ended::Failed(errno),
    }
}

impl Relay {
    fn new(control: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &control, Token::Control.to_data(), EventFlags::IN)?;
        let now = Instant::now();
        Ok(Self {
            epoll,
            control,
            links: Slab::default(),
            connections: Slab::default(),
            flows: Slab::default(),
            pipes: Pipes::default(),
            buffers: Buffers::default(),
            notices: HashMap::new(),
            now,
            swept: now,
        })
    }

    fn live(mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); EVENTS];
        loop {
            let timeout = self.timeout();
            let events = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            self.now = Instant::now();
            for event in events.iter() {
                match Token::from_data(event.data) {
                    Token::Control => {
                        if !self.obey() {
                            return Ok(());
                        }
                    }
                    Token::Link(link, which) => self.incoming(link, which),
                    Token::Connection(key, side) => self.on_connection(key, side, event.flags),
                    Token::Flow(flow) => self.answers(flow),
                }
            }
            self.keep_time();
        }
    }

    /// How long nothing needs to be done.
    fn timeout(&self) -> Option<Timespec> {
        let links = self.links.iter().map(|(_, link)| link);
        let mut timeout = (self.flows.len() > 0).then_some(SWEEP);
        for link in links {
            if link.paused_until.is_some() || link.senders.as_ref().is_some_and(Senders::is_closed)
            {
                timeout = Some(PAUSE);
                break;
            }
        }
        timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
    }

    fn keep_time(&mut self) {
        let now = self.now;
        if self.notices.values().any(|notice| notice.times > 0) {
            self.tell_late();
        }
        for key in self.links.keys(|link| {
            link.paused_until.is_some() || link.senders.as_ref().is_some_and(Senders::is_closed)
        }) {
            let Some(link) = self.links.get_mut(key) else {
                continue;
            };
            if link.paused_until.is_some_and(|until| until <= now) {
                link.paused_until = None;
                let links = link.sockets.iter().zip(0..);
                for (socket, which) in links {
                    let data = Token::Link(key, which).to_data();
                    let _ = epoll::modify(&self.epoll, socket, data, EventFlags::IN);
                }
            }
            if let Some(senders) = &mut link.senders {
                senders.open(&link.sockets, now);
            }
        }
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            for key in self.flows.keys(|flow| flow.is_idle(now)) {
                self.forget(key);
            }
            if self.flows.len() == 0 {
                self.buffers.let_go();
            }
        }
    }

    /// Obeys orders; whether to go on.
    fn obey(&mut self) -> bool {
        loop {
            match next_order(&self.control) {
                Ok(Some(Order::Obey(parent))) => {
                    if !dies_with(parent) {
                        return false;
                    }
                }
                Ok(Some(Order::Carry {
                    link,
                    datagrams,
                    port,
                    sockets,
                })) => self.carry(link, datagrams, port, sockets),
                Ok(Some(Order::Drop(link))) => self.stop(link),
                Ok(Some(Order::Count)) => {
                    let links = self.links.iter().map(|(_, link)| link.counts);
                    let counts: Vec<_> = links.collect();
                    // A shim that does not listen gets nothing, and will ask again.
                    let _ = tell_counts(&self.control, &counts);
                }
                Ok(None) => return false,
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
    }

    fn carry(&mut self, number: u32, datagrams: bool, port: u16, sockets: Vec<OwnedFd>) {
        if !datagrams {
            // Inherited by what is accepted: were it asked for only then, a relay that dies just before
            // would end the connection in order.
            sockets.iter().for_each(reset);
        }
        let key = self.links.insert(Link {
            number,
            port,
            sockets,
            senders: datagrams.then(Senders::default),
            counts: Counts {
                link: number,
                ..Counts::default()
            },
            paused_until: None,
        });
        let Some(link) = self.links.get(key) else {
            return;
        };
        let mut failed = false;
        for (socket, which) in link.sockets.iter().zip(0..) {
            let data = Token::Link(key, which).to_data();
            failed |= epoll::add(&self.epoll, socket, data, EventFlags::IN).is_err();
        }
        if failed {
            // A socket that is not watched would take connections and leave them waiting.
            self.links.remove(key);
            self.limit_reached(number, Limit::Resources);
        }
    }

    fn stop(&mut self, number: u32) {
        for key in self.links.keys(|link| link.number == number) {
            // First whoever would bring more.
            self.links.remove(key);
            for connection in self.connections.keys(|connection| connection.link == key) {
                self.connections.remove(connection);
            }
            for flow in self.flows.keys(|flow| flow.link == key) {
                self.flows.remove(flow);
            }
        }
        self.notices.retain(|(link, _), _| *link != number);
    }

    fn incoming(&mut self, key: Key, which: u8) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        if link.senders.is_some() {
            self.datagrams(key, which);
        } else {
            self.accept(key, which);
        }
    }

    fn accept(&mut self, key: Key, which: u8) {
        for _ in 0..TURN {
            let Some(link) = self.links.get_mut(key) else {
                return;
            };
            let Some(listener) = link.sockets.get(usize::from(which)) else {
                return;
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let client = match accept_with(listener, flags) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.pause(key);
                    return;
                }
                // The connection has gone before it was taken; see accept(2).
                Err(_) => continue,
            };
            let number = link.number;
            link.counts.total += 1;
            if link.counts.open >= MOST_CONNECTIONS {
                link.counts.refused += 1;
                reset(client);
                self.limit_reached(number, Limit::Connections);
                continue;
            }
            let is_ipv6 = udp::is_ipv6(&client);
            match Connection::begin(key, client, is_ipv6, link.port) {
                Ok(connection) => {
                    link.counts.open += 1;
                    let connection = self.connections.insert(connection);
                    self.watch(connection);
                }
                Err((client, reason)) => {
                    link.counts.refused += 1;
                    reset(client);
                    match reason {
                        NotConnected::Refused => {}
                        NotConnected::Exhausted => self.limit_reached(number, Limit::Resources),
                        NotConnected::NoPorts => self.limit_reached(number, Limit::Ports),
                    }
                }
            }
        }
    }

    /// Leaves a link's connections waiting outside for a moment.
    fn pause(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.paused_until = Some(self.now + PAUSE);
        for (socket, which) in link.sockets.iter().zip(0..) {
            let data = Token::Link(key, which).to_data();
            let _ = epoll::modify(&self.epoll, socket, data, EventFlags::empty());
        }
        let number = link.number;
        self.limit_reached(number, Limit::Resources);
    }

    fn on_connection(&mut self, key: Key, side: Side, flags: EventFlags) {
        // It may have ended by an earlier event of the same batch.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.is_unwatched_by(side) {
            return;
        }
        let (then, [to, from]) = connection.happened(side, flags, &mut self.pipes);
        let link = connection.link;
        if let Some(link) = self.links.get_mut(link) {
            link.counts.bytes_to += to;
            link.counts.bytes_from += from;
        }
        if then == Then::Wait {
            self.watch(key);
            return;
        }
        if let Some(connection) = self.connections.remove(key)
            && then == Then::Close
        {
            connection.finish();
        }
        let Some(link) = self.links.get_mut(link) else {
            return;
        };
        link.counts.open = link.counts.open.saturating_sub(1);
        if matches!(then, Then::Refused | Then::Exhausted) {
            link.counts.refused += 1;
        }
        let number = link.number;
        if then == Then::Exhausted {
            self.limit_reached(number, Limit::Resources);
        }
    }

    /// Has epoll watch both sides for what they are waited for.
    fn watch(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let mut failed = false;
        for side in Side::BOTH {
            let data = Token::Connection(key, side).to_data();
            failed |= connection.register(&self.epoll, side, data).is_err();
        }
        if failed && let Some(connection) = self.connections.remove(key) {
            let link = connection.link;
            if let Some(link) = self.links.get_mut(link) {
                link.counts.open = link.counts.open.saturating_sub(1);
                link.counts.refused += 1;
                let number = link.number;
                self.limit_reached(number, Limit::Resources);
            }
        }
    }

    fn datagrams(&mut self, key: Key, which: u8) {
        let mut buffers = std::mem::take(&mut self.buffers);
        for _ in 0..TURN {
            let Some(socket) = self
                .links
                .get(key)
                .and_then(|link| link.sockets.get(usize::from(which)))
            else {
                break;
            };
            let batch = match buffers.receive(socket) {
                Ok(batch) => batch,
                // An answer was refused by who had asked: there is nothing to do about it.
                Err(Errno::CONNREFUSED | Errno::INTR) => continue,
                Err(_) => break,
            };
            for (sender, datagrams) in batch.by_sender() {
                if let Some(sender) = sender {
                    self.forward(key, (which, sender), &datagrams);
                }
            }
            if !batch.is_full() {
                break;
            }
        }
        self.buffers = buffers;
    }

    fn forward(&mut self, key: Key, sender: Sender, datagrams: &[&[u8]]) {
        let now = self.now;
        let known = self
            .links
            .get(key)
            .and_then(|link| link.senders.as_ref()?.find(sender));
        if let Some(flow) = known
            && let Some(found) = self.flows.get_mut(flow)
        {
            match found.send(datagrams, now) {
                // Something that it sent before was refused: what is sent now may not be.
                Err(Errno::CONNREFUSED) => self.forget(flow),
                sent => return self.count_to(key, sent.unwrap_or_default()),
            }
        }
        self.make_room(key);
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.counts.total += 1;
        let (number, port) = (link.number, link.port);
        let (_, address) = sender;
        for is_ipv6 in [address.is_ipv6(), !address.is_ipv6()] {
            let begun = Flow::new(key, sender, is_ipv6, port, now)
                .and_then(|mut flow| flow.send(datagrams, now).map(|bytes| (flow, bytes)));
            match begun {
                Ok((flow, bytes)) => {
                    self.adopt(key, flow);
                    return self.count_to(key, bytes);
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    return self.limit_reached(number, Limit::Resources);
                }
                Err(Errno::AGAIN) => return self.limit_reached(number, Limit::Ports),
                // Refused, or there is no such loopback address.
                Err(_) => {}
            }
        }
        self.nobody_listens(key);
    }

    fn count_to(&mut self, key: Key, bytes: u64) {
        if let Some(link) = self.links.get_mut(key) {
            link.counts.bytes_to += bytes;
        }
    }

    fn nobody_listens(&mut self, key: Key) {
        let now = self.now;
        if let Some(link) = self.links.get_mut(key) {
            link.counts.refused += 1;
            if let Some(senders) = &mut link.senders {
                senders.close(&link.sockets, now);
            }
        }
    }

    /// Forgets the sender that has been silent longest, where there can be no further one.
    fn make_room(&mut self, key: Key) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let Some(senders) = link.senders.as_ref().filter(|senders| senders.is_full()) else {
            return;
        };
        let number = link.number;
        let aged = senders
            .flows()
            .filter_map(|key| Some((self.flows.get(key)?.last(), key)));
        if let Some((_, oldest)) = aged.min_by_key(|(last, _)| *last) {
            self.forget(oldest);
        }
        self.limit_reached(number, Limit::Senders);
    }

    fn adopt(&mut self, link: Key, flow: Flow) {
        let sender = flow.sender();
        let key = self.flows.insert(flow);
        let data = Token::Flow(key).to_data();
        let watched = self
            .flows
            .get(key)
            .map(|flow| epoll::add(&self.epoll, &flow.socket, data, EventFlags::IN));
        if let Some(Ok(())) = watched
            && let Some(link) = self.links.get_mut(link)
            && let Some(senders) = &mut link.senders
        {
            senders.add(sender, key);
            link.counts.open += 1;
        } else {
            // Without its answers it is of no use.
            self.flows.remove(key);
        }
    }

    fn forget(&mut self, key: Key) {
        let Some(flow) = self.flows.remove(key) else {
            return;
        };
        if let Some(link) = self.links.get_mut(flow.link) {
            link.counts.open = link.counts.open.saturating_sub(1);
            if let Some(senders) = &mut link.senders {
                senders.forget(flow.sender(), key);
            }
        }
    }

    /// What comes back from a target.
    fn answers(&mut self, key: Key) {
        let mut buffers = std::mem::take(&mut self.buffers);
        for _ in 0..TURN {
            let Some(flow) = self.flows.get_mut(key) else {
                break;
            };
            let batch = match buffers.receive(&flow.socket) {
                Ok(batch) => batch,
                Err(Errno::CONNREFUSED) => {
                    let link = flow.link;
                    self.forget(key);
                    self.nobody_listens(link);
                    break;
                }
                Err(_) => break,
            };
            let (which, sender) = flow.answered(self.now);
            let Some(link) = self.links.get_mut(flow.link) else {
                break;
            };
            let Some(socket) = link.sockets.get(usize::from(which)) else {
                break;
            };
            for (_, datagrams) in batch.by_sender() {
                let mut rest = datagrams.as_slice();
                // One that cannot be sent must not keep those behind it.
                while !rest.is_empty() {
                    match udp::send(socket, Some(&sender), rest) {
                        Ok(bytes) => {
                            link.counts.bytes_from += bytes;
                            break;
                        }
                        Err(Errno::AGAIN) => break,
                        Err(_) => rest = rest.get(1..).unwrap_or_default(),
                    }
                }
            }
            if batch.len() == 0 || !batch.is_full() {
                break;
            }
        }
        self.buffers = buffers;
    }

    /// Tells that a limit was reached, unless it was told a moment ago.
    fn limit_reached(&mut self, link: u32, limit: Limit) {
        let now = self.now;
        let notice = self.notices.entry((link, limit)).or_insert(Notice {
            told: now.checked_sub(NOTICE_EVERY).unwrap_or(now),
            times: 0,
        });
        notice.times = notice.times.saturating_add(1);
        if now.saturating_duration_since(notice.told) >= NOTICE_EVERY {
            let times = std::mem::take(&mut notice.times);
            notice.told = now;
            let _ = tell_limit(&self.control, link, limit, times);
        }
    }

    /// Tells what was not told when it happened.
    fn tell_late(&mut self) {
        let now = self.now;
        for ((link, limit), notice) in &mut self.notices {
            if notice.times > 0 && now.saturating_duration_since(notice.told) >= NOTICE_EVERY {
                notice.told = now;
                let _ = tell_limit(
                    &self.control,
                    *link,
                    *limit,
                    std::mem::take(&mut notice.times),
                );
            }
        }
    }
}

/// Has the kernel end this process with its parent; whether that is still there.
fn dies_with(parent: i32) -> bool {
    let set = set_parent_process_death_signal(Some(Signal::KILL));
    set.is_ok() && getppid() == Pid::from_raw(parent)
}

impl Connection {
    /// Whether an event of this side is an old one: nothing is waited for.
    fn is_unwatched_by(&mut self, side: Side) -> bool {
        self.watch(side).1.is_none()
    }

    fn register(&mut self, epoll: impl AsFd, side: Side, data: EventData) -> io::Result<()> {
        let (wanted, watched) = self.watch(side);
        let (before, now) = (*watched, wanted);
        if before == now {
            return Ok(());
        }
        *watched = now;
        let socket = self.socket(side);
        match (before, now) {
            (None, Some(flags)) => epoll::add(epoll, socket, data, flags),
            (Some(_), Some(flags)) => epoll::modify(epoll, socket, data, flags),
            (_, None) => epoll::delete(epoll, socket),
        }
    }
}
