//! What a connection costs that does nothing: its own program, as it counts what the process has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use support::*;

/// Held by each test: they measure the process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn an_idle_connection_has_no_pipe() {
    let _alone = ALONE.lock();
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let mut connections: Vec<_> = (0..300).map(|_| connected(link, &listener)).collect();
    for (client, served) in &mut connections {
        client.write_all(&[1; 1000]).unwrap();
        served.read_exact(&mut [0; 1000]).unwrap();
        served.write_all(&[1; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
    }
    relay.wait_for(number, |counts| counts.bytes_from == 300_000);
    let pipes = descriptors("pipe:");
    assert!(pipes < 32, "{pipes} ends of pipes for 300 idle connections");
    drop(connections);
    relay.wait_for(number, |counts| counts.open == 0);
}

/// A client that has sent all and gone, while the target does not read.
#[test]
fn a_peer_that_has_gone_makes_no_busy_loop() {
    let _alone = ALONE.lock();
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let (number, link) = relay.link(port);
    let (mut client, served) = connected(link, &listener);
    served.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    fill(&mut client);
    drop(client);
    std::thread::sleep(Duration::from_millis(100));
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
    };
    let before = used();
    std::thread::sleep(Duration::from_millis(500));
    let after = used();
    assert!(after - before < 100, "{} ms", after - before);
    drop(served);
    relay.wait_for(number, |counts| counts.open == 0);
}
