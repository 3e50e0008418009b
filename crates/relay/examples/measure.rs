//! What a link costs beside a connection without one, in one run: throughput, round trips, new
//! connections, and the memory of idle ones. `cargo run --profile quick -p husk-relay --example measure`
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement"
)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use support::*;

fn main() {
    raise_descriptor_limit();
    let mut relay = Relay::start();
    let (listener, port) = target(V4);
    let direct = listener.local_addr().unwrap();
    let (number, link) = relay.link(port);
    for (name, address) in [
        ("direct", direct),
        ("link", link),
        ("direct", direct),
        ("link", link),
    ] {
        let one = throughput(&listener, address, 1);
        let sixteen = throughput(&listener, address, 16);
        let (p50, p99) = round_trips(&listener, address);
        let connections = connections(&listener, address);
        println!(
            "{name:7} 1 stream {one:.2} GB/s  16 streams {sixteen:.2} GB/s  round trip p50 {p50:?} \
             p99 {p99:?}  new connections {connections:.0}/s"
        );
    }
    let before = heap();
    let held: Vec<_> = (0..4_000).map(|_| connected(link, &listener)).collect();
    relay.wait_for(number, |counts| counts.open == 4_000);
    let bytes = heap() - before;
    println!(
        "4000 idle connections: {} bytes each in the relay and its test",
        bytes / held.len()
    );
}

/// Private memory of this process, in bytes.
fn heap() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let word = line.unwrap().split_whitespace().next().unwrap();
    word.parse::<usize>().unwrap() * 1024
}

fn throughput(listener: &TcpListener, address: SocketAddr, streams: usize) -> f64 {
    let pairs: Vec<_> = (0..streams).map(|_| connected(address, listener)).collect();
    let began = Instant::now();
    let until = began + Duration::from_secs(1);
    let moved: usize = std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for (mut client, mut served) in pairs {
            scope.spawn(move || {
                let chunk = vec![1; 128 * 1024];
                while Instant::now() < until && client.write_all(&chunk).is_ok() {}
            });
            readers.push(scope.spawn(move || {
                let mut buffer = vec![0; 128 * 1024];
                let mut moved = 0;
                while let Ok(count) = served.read(&mut buffer) {
                    if count == 0 {
                        break;
                    }
                    moved += count;
                }
                moved
            }));
        }
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    moved as f64 / began.elapsed().as_secs_f64() / 1e9
}

fn round_trips(listener: &TcpListener, address: SocketAddr) -> (Duration, Duration) {
    let (mut client, mut served) = connected(address, listener);
    client.set_nodelay(true).unwrap();
    served.set_nodelay(true).unwrap();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while served.read_exact(&mut buffer).is_ok() && served.write_all(&buffer).is_ok() {}
    });
    let mut times: Vec<_> = (0..10_000)
        .map(|_| {
            let began = Instant::now();
            client.write_all(&[1; 64]).unwrap();
            client.read_exact(&mut [0; 64]).unwrap();
            began.elapsed()
        })
        .collect();
    drop(client);
    echo.join().unwrap();
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn connections(listener: &TcpListener, address: SocketAddr) -> f64 {
    const COUNT: usize = 5000;
    let began = Instant::now();
    for _ in 0..COUNT {
        let (mut client, mut served) = connected(address, listener);
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
    }
    COUNT as f64 / began.elapsed().as_secs_f64()
}
