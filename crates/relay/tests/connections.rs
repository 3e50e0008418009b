//! Connections through a relay, with real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use husk_relay::MOST_CONNECTIONS;
use husk_relay::protocol::{Limit, Order, Told};
use proptest::prelude::*;
use rustix::net::sockopt::set_socket_linger;
use support::*;

#[test]
fn a_link_carries_both_ways() {
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let (mut client, mut served) = connected(link, &listener);
    client.write_all(b"ping").unwrap();
    let mut four = [0; 4];
    served.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"ping");
    served.write_all(b"pong!").unwrap();
    let mut five = [0; 5];
    client.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"pong!");
    let counts = relay.counts(number);
    assert_eq!((counts.open, counts.total, counts.refused), (1, 1, 0));
    assert_eq!((counts.bytes_to, counts.bytes_from), (4, 5));
    drop((client, served));
    relay.wait_for(number, |counts| counts.open == 0);
}

#[test]
fn either_family_leads_to_either() {
    let mut relay = Relay::start();
    for there in [V4, V6] {
        let (listener, port) = target(there);
        for here in [V4, V6] {
            let (_, link) = relay.link_at(here, port);
            let (mut client, mut served) = connected(link, &listener);
            client.write_all(b"x").unwrap();
            served.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn the_end_of_one_direction_leaves_the_other() {
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    for swapped in [false, true] {
        let (client, served) = connected(link, &listener);
        let (mut first, mut second) = if swapped {
            (served, client)
        } else {
            (client, served)
        };
        first.write_all(b"request").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut request = String::new();
        second.read_to_string(&mut request).unwrap();
        assert_eq!(request, "request");
        std::thread::sleep(Duration::from_millis(50));
        second.write_all(b"answer").unwrap();
        drop(second);
        let mut answer = String::new();
        first.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }
    relay.wait_for(number, |counts| counts.open == 0);
}

#[test]
fn a_reset_is_passed_on() {
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    for swapped in [false, true] {
        let (client, served) = connected(link, &listener);
        let (first, mut second) = if swapped {
            (served, client)
        } else {
            (client, served)
        };
        set_socket_linger(&first, Some(Duration::ZERO)).unwrap();
        drop(first);
        let error = second.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    relay.wait_for(number, |counts| counts.open == 0);
}

#[test]
fn where_nobody_listens_a_connection_is_reset_at_once() {
    let mut relay = Relay::start();
    let (number, link) = relay.link(nobody());
    let mut client = TcpStream::connect(link).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let counts = relay.wait_for(number, |counts| counts.open == 0);
    assert_eq!((counts.total, counts.refused), (1, 1));
}

#[test]
fn a_link_leads_to_whoever_listens_now() {
    let mut relay = Relay::start();
    let (first, port) = target(V4);
    let (_, link) = relay.link(port);
    drop(connected(link, &first));
    drop(first);
    assert!(TcpStream::connect(link).unwrap().read(&mut [0]).is_err());
    let again = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    connected(link, &again);
}

#[test]
fn a_stuck_target_holds_its_client_back_and_nobody_else() {
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let mut stuck: Vec<_> = (0..20).map(|_| connected(link, &listener)).collect();
    let written: Vec<_> = stuck.iter_mut().map(|(client, _)| fill(client)).collect();
    let (mut client, mut served) = connected(link, &listener);
    for _ in 0..100 {
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
    }
    // And once it reads, nothing is missing.
    let (client, mut served) = stuck.pop().unwrap();
    drop(client);
    let mut all = Vec::new();
    served.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), *written.last().unwrap());
    assert!(all.iter().all(|byte| *byte == 7));
    drop(served);
    relay.wait_for(number, |counts| counts.open == 20);
}

#[test]
fn much_is_carried_whole_in_both_directions_at_once() {
    const LENGTH: usize = 32 << 20;
    let pattern = |seed: usize| {
        move |at: usize| (at.wrapping_mul(31).wrapping_add(at >> 9) ^ seed).to_le_bytes()[0]
    };
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let (client, served) = connected(link, &listener);
    let mut threads = Vec::new();
    for (stream, writes, reads) in [(client, 1, 2), (served, 2, 1)] {
        let mut writer = stream.try_clone().unwrap();
        threads.push(std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..LENGTH).map(pattern(writes)).collect();
            for chunk in bytes.chunks(100_003) {
                writer.write_all(chunk).unwrap();
            }
            writer.shutdown(Shutdown::Write).unwrap();
        }));
        let mut reader = stream;
        threads.push(std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert!(all.into_iter().eq((0..LENGTH).map(pattern(reads))));
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let counts = relay.wait_for(number, |counts| counts.open == 0);
    assert_eq!(
        (counts.bytes_to, counts.bytes_from),
        (LENGTH as u64, LENGTH as u64)
    );
}

#[test]
fn connections_that_were_dropped_leave_nothing() {
    raise_descriptor_limit();
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    std::thread::spawn(move || while listener.accept().is_ok() {});
    for round in 0..200 {
        let clients: Vec<_> = (0..100)
            .map(|_| TcpStream::connect(link).unwrap())
            .collect();
        for client in clients {
            if round % 2 == 0 {
                set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
            }
        }
    }
    let counts = relay.wait_for(number, |counts| counts.open == 0);
    assert_eq!(counts.total, 20_000);
}

#[test]
fn a_link_that_is_dropped_resets_its_connections_and_refuses_more() {
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let (_, other) = relay.link(port);
    let (mut client, mut served) = connected(link, &listener);
    let mut kept = connected(other, &listener);
    relay.order(&Order::Drop(number));
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        served.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let error = TcpStream::connect(link).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    kept.0.write_all(b"x").unwrap();
    kept.1.read_exact(&mut [0]).unwrap();
}

#[test]
fn one_link_takes_no_more_than_its_share() {
    raise_descriptor_limit();
    if rustix::process::getrlimit(rustix::process::Resource::Nofile).current < Some(80_000) {
        return;
    }
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let (_, other) = relay.link(port);
    let accepted = std::thread::spawn(move || {
        let mut held = Vec::new();
        for _ in 0..=MOST_CONNECTIONS {
            held.push(listener.accept().unwrap().0);
        }
        held
    });
    let clients: Vec<_> = (0..MOST_CONNECTIONS)
        .map(|_| TcpStream::connect(link).unwrap())
        .collect();
    relay.wait_for(number, |counts| counts.open == MOST_CONNECTIONS);
    let mut beyond = TcpStream::connect(link).unwrap();
    assert_eq!(
        beyond.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        relay.told(),
        Told::Limit {
            link: number,
            limit: Limit::Connections,
            times: 1
        }
    );
    let _other = TcpStream::connect(other).unwrap();
    let held = accepted.join().unwrap();
    drop((clients, held));
    relay.wait_for(number, |counts| counts.open == 0);
    TcpStream::connect(link).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Write { client: bool, length: usize },
    Read { client: bool },
    End { client: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (any::<bool>(), 0..200_000usize).prop_map(|(client, length)| Step::Write { client, length }),
        5 => any::<bool>().prop_map(|client| Step::Read { client }),
        1 => any::<bool>().prop_map(|client| Step::End { client }),
    ];
    prop::collection::vec(step, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_peers_do_what_one_wrote_is_what_the_other_reads(steps in steps()) {
        let mut relay = Relay::start();
        let (listener, port) = target(V4);
        let (number, link) = relay.link(port);
        let (client, served) = connected(link, &listener);
        for stream in [&client, &served] {
            stream.set_nonblocking(true).unwrap();
        }
        let mut ends = [client, served];
        let mut wrote = [Vec::new(), Vec::new()];
        let mut read = [Vec::new(), Vec::new()];
        let mut ended = [false, false];
        let mut next = 0u8;
        for step in steps {
            match step {
                Step::Write { client, length } => {
                    let at = usize::from(!client);
                    if ended[at] { continue }
                    let bytes: Vec<u8> = (0..length).map(|_| { next = next.wrapping_add(1); next }).collect();
                    if let Ok(count) = ends[at].write(&bytes) {
                        wrote[at].extend_from_slice(&bytes[..count]);
                    }
                }
                Step::Read { client } => {
                    let at = usize::from(!client);
                    let mut buffer = vec![0; 100_000];
                    if let Ok(count) = ends[at].read(&mut buffer) {
                        read[at].extend_from_slice(&buffer[..count]);
                    }
                }
                Step::End { client } => {
                    let at = usize::from(!client);
                    if ended[at] { continue }
                    ended[at] = true;
                    ends[at].shutdown(Shutdown::Write).unwrap();
                }
            }
        }
        for (at, end) in ends.iter().enumerate() {
            if !ended[at] {
                end.shutdown(Shutdown::Write).unwrap();
            }
            end.set_nonblocking(false).unwrap();
        }
        let [client, served] = &mut ends;
        let [from_served, from_client] = &mut read;
        std::thread::scope(|scope| {
            scope.spawn(|| client.read_to_end(from_served).unwrap());
            scope.spawn(|| served.read_to_end(from_client).unwrap());
        });
        prop_assert!(read[1] == wrote[0]);
        prop_assert!(read[0] == wrote[1]);
        relay.wait_for(number, |counts| counts.open == 0);
    }
}
