//! `husk inspect` draws a pod, puts it on a page, and watches it.
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, Shim, finish, stderr, stdout};

const CONFIG: &str = "[containers.agent.scopes]\nnetwork = 'container'\nuts = 'group:x'\n\
    [containers.proxy.scopes]\nuts = 'group:x'\n\
    [[containers.agent.links]]\nto = 'proxy'\nport = 8080\nlocal = 3128\n";

const SPEC: &str = "  terminationGracePeriodSeconds: 0\n  containers:\n\
    \x20 - {name: proxy, image: ROOTFS, command: [sleep, '100']}\n\
    \x20 - {name: agent, image: ROOTFS, command: [sh, -c, 'sleep 100; : \"<b>&\"']}\n";

/// Starts the pod; the answer is its id.
fn start(node: &Node) -> String {
    let config = node.scratch().join("config.toml");
    fs::write(&config, CONFIG).unwrap();
    let config = config.to_str().unwrap();
    let output = finish(node.start(SPEC, &["--detach", "--config", config]));
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

fn count(text: &str, pattern: &str) -> usize {
    text.matches(pattern).count()
}

#[test]
fn a_running_pod_is_drawn_as_the_kernel_has_it() {
    let node = Node::new(Shim::Husk);
    let id = start(&node);
    let svg = node.stdout(&["inspect", "--svg", &id]);
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    // The proxy's network is the pod's, the agent's is its own; their host name is the group's.
    assert!(
        svg.contains("uts namespace") && svg.contains(">group x</text>"),
        "{svg}"
    );
    assert_eq!(
        count(&svg, "class=\"band some0\""),
        2,
        "the band, and the legend's: {svg}"
    );
    for word in ["proxy", "agent", "3128", "8080", "configuration"] {
        assert!(
            svg.contains(&format!(">{word}</text>")),
            "no {word} in {svg}"
        );
    }
    assert_eq!(count(&svg, "class=\"chip "), 2);
    assert!(
        svg.contains("agent:3128 → pod:8080, decided by configuration"),
        "{svg}"
    );
    let html = node.stdout(&["inspect", "--html", &id]);
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("<svg "));
    assert!(html.contains("<th scope=\"col\">COMMAND</th>"), "{html}");
    assert!(html.contains(": &quot;&lt;b&gt;&amp;&quot;</td>"), "{html}");
    node.stdout(&["rm", "--force", &id]);
    node.assert_nothing_left();
}

/// `husk inspect --watch` on a terminal of this many lines, and what it writes there.
fn watch(node: &Node, id: &str, lines: u16) -> (Child, BufReader<File>) {
    let size = Winsize {
        ws_row: lines,
        ws_col: 90,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let child = node
        .husk(&["inspect", "--watch", "--color", "never", id])
        .stdin(slave())
        .stdout(slave())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, BufReader::new(File::from(terminal.master)))
}

/// Reads until this has been drawn so many times.
fn drawn(screen: &mut BufReader<File>, pattern: &str, times: usize) -> String {
    let mut seen = String::new();
    while count(&seen, pattern) < times {
        assert_ne!(screen.read_line(&mut seen).unwrap(), 0, "{seen:?}");
    }
    seen
}

/// The rest of what is written. Nobody holds the terminal once it is over: reading fails with EIO.
fn rest(screen: &mut BufReader<File>) -> String {
    let mut rest = Vec::new();
    let _ = screen.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

/// What puts a terminal right: lines that wrap, the cursor, the first screen.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

#[test]
fn a_pod_is_watched_until_ctrl_c_or_its_end() {
    let node = Node::new(Shim::Husk);
    let id = start(&node);
    let (child, mut screen) = watch(&node, &id, 12);
    let seen = drawn(&mut screen, "POD test", 3);
    assert!(seen.starts_with("\x1b[?1049h"), "{seen:?}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let last = rest(&mut screen);
    assert!(last.ends_with(LEAVE), "{last:?}");
    assert!((seen + &last).contains("more lines: too many for this terminal"));
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let (child, mut screen) = watch(&node, &id, 200);
    drawn(&mut screen, "KEPT FOR THE POD", 1);
    node.stdout(&["rm", "--force", &id]);
    let last = rest(&mut screen);
    assert!(last.ends_with(LEAVE), "{last:?}");
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("is gone"), "{}", stderr(&output));
    node.assert_nothing_left();
}

#[test]
fn a_watch_needs_a_terminal() {
    let node = Node::new(Shim::Husk);
    let output = node.output(&["inspect", "--watch", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("leave out --watch"),
        "{}",
        stderr(&output)
    );
    assert!(stdout(&output).is_empty());
}
