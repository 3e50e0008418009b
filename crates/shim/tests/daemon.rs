//! The daemon's signals and its log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use common::{Node, connects, lives, signal, wait_for, wait_until, wait_until_serving};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

/// What is in the log fifo now.
fn log(bundle: &Path) -> String {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(bundle.join("log"))
        .unwrap();
    let mut bytes = Vec::new();
    // Ends with EAGAIN: the daemon holds the other end.
    let _ = file.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_log_that_is_full_and_unread_stops_nothing() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let mut fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(bundle.path.join("log"))
        .unwrap();
    while fifo.write(&[b'.'; 1024]).is_ok() {}
    let socket = bundle.started();
    let shim = node.live_record("one").shim.unwrap();
    wait_until_serving(shim);
    signal(shim, Signal::SIGUSR1);
    signal(shim, Signal::SIGTERM);
    wait_until(|| !lives(shim));
    assert!(!socket.exists(), "it ended in good order");
}

#[test]
fn a_bundle_without_a_log_fifo_is_served_all_the_same() {
    let node = Node::new();
    let bundle = node.bundle("one");
    std::fs::remove_file(bundle.path.join("log")).unwrap();
    let socket = bundle.started();
    wait_until_serving(node.live_record("one").shim.unwrap());
    assert!(connects(&socket));
}

#[test]
fn sigusr1_writes_the_pod_s_state_to_the_log() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let socket = bundle.started();
    let shim = node.live_record("one").shim.unwrap();
    let begin = wait_for(|| Some(log(&bundle.path)).filter(|log| log.contains("serves the pod")));
    let line = begin.lines().last().unwrap();
    assert!(line.starts_with("time=\""), "{line}");
    assert!(line.contains("level=info msg=\"pid "), "{line}");
    assert!(
        line.ends_with(&format!(" namespace=\"{}\" id=\"one\"", node.namespace)),
        "{line}"
    );
    signal(shim, Signal::SIGUSR1);
    wait_until(|| !log(&bundle.path).is_empty());
    assert!(connects(&socket));
}

#[test]
fn sigterm_ends_an_empty_pod_and_its_socket_goes_last() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let socket = bundle.started();
    let record = node.live_record("one");
    wait_until_serving(record.shim.unwrap());
    signal(record.shim.unwrap(), Signal::SIGTERM);
    wait_until(|| !socket.exists());
    assert!(node.record("one").is_none(), "the record went before");
    wait_until(|| !lives(record.shim.unwrap()) && !lives(record.zygote.unwrap()));
}

#[test]
fn the_death_of_the_zygote_reaches_the_log() {
    let node = Node::new();
    let bundle = node.bundle("one");
    bundle.started();
    let record = node.live_record("one");
    wait_until_serving(record.shim.unwrap());
    signal(record.zygote.unwrap(), Signal::SIGKILL);
    let log = wait_for(|| Some(log(&bundle.path)).filter(|log| log.contains("zygote")));
    assert!(log.contains("level=error"), "{log}");
    assert!(lives(record.shim.unwrap()));
}
