//! The relay: carries a pod's links.
//!
//! A relay is a process with one thread that lives in the network namespace its links lead *to*, and
//! there makes the sockets that connect. The sockets that listen come to it, bound, from the network
//! namespaces its links lead *from*. So it never changes its namespace and needs no privilege: who
//! makes it (husk-sandbox) takes everything from it but a control socket, and what it may ask of the
//! kernel is what this crate does.
//!
//! # How a link behaves
//!
//! Like the port behind it, as far as a process can:
//!
//! * TCP moves by splice(2) through a pipe, never through memory of the relay's. A connection has a
//!   pipe only while it has data in flight, so an idle one costs two sockets and a few dozen bytes.
//! * What one side does, the other sees: the end of one direction (half-close), a reset, a peer that
//!   does not read (then the other side's writes wait). Segments are passed on as they come, and
//!   dead peers are found by keep-alive. If the relay dies, both sides are reset: nobody takes half of
//!   what was sent for the whole.
//! * Where nobody listens behind the link, a connection is reset as soon as it is made: the kernel has
//!   no way to ask a process before it answers a SYN.
//! * Datagrams are carried in batches; each sender has a socket of its own behind the link for as long
//!   as it or the answers keep coming, and [`UDP_IDLE`] longer. Where nobody listens, the link is closed
//!   for [`UDP_CLOSED`], so that the kernel refuses what is sent to it; the datagram that found that out
//!   is lost.
//! * Connections behind a link come from a loopback address: the address of the peer is not passed on.
//!
//! # Limits
//!
//! [`MOST_CONNECTIONS`] connections and [`MOST_SENDERS`] senders of datagrams for each link, so that one
//! link exhausts no other's; and whatever descriptors the process may have. A connection beyond is
//! reset; a sender beyond takes the place of the one that has been silent longest. Each is told on the
//! control socket, at most every [`NOTICE_EVERY`].
#![forbid(unsafe_code)]

mod pipes;
pub mod protocol;
mod relay;
mod slab;
mod tcp;
mod udp;

use std::time::Duration;

pub use relay::{Ended, run};

/// The most connections that one link carries at once.
pub const MOST_CONNECTIONS: u32 = 16_384;

/// The most senders of datagrams that one link knows at once.
pub const MOST_SENDERS: usize = 1024;

/// How long a sender of datagrams is known after the last datagram to or from it.
pub const UDP_IDLE: Duration = Duration::from_secs(60);

/// How long a link refuses datagrams when nobody listens behind it. Longer than the second after which
/// a resolver asks again.
pub const UDP_CLOSED: Duration = Duration::from_secs(2);

/// How often one limit of one link is told, at most.
pub const NOTICE_EVERY: Duration = Duration::from_secs(10);
