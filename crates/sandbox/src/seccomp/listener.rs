//! Who is asked about the calls that a profile has `SCMP_ACT_NOTIFY` for.
//!
//! The process loads the filter, whose listener is a descriptor of its own, and goes on: what it
//! calls meanwhile waits for an answer. The builder, which the filter does not bind, fetches the
//! descriptor and sends it to the socket that the profile names: nothing of the node's is open in the
//! container for that.
use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use serde_json::{Value, json};

use crate::error::{Doing, JobError};
use crate::job::Inherited;
use crate::process::Pidfd;
use crate::{bundle, seccomp};

/// Said by a process to its builder when its filter is loaded: the first byte of many.
pub(crate) const LISTENING: u8 = b'l';
/// One byte more than a pipe holds; see pipe(7). Whoever writes so much waits until some was read.
const MORE_THAN_A_PIPE_HOLDS: usize = 65_536 + 1;
/// What the kernel calls the descriptor, in `/proc/PID/fd`.
const NAME: &str = "anon_inode:seccomp notify";
/// How else to say that a filter is loaded?
const ALWAYS: [&str; 1] = ["write"];
/// What is called between a filter that is loaded early and that being said: by whoever drops
/// capabilities, enters the working directory, looks for the executable, and forks the process.
const EARLY: [&str; 34] = [
    "access",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fstat",
    "futex",
    "getcwd",
    "getpid",
    "getuid",
    "ioctl",
    "lseek",
    "mmap",
    "munmap",
    "newfstatat",
    "open",
    "openat",
    "prctl",
    "read",
    "rt_sigaction",
    "rt_sigprocmask",
    "sendmsg",
    "sendto",
    "setsid",
    "set_robust_list",
    "stat",
    "statx",
    "wait4",
];

/// Tells the builder that the filter is loaded, and waits until it has fetched the listener, which
/// execve(2) closes. If the builder dies, so does this process, or the writing fails.
pub(crate) fn announce(builder: &mut impl Write) -> io::Result<()> {
    builder.write_all(&[LISTENING; MORE_THAN_A_PIPE_HOLDS])
}

/// In the builder, which has read the first byte: lets the process go on.
pub(crate) fn release(process: &mut impl Read) -> io::Result<()> {
    process.read_exact(&mut [0; MORE_THAN_A_PIPE_HOLDS - 1])
}

/// The connection to a listener, made before there is a process.
pub(crate) struct Listener {
    socket: UnixStream,
    /// `containerProcessState` of the runtime specification, without the pids.
    state: Value,
}

impl Listener {
    /// # Errors
    /// `Invalid`: there is no `listenerPath`, or a call is to wait for an answer that nobody could give
    /// yet; `is_early` says that the filter is loaded before capabilities are dropped. `NotFound`:
    /// nobody listens.
    pub(crate) fn connect(
        container: &Inherited,
        profile: &LinuxSeccomp,
        status: &str,
        is_early: bool,
    ) -> Result<Option<Self>, JobError> {
        if !seccomp::notifies(profile) {
            return Ok(None);
        }
        let rules = profile.syscalls().iter().flatten();
        let asked = rules.filter(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
        let never: &[&str] = if is_early { &EARLY } else { &[] };
        let names = asked.flat_map(|rule| rule.names());
        for name in names.map(String::as_str) {
            if ALWAYS.contains(&name) || never.contains(&name) {
                let hint = match is_early {
                    true => "; with process.noNewPrivileges, most may be",
                    false => "",
                };
                return Err(JobError::invalid(format!(
                    "linux.seccomp has SCMP_ACT_NOTIFY for {name}, which the process calls before anyone \
                     can answer: it cannot be asked about{hint}"
                )));
            }
        }
        let path = profile.listener_path().as_deref().ok_or_else(|| {
            JobError::invalid("linux.seccomp has SCMP_ACT_NOTIFY, but no listenerPath")
        })?;
        let socket = UnixStream::connect(path)
            .doing(|| format!("connect to linux.seccomp.listenerPath, {}", path.display()))?;
        let state = state(container, profile, status)?;
        Ok(Some(Self { socket, state }))
    }

    /// Sends the descriptor of a process whose filter is loaded. `init` is that of its container.
    pub(crate) fn hand_over(&self, process: &Pidfd, init: i32) -> Result<(), JobError> {
        let what = || "hand the seccomp listener over";
        let listener = find(process)
            .and_then(|fd| fetch(process, fd))
            .doing(what)?;
        let mut state = self.state.clone();
        set(&mut state, "/pid", json!(process.pid));
        set(&mut state, "/state/pid", json!(init));
        let text = state.to_string();
        let fds = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let parts = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &parts,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .doing(what)?;
        let rest = text.as_bytes().get(sent..).unwrap_or_default();
        (&self.socket).write_all(rest).doing(what)
    }
}

fn state(container: &Inherited, profile: &LinuxSeccomp, status: &str) -> Result<Value, JobError> {
    let spec = bundle::load(&container.bundle)?;
    let mut state = json!({
        "ociVersion": spec.version(),
        "fds": ["seccompFd"],
        "pid": 0,
        "state": {
            "ociVersion": spec.version(),
            "id": container.id,
            "status": status,
            "pid": 0,
            "bundle": container.bundle,
            "annotations": spec.annotations(),
        },
    });
    if let Some(metadata) = profile.listener_metadata()
        && let Some(members) = state.as_object_mut()
    {
        members.insert("metadata".to_owned(), json!(metadata));
    }
    Ok(state)
}

fn set(state: &mut Value, place: &str, value: Value) {
    if let Some(member) = state.pointer_mut(place) {
        *member = value;
    }
}

fn find(process: &Pidfd) -> Result<RawFd, Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    for entry in fs::read_dir(format!("/proc/{}/fd", process.pid)).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        if fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(NAME)) {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            return number.ok_or(Errno::EBADF);
        }
    }
    Err(Errno::EBADF)
}

/// pidfd_getfd(2).
fn fetch(process: &Pidfd, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_getfd(2) takes integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.fd.as_raw_fd(), fd, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned this descriptor; no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
