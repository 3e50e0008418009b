//! The last steps before a container's process is the program it asked for.
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, access, eaccess};
use oci_spec::runtime::Process;

use crate::error::JobError;

/// Where an executable without a slash is looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments and environment, ready for execve(2).
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// As the user wrote it.
    name: String,
    /// The files that may be meant, in the order of `PATH`.
    candidates: Vec<CString>,
    args: Vec<CString>,
    environment: Vec<CString>,
}

impl Workload {
    /// # Errors
    /// `Invalid`: no arguments, or a zero byte in one.
    pub(crate) fn new(process: &Process) -> Result<Self, JobError> {
        let args = process.args().as_deref().unwrap_or_default();
        let Some(name) = args.first().filter(|name| !name.is_empty()) else {
            return Err(JobError::invalid(
                "process.args is empty: there is nothing to execute",
            ));
        };
        let environment = last_of_each(process.env().as_deref().unwrap_or_default());
        let path = environment
            .iter()
            .find_map(|entry| entry.strip_prefix("PATH="));
        let candidates = if name.contains('/') {
            vec![name.clone()]
        } else {
            path.unwrap_or(DEFAULT_PATH)
                .split(':')
                // An empty entry means the working directory: a trap, not a feature.
                .filter(|directory| !directory.is_empty())
                .map(|directory| format!("{directory}/{name}"))
                .collect()
        };
        Ok(Self {
            name: name.clone(),
            candidates: strings(candidates, "process.args")?,
            args: strings(args.to_vec(), "process.args")?,
            environment: strings(environment, "process.env")?,
        })
    }

    /// Sets `HOME` to what /etc/passwd says of `user`, or to `/`, unless it is set already.
    ///
    /// The file is read as text: getpwuid(3) would load whatever library the container's
    /// nsswitch.conf names into this process.
    pub(crate) fn set_home(&mut self, user: u32) {
        let set =
            |entry: &CString| entry.to_bytes().len() > 5 && entry.to_bytes().starts_with(b"HOME=");
        if self.environment.iter().any(set) {
            return;
        }
        self.environment
            .retain(|entry| !entry.to_bytes().starts_with(b"HOME="));
        let passwd = read_passwd().unwrap_or_default();
        let mut home = b"HOME=".to_vec();
        home.extend_from_slice(home_of(&passwd, user).unwrap_or(b"/"));
        self.environment.extend(CString::new(home));
    }

    /// Sees that there is something to execute, as the user this process runs as.
    ///
    /// # Errors
    /// `NotFound`: no such file. `Invalid`: a directory, or the user may not execute it.
    pub(crate) fn check(&self) -> Result<(), JobError> {
        let mut refused = None;
        for candidate in &self.candidates {
            match executable(candidate) {
                Ok(()) => return Ok(()),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => refused = refused.or(Some(errno)),
            }
        }
        Err(self.refusal(refused))
    }

    /// Executes; returns only when that failed.
    pub(crate) fn execute(&self) -> Result<Infallible, JobError> {
        let mut refused = None;
        for candidate in &self.candidates {
            match nix::unistd::execve(candidate, &self.args, &self.environment) {
                Ok(never) => return Ok(never),
                // A script whose interpreter is missing answers the same as a missing file.
                Err(Errno::ENOENT) if executable(candidate).is_ok() => {
                    return Err(JobError::not_found(format!(
                        "cannot execute {:?}: its interpreter was not found: no such file or directory",
                        self.name
                    )));
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => refused = refused.or(Some(errno)),
            }
        }
        Err(self.refusal(refused))
    }

    fn refusal(&self, refused: Option<Errno>) -> JobError {
        // The wordings are those that dockerd looks for to tell exit status 126 from 127.
        let name = &self.name;
        match refused {
            None if name.contains('/') => JobError::not_found(format!(
                "cannot execute {name:?}: no such file or directory"
            )),
            None => JobError::not_found(format!(
                "cannot execute {name:?}: executable file not found in $PATH"
            )),
            Some(Errno::EACCES) => JobError::invalid(format!(
                "cannot execute {name:?} as user {}: permission denied",
                nix::unistd::geteuid()
            )),
            Some(Errno::EISDIR) => {
                JobError::invalid(format!("cannot execute {name:?}: it is a directory"))
            }
            Some(errno) => JobError::invalid(format!(
                "cannot execute {name:?}: {}",
                errno.desc().to_lowercase()
            )),
        }
    }
}

/// Whether this process may execute the file.
fn executable(path: &CString) -> Result<(), Errno> {
    let kind = SFlag::from_bits_truncate(stat(path.as_c_str())?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    if kind != SFlag::S_IFREG {
        return Err(Errno::EACCES);
    }
    match eaccess(path.as_c_str(), AccessFlags::X_OK) {
        // A seccomp profile older than faccessat2(2): real and effective ids are the same here.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {
            access(path.as_c_str(), AccessFlags::X_OK)
        }
        answer => answer,
    }
}

/// The entries of an environment; of those with the same name the last one.
fn last_of_each(environment: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let mut kept: Vec<String> = Vec::with_capacity(environment.len());
    let mut seen = std::collections::HashSet::new();
    for entry in environment.iter().rev() {
        // What has no '=' names nothing.
        if name(entry).is_some_and(|name| seen.insert(name)) {
            kept.push(entry.clone());
        }
    }
    kept.reverse();
    kept
}

fn strings(texts: Vec<String>, field: &str) -> Result<Vec<CString>, JobError> {
    texts
        .into_iter()
        .map(|text| {
            CString::new(text)
                .map_err(|error| JobError::invalid(format!("{field} has a zero byte: {error}")))
        })
        .collect()
}

/// What /etc/passwd says, if it is a file: a container may have put a fifo there, or a device.
fn read_passwd() -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/etc/passwd")?;
    let mut text = Vec::new();
    if file.metadata()?.is_file() {
        file.take(LONGEST_PASSWD).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// In bytes: some ten thousand users.
const LONGEST_PASSWD: u64 = 1 << 20;

/// The home directory of a user in a passwd(5) file.
fn home_of(passwd: &[u8], user: u32) -> Option<&[u8]> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let uid: u32 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let home = fields.nth(2)?;
        (uid == user && Path::new(OsStr::from_bytes(home)).is_absolute()).then_some(home)
    })
}

/// Puts every signal back to its default and unblocks all: both outlive execve(2), and Rust
/// ignores SIGPIPE.
///
/// By system call: glibc refuses to touch the two signals it uses itself, and whoever started the
/// shim may have ignored those, too.
pub(crate) fn reset_signals() {
    (1..=libc::SIGRTMAX()).for_each(reset_signal);
    unblock_signals();
}

/// The same in a process that the zygote has forked: that one has put all to their defaults, and
/// ignores SIGPIPE alone.
pub(crate) fn reset_signals_of_zygote() {
    reset_signal(libc::SIGPIPE);
    unblock_signals();
}

fn reset_signal(signal: libc::c_int) {
    // A kernel sigaction is four words at most; all zeroes means SIG_DFL, no flags, no mask.
    let default = [0usize; 4];
    // SAFETY: `default` outlives the call and nothing is written. SIGKILL and SIGSTOP answer
    // EINVAL, and are at their default.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const default,
            0,
            SIGSET_SIZE,
        )
    };
}

fn unblock_signals() {
    let none = [0u8; SIGSET_SIZE];
    // SAFETY: `none` outlives the call and nothing is written.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            0,
            SIGSET_SIZE,
        )
    };
}

/// The size in bytes of the kernel's set of signals.
const SIGSET_SIZE: usize = 8;

#[cfg(test)]
mod tests {
    use oci_spec::runtime::ProcessBuilder;

    use super::*;
    use crate::error::JobErrorKind;

    fn workload(args: &[&str], env: &[&str]) -> Result<Workload, JobError> {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let process = ProcessBuilder::default()
            .args(strings(args))
            .env(strings(env))
            .build();
        Workload::new(&process.unwrap())
    }

    #[test]
    fn nothing_to_execute_is_invalid() {
        assert_eq!(workload(&[], &[]).unwrap_err().kind, JobErrorKind::Invalid);
        assert_eq!(
            workload(&[""], &[]).unwrap_err().kind,
            JobErrorKind::Invalid
        );
        assert_eq!(
            workload(&["a\0b"], &[]).unwrap_err().kind,
            JobErrorKind::Invalid
        );
    }

    #[test]
    fn an_executable_is_looked_for_in_path_and_in_a_sane_default() {
        let found = workload(&["sh"], &["PATH=/first::/bin", "PATH=/second:/third"]).unwrap();
        assert_eq!(
            found.candidates,
            [c"/second/sh".to_owned(), c"/third/sh".to_owned()]
        );
        workload(&["sh"], &[]).unwrap().check().unwrap();
        workload(&["/bin/sh"], &["PATH=/nowhere"])
            .unwrap()
            .check()
            .unwrap();
    }

    #[test]
    fn what_cannot_be_executed_is_said_as_docker_expects_it() {
        let refusal = |args: &[&str]| workload(args, &["PATH=/bin"]).unwrap().check().unwrap_err();
        let missing = refusal(&["no-such-thing"]);
        assert_eq!(missing.kind, JobErrorKind::NotFound);
        assert!(
            missing
                .message
                .contains("executable file not found in $PATH"),
            "{missing}"
        );
        let missing = refusal(&["/no/such/thing"]);
        assert_eq!(missing.kind, JobErrorKind::NotFound);
        assert!(
            missing.message.contains("no such file or directory"),
            "{missing}"
        );
        assert_eq!(refusal(&["/etc"]).kind, JobErrorKind::Invalid);
        let refused = refusal(&["/etc/passwd"]);
        assert_eq!(refused.kind, JobErrorKind::Invalid);
        assert!(refused.message.contains("permission denied"), "{refused}");
    }

    #[test]
    fn of_a_variable_set_twice_the_last_counts() {
        let environment = ["A=1", "B=2", "A=3", "junk"].map(str::to_owned);
        assert_eq!(last_of_each(&environment), ["B=2", "A=3"]);
    }

    #[test]
    fn home_is_read_from_passwd() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\nbad\nx:x:7:7::relative:\napp:x:7:7::/srv/app:\n";
        assert_eq!(home_of(passwd, 0), Some(b"/root".as_slice()));
        assert_eq!(home_of(passwd, 7), Some(b"/srv/app".as_slice()));
        assert_eq!(home_of(passwd, 8), None);
    }

    #[test]
    fn home_that_is_set_stays() {
        let mut kept = workload(&["sh"], &["HOME=/mine"]).unwrap();
        kept.set_home(0);
        assert_eq!(kept.environment, [c"HOME=/mine".to_owned()]);
        let mut filled = workload(&["sh"], &["HOME="]).unwrap();
        filled.set_home(0);
        assert_eq!(filled.environment, [c"HOME=/root".to_owned()]);
    }
}
