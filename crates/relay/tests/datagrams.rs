//! Datagrams through a relay, with real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
mod support;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use husk_relay::protocol::{Limit, Told};
use husk_relay::{MOST_SENDERS, UDP_CLOSED};
use support::*;

fn target(address: &str) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn client(link: SocketAddr) -> UdpSocket {
    let any = if link.is_ipv6() { V6 } else { V4 };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(link).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

#[test]
fn each_sender_gets_its_own_answers() {
    let mut relay = Relay::start();
    let (target, port) = target(V4);
    let (number, link) = relay.link_of_datagrams(V4, port);
    let (one, two) = (client(link), client(link));
    one.send(b"one").unwrap();
    let (bytes, from_one) = receive(&target);
    assert_eq!(bytes, b"one");
    two.send(b"two").unwrap();
    let (bytes, from_two) = receive(&target);
    assert_eq!(bytes, b"two");
    assert_ne!(from_one, from_two);
    target.send_to(b"to two", from_two).unwrap();
    target.send_to(b"to one", from_one).unwrap();
    assert_eq!(receive(&one).0, b"to one");
    assert_eq!(receive(&two).0, b"to two");
    let counts = relay.counts(number);
    assert_eq!((counts.open, counts.total), (2, 2));
    assert_eq!((counts.bytes_to, counts.bytes_from), (6, 12));
}

#[test]
fn datagrams_keep_their_bounds() {
    let mut relay = Relay::start();
    let (target, port) = target(V4);
    let (_, link) = relay.link_of_datagrams(V4, port);
    let client = client(link);
    for length in [0usize, 1, 1500, 65_507, 0, 9000] {
        let bytes = vec![length.to_le_bytes()[0]; length];
        client.send(&bytes).unwrap();
        let (seen, from) = receive(&target);
        assert_eq!(seen, bytes);
        target.send_to(&seen, from).unwrap();
        assert_eq!(receive(&client).0, bytes);
    }
}

#[test]
fn either_family_leads_to_either() {
    let mut relay = Relay::start();
    for there in [V4, V6] {
        let (target, port) = target(there);
        for here in [V4, V6] {
            let (_, link) = relay.link_of_datagrams(here, port);
            let client = client(link);
            client.send(b"x").unwrap();
            let (_, from) = receive(&target);
            target.send_to(b"y", from).unwrap();
            assert_eq!(receive(&client).0, b"y");
        }
    }
}

#[test]
fn where_nobody_listens_a_sender_is_refused_until_somebody_does() {
    let mut relay = Relay::start();
    let (number, link) = {
        let (_gone, port) = target(V4);
        relay.link_of_datagrams(V4, port)
    };
    let client = client(link);
    client.send(b"lost").unwrap();
    relay.wait_for(number, |counts| counts.refused == 1);
    client.send(b"refused").unwrap();
    let asked = Instant::now();
    let error = client.recv(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(asked.elapsed() < Duration::from_millis(500));
    std::thread::sleep(UDP_CLOSED + Duration::from_millis(300));
    // Now somebody does.
    let (target, port) = target(V4);
    let (_, link) = relay.link_of_datagrams(V4, port);
    let client = self::client(link);
    client.send(b"heard").unwrap();
    assert_eq!(receive(&target).0, b"heard");
}

#[test]
fn a_target_that_comes_back_is_heard_again() {
    let mut relay = Relay::start();
    let (first, port) = target(V4);
    let (_, link) = relay.link_of_datagrams(V4, port);
    let client = client(link);
    client.send(b"1").unwrap();
    let (_, from) = receive(&first);
    first.send_to(b"1", from).unwrap();
    receive(&client);
    drop(first);
    let again = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    again
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.send(b"2").unwrap();
    assert_eq!(receive(&again).0, b"2");
}

#[test]
fn a_flood_of_senders_is_bounded_and_told_once() {
    raise_descriptor_limit();
    let mut relay = Relay::start();
    let (target, port) = target(V4);
    let (number, link) = relay.link_of_datagrams(V4, port);
    let quiet = client(link);
    let mut senders = Vec::new();
    for _ in 0..3 * MOST_SENDERS {
        let sender = client(link);
        sender.send(b"x").unwrap();
        receive(&target);
        // Open, so that no port is used twice.
        senders.push(sender);
    }
    quiet.send(b"still here").unwrap();
    assert_eq!(receive(&target).0, b"still here");
    let told = relay.told();
    assert!(
        matches!(told, Told::Limit { link, limit: Limit::Senders, times: 1 } if link == number),
        "{told:?}"
    );
    let counts = relay.counts(number);
    assert_eq!(counts.open as usize, MOST_SENDERS);
    assert_eq!(counts.total, 3 * MOST_SENDERS as u64 + 1);
}
