//! A relay in a thread of its own, between sockets of this machine's loopback.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use husk_relay::protocol::{Counts, LONGEST, Order, Told, order};
use husk_relay::{Ended, run};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use rustix::time::Timespec;

pub(crate) const V4: &str = "127.0.0.1:0";
pub(crate) const V6: &str = "[::1]:0";

/// The relay, and the shim's end of its control socket.
pub(crate) struct Relay {
    control: Option<OwnedFd>,
    thread: Option<JoinHandle<Ended>>,
    links: u32,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        Self {
            control: Some(ours),
            thread: Some(std::thread::spawn(move || run(theirs))),
            links: 0,
        }
    }

    pub(crate) fn order(&self, what: &Order) {
        order(self.control.as_ref().unwrap(), what).unwrap();
    }

    /// A link of connections to this port; where it is.
    pub(crate) fn link(&mut self, port: u16) -> (u32, SocketAddr) {
        self.link_at(V4, port)
    }

    pub(crate) fn link_at(&mut self, address: &str, port: u16) -> (u32, SocketAddr) {
        let listener = TcpListener::bind(address).unwrap();
        rustix::net::listen(&listener, 4096).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (self.carry(false, port, listener.into()), address)
    }

    /// A link of datagrams to this port; where it is.
    pub(crate) fn link_of_datagrams(&mut self, address: &str, port: u16) -> (u32, SocketAddr) {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        (self.carry(true, port, socket.into()), address)
    }

    fn carry(&mut self, datagrams: bool, port: u16, socket: OwnedFd) -> u32 {
        self.links += 1;
        self.order(&Order::Carry {
            link: self.links,
            datagrams,
            port,
            sockets: vec![socket],
        });
        self.links
    }

    /// What the relay tells next.
    pub(crate) fn told(&self) -> Told {
        let control = self.control.as_ref().unwrap();
        let mut fds = [PollFd::new(control, PollFlags::IN)];
        let ten = Timespec::try_from(Duration::from_secs(10)).unwrap();
        assert_eq!(
            poll(&mut fds, Some(&ten)).unwrap(),
            1,
            "the relay tells nothing"
        );
        let mut bytes = vec![0; LONGEST];
        let (count, _) = recv(control, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
        Told::read(&bytes[..count]).unwrap()
    }

    pub(crate) fn counts(&self, link: u32) -> Counts {
        self.order(&Order::Count);
        let mut counts = HashMap::new();
        loop {
            match self.told() {
                Told::Counts { links, last } => {
                    counts.extend(links.into_iter().map(|counts| (counts.link, counts)));
                    if last {
                        return counts[&link];
                    }
                }
                Told::Limit { .. } => {}
            }
        }
    }

    /// Waits until a link's counts are like this.
    pub(crate) fn wait_for(&self, link: u32, mut like: impl FnMut(&Counts) -> bool) -> Counts {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let counts = self.counts(link);
            if like(&counts) {
                return counts;
            }
            assert!(Instant::now() < deadline, "{counts:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.control.take());
        let ended = self.thread.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            assert_eq!(ended, Ended::Abandoned);
        }
    }
}

/// Someone who listens on a loopback address, and the port.
pub(crate) fn target(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind(address).unwrap();
    // std's queue is short: what does not fit waits for a second.
    rustix::net::listen(&listener, 4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port on which nobody listens.
pub(crate) fn nobody() -> u16 {
    target(V4).1
}

/// A connection through a link, and its other end.
pub(crate) fn connected(link: SocketAddr, target: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(link).unwrap();
    let (served, _) = target.accept().unwrap();
    for stream in [&client, &served] {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
    }
    (client, served)
}

/// How many descriptors of this process lead to something that begins like this.
pub(crate) fn descriptors(like: &str) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let leads = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    leads
        .filter(|to| to.to_string_lossy().starts_with(like))
        .count()
}

/// Has every later socket of this process find room.
pub(crate) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Writes until the other end takes no more; how much.
pub(crate) fn fill(stream: &mut TcpStream) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let chunk = vec![7; 64 * 1024];
    let mut written = 0;
    while let Ok(count) = stream.write(&chunk) {
        written += count;
        assert!(written < 256 << 20, "nothing holds the writer back");
    }
    written
}
