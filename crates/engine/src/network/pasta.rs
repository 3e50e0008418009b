//! pasta, of the package passt: carries what a network namespace's programs do by sockets on the node.
//!
//! It makes an interface in the namespace with the node's address, and takes all that comes out of it
//! apart. It needs nothing of the node: no bridge, no rule, no address. The node's loopback is not
//! reached from the pod. pasta confines itself: a root directory with nothing in it, a pid namespace,
//! a system call filter, no new privileges; of root's capabilities it keeps two, CAP_SYS_ADMIN for
//! setns(2) and CAP_NET_BIND_SERVICE. It ends by itself when the namespace is unpinned.
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{NetworkError, Protocol, Published};

const PROGRAM: &str = "pasta";
/// In the pod's directory of state.
const PID_FILE: &str = "pasta.pid";
/// Where a pod asks the node's name server that is on the node's loopback.
pub(super) const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program, if it is installed.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|dir| dir.join(PROGRAM));
    candidates.find(|file| file.is_file())
}

/// Starts it; once this returns the namespace has its interface.
pub(super) fn start(netns: &Path, dir: &Path, published: &[Published]) -> Result<(), NetworkError> {
    let failed = |reason: String| NetworkError::Failed {
        program: PROGRAM.to_owned(),
        what: format!("lead out of the pod's network {}", netns.display()),
        reason,
    };
    // It goes into the background once it is set up.
    let output = Command::new(PROGRAM)
        .args(arguments(netns, &dir.join(PID_FILE), published))
        .stdin(Stdio::null())
        .output()
        .map_err(NetworkError::io(format!("run {PROGRAM}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // What it says of its log, and of root's being changed, is no reason.
    let reasons: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("syslog") && !line.starts_with("Don't run as root"))
        .collect();
    let undone = end(netns, dir);
    let mut reason = reasons.join("; ");
    if let Err(undoing) = undone {
        reason = format!("{reason} (and {undoing})");
    }
    Err(failed(reason))
}

fn arguments(netns: &Path, pid_file: &Path, published: &[Published]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = [
        "--quiet",
        "--config-net",
        // The gateway's address is the gateway's, and not the node's loopback.
        "--no-map-gw",
        // No port of the node's loopback appears in the pod.
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
        // Whoever it changed to otherwise could not join the namespace.
        "--runas",
        "0:0",
        "--dns-forward",
    ]
    .map(OsString::from)
    .into();
    arguments.push(NAME_SERVER.to_string().into());
    for (option, protocol) in [
        ("--tcp-ports", Protocol::Tcp),
        ("--udp-ports", Protocol::Udp),
    ] {
        let mut ports = published
            .iter()
            .filter(|port| port.protocol == protocol)
            .peekable();
        if ports.peek().is_none() {
            arguments.extend([option, "none"].map(OsString::from));
        }
        for port in ports {
            let address = port.address.map_or(String::new(), |it| format!("{it}/"));
            arguments.push(option.into());
            arguments.push(format!("{address}{}:{}", port.node, port.pod).into());
        }
    }
    arguments.extend(["--pid".into(), pid_file.into()]);
    arguments.extend(["--netns".into(), netns.into()]);
    arguments
}

/// Ends it, if it is there: who has started it may be gone.
pub(super) fn end(netns: &Path, dir: &Path) -> Result<(), NetworkError> {
    let file = dir.join(PID_FILE);
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(NetworkError::io(format!("read {}", file.display())))?,
    };
    let Ok(pid) = text.trim().parse::<i32>() else {
        return Ok(());
    };
    // Another process may have come to its number.
    let is_it = || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == netns.as_os_str().as_bytes())
    };
    let start = Instant::now();
    while is_it() {
        // That it has just ended is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        if start.elapsed() > PATIENCE {
            return Err(NetworkError::Failed {
                program: PROGRAM.to_owned(),
                what: format!("be ended, pid {pid}"),
                reason: format!("it is there {PATIENCE:?} after SIGKILL"),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
