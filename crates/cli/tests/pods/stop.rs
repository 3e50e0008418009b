//! Ctrl-C.
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, PATIENCE, finish};

crate::under_each_shim!(
    ctrl_c_stops_gently,
    the_grace_period_ends_with_sigkill,
    a_second_ctrl_c_kills_at_once,
    stopping_before_anything_runs,
);

fn interrupt(child: &Child) {
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
}

/// Reads the pod's output up to this text.
fn read_until(child: &mut Child, wanted: &str) -> BufReader<std::process::ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "no {wanted}");
    }
    output
}

fn ctrl_c_stops_gently(node: &Node) {
    let mut child = node.start(
        "  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'trap \"echo bye; exit 5\" TERM; echo \
         ready; while true; do sleep 0.1; done']}\n",
        &[],
    );
    let mut rest = read_until(&mut child, "ready");
    interrupt(&child);
    let output = finish(child);
    let mut text = String::new();
    rest.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a | bye\n");
    assert!(output.status.success(), "{:?}", output.status);
    node.assert_nothing_left();
}

const STUBBORN: &str = "  containers:\n\
    \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'trap \"echo no\" TERM; echo ready; while \
    true; do sleep 0.1; done']}\n";

fn the_grace_period_ends_with_sigkill(node: &Node) {
    let spec = format!("  terminationGracePeriodSeconds: 2\n{STUBBORN}");
    let mut child = node.start(&spec, &[]);
    let _rest = read_until(&mut child, "ready");
    let start = Instant::now();
    interrupt(&child);
    finish(child);
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    node.assert_nothing_left();
}

fn a_second_ctrl_c_kills_at_once(node: &Node) {
    let spec = format!("  terminationGracePeriodSeconds: 1000\n{STUBBORN}");
    let mut child = node.start(&spec, &[]);
    let _rest = read_until(&mut child, "ready");
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    let start = Instant::now();
    finish(child);
    assert!(start.elapsed() < PATIENCE);
    node.assert_nothing_left();
}

fn stopping_before_anything_runs(node: &Node) {
    for delay in [100, 200, 300, 400] {
        let child = node.start(STUBBORN, &[]);
        std::thread::sleep(Duration::from_millis(delay));
        // Twice, as the container ignores the first if it runs already.
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(50));
        interrupt(&child);
        finish(child);
        node.assert_nothing_left();
    }
}
