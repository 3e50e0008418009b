//! `husk run --detach`, and the commands for pods that run.
use std::fs::File;
use std::io::ErrorKind::ConnectionRefused;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, eventually, finish, stderr, stdout};

crate::under_each_shim!(
    a_detached_pod_is_listed_and_removed,
    logs_are_kept_until_the_pod_is_removed,
    exec_passes_input_output_and_status_on,
    exec_with_a_terminal,
    exec_errors,
    removing_a_running_pod_needs_force,
    a_killed_supervisor,
    killed_shims_and_supervisor,
);

const SLEEPS: &str = "  terminationGracePeriodSeconds: 1\n  containers:\n\
    \x20 - {name: a, image: ROOTFS, command: [sleep, '100']}\n\
    \x20 - {name: b, image: ROOTFS, command: [sleep, '100'], securityContext: {runAsUser: 7}}\n";

fn a_detached_pod_is_listed_and_removed(node: &Node) {
    let id = node.detach(SLEEPS);
    let listed = node.stdout(&["ps"]);
    let line = listed.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.starts_with("test "), "{listed}");
    assert!(line.contains("a (running), b (running)"), "{listed}");
    let json = node.stdout(&["ps", "--json"]);
    assert!(json.contains(&format!("\"id\": \"{id}\"")), "{json}");
    node.stdout(&["rm", "-f", &id[..4]]);
    assert!(!node.stdout(&["ps"]).contains(&id));
    node.assert_nothing_left();
}

fn logs_are_kept_until_the_pod_is_removed(node: &Node) {
    node.detach(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'echo one; sleep 1; echo two; exit 3']}\n\
         \x20 - {name: b, image: ROOTFS, command: [echo, three]}\n",
    );
    assert_eq!(
        node.stdout(&["logs", "-f", "-c", "a", "test"]),
        "one\ntwo\n"
    );
    let all = node.stdout(&["logs", "test"]);
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a | one", "a | two", "b | three"]);
    assert!(node.stdout(&["ps"]).contains("a (exited 3), b (exited 0)"));
    node.stdout(&["rm", "test"]);
    node.assert_nothing_left();
}

fn exec_passes_input_output_and_status_on(node: &Node) {
    node.detach(SLEEPS);
    let script = "id -u; echo err >&2; exit 6";
    let output = node.output(&["exec", "test", "-c", "b", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("7\n", "err\n")
    );

    let mut child = node
        .husk(&["exec", "-i", "test", "-c", "a", "--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let written = stdin.write_all(&vec![b'x'; 1_000_000]);
    drop(stdin);
    let output = finish(child);
    assert!(output.status.success(), "{written:?} {output:?}");
    written.unwrap();
    // By coreutils: printf 'x%.0s' $(seq 1000000) | sha256sum
    let sum = "1b977e9f84f1b26b6ed7f68b0498faee2385ea4125bd29adce4a7d9106ba3134";
    assert_eq!(stdout(&output), format!("{sum}  -\n"));
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
}

fn exec_with_a_terminal(node: &Node) {
    node.detach(SLEEPS);
    let size = Winsize {
        ws_row: 33,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut child = node
        .husk(&["exec", "-it", "test", "-c", "a", "--", "sh"])
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    drop(terminal.slave);
    let mut keyboard = File::from(terminal.master.try_clone().unwrap());
    let mut screen = BufReader::new(File::from(terminal.master));
    // The size is told once the command runs, so ask until it is there.
    let script =
        "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; tty; echo fin''ished; exit 4\n";
    keyboard.write_all(script.as_bytes()).unwrap();
    let mut seen = String::new();
    while !seen.contains("finished") {
        assert_ne!(screen.read_line(&mut seen).unwrap(), 0, "{seen}");
    }
    assert!(seen.contains("/dev/pts/"), "{seen}");
    // Nobody holds the terminal once it is over: reading fails with EIO.
    let _ = screen.read_to_string(&mut seen);
    assert_eq!(child.wait().unwrap().code(), Some(4), "{seen}");
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
}

fn exec_errors(node: &Node) {
    node.detach(SLEEPS);
    let said = |args: &[&str]| stderr(&node.output(args));
    assert!(said(&["exec", "nobody", "--", "true"]).contains("there is no pod `nobody`"));
    assert!(said(&["exec", "test", "-c", "x", "--", "true"]).contains("no container `x`"));
    let missing = said(&["exec", "test", "--", "/no/such"]);
    assert!(missing.contains("/no/such"), "{missing}");
    assert!(said(&["exec", "-t", "test", "--", "true"]).contains("stdin is no terminal"));
    // The pod is unharmed.
    assert!(
        node.output(&["exec", "test", "--", "true"])
            .status
            .success()
    );
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
}

fn removing_a_running_pod_needs_force(node: &Node) {
    node.detach(SLEEPS);
    let output = node.output(&["rm", "test"]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("pod test is running"),
        "{}",
        stderr(&output)
    );
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
}

fn kill_all(node: &Node) {
    for pid in node.processes() {
        // One may be gone with the other.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    eventually("they are gone", || node.processes().is_empty());
}

fn a_killed_supervisor(node: &Node) {
    node.detach(SLEEPS);
    let supervisor = node
        .processes()
        .into_iter()
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("--supervise")
        })
        .unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    eventually("it is gone", || !node.processes().contains(&supervisor));
    // The pod runs on without it, and can be removed.
    assert!(
        node.output(&["exec", "test", "--", "true"])
            .status
            .success()
    );
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
}

fn killed_shims_and_supervisor(node: &Node) {
    let sockets = || {
        let dir = std::fs::read_dir("/run/containerd/s").into_iter().flatten();
        dir.flatten().map(|entry| entry.path()).filter(|socket| {
            // Those of tests beside this one are alive.
            UnixStream::connect(socket).is_err_and(|error| error.kind() == ConnectionRefused)
        })
    };
    let before: Vec<_> = sockets().collect();
    let id = node.detach(SLEEPS);
    kill_all(node);
    node.stdout(&["rm", "-f", "test"]);
    node.assert_nothing_left();
    eventually("no socket is left", || {
        sockets().all(|socket| before.contains(&socket))
    });
    let cgroups = ["/sys/fs/cgroup/memory/husk", "/sys/fs/cgroup/husk"];
    assert!(
        cgroups
            .iter()
            .all(|dir| !std::path::Path::new(dir).join(&id).exists())
    );
}
