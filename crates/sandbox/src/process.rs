//! Processes seen through pidfds: wait, signal, reap.
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A process by pidfd: never another one that came to have its pid.
#[derive(Debug)]
pub struct Pidfd {
    /// The pid as this process sees it.
    pub pid: i32,
    /// The pidfd; readable once the process has exited.
    pub fd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

impl Ended {
    /// The exit code containerd expects: 128 + signal (contract 36).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Exited(status) => status.unsigned_abs(),
            Self::Signaled(signal) => 128 + signal.unsigned_abs(),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Signaled(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

impl Pidfd {
    /// Opens a pidfd for a process that is known to live, or to be an unreaped child.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor; no one else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { pid, fd })
    }

    /// Reaps the process if it has ended; `None` while it lives. Only for children.
    ///
    /// # Errors
    /// `ECHILD` when it is not a child of this process.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        self.waitid(libc::WEXITED | libc::WNOHANG)
    }

    /// Waits until the process has ended, and reaps it. Only for children.
    ///
    /// # Errors
    /// `ECHILD` when it is not a child of this process.
    pub(crate) fn wait(&self) -> io::Result<Ended> {
        loop {
            match self.waitid(libc::WEXITED) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it is a child of this process, ended or not.
    pub(crate) fn is_child(&self) -> bool {
        self.waitid(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
            .is_ok()
    }

    /// Kills the process, and waits until it has ended. It is reaped if it is a child.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self.signal(libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            answer => answer?,
        }
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        while let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
            if errno != Errno::EINTR {
                return Err(errno.into());
            }
        }
        match self.try_wait() {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Sends a signal; see pidfd_send_signal(2).
    ///
    /// # Errors
    /// `ESRCH` when it has ended and was reaped, `EINVAL` for a bad signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and means "as kill(2) would fill it".
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                no_info,
                0,
            )
        };
        if sent == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn waitid(&self, options: i32) -> io::Result<Option<Ended>> {
        let id = libc::id_t::try_from(self.fd.as_raw_fd()).map_err(io::Error::other)?;
        Ok(waitid(libc::P_PIDFD, id, options)?.map(|(_, ended)| ended))
    }
}

/// Reaps every ended child that `known` does not claim: orphans handed to the subreaper. Says how
/// many.
///
/// It stops at the first ended child that is claimed, since the kernel shows only the first one:
/// call it again when that one was waited for.
///
/// Call it only while no job of the zygote is under way: a process that the zygote has just made
/// is a child nobody claims yet.
///
/// # Errors
/// What waitid(2) says, `ECHILD` excepted.
pub fn reap_orphans(known: &dyn Fn(i32) -> bool) -> io::Result<usize> {
    let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let mut reaped = 0;
    loop {
        let pid = match waitid(libc::P_ALL, 0, peek) {
            Ok(Some((pid, _))) if !known(pid) => pid,
            Ok(_) => return Ok(reaped),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(reaped),
            Err(error) => return Err(error),
        };
        let id = libc::id_t::try_from(pid).map_err(io::Error::other)?;
        waitid(libc::P_PID, id, libc::WEXITED | libc::WNOHANG)?;
        reaped += 1;
    }
}

/// Kills the children of this process that are in its session, unless they are `known`, and those
/// that they leave to it, until there is none.
///
/// Whoever is on the way into a container is in this session until it is in the container's cgroup:
/// so when the zygote is gone, these are all that can still make something.
///
/// # Errors
/// What /proc or pidfd_send_signal(2) say, and `TimedOut` if they go on coming.
pub fn end_strays(known: &dyn Fn(i32) -> bool) -> io::Result<()> {
    /// A stray leaves at most those that it has forked, and these no more.
    const ROUNDS: usize = 20;
    let session: i32 = stat_field(my_pid(), 6)?;
    for _ in 0..ROUNDS {
        let strays: Vec<_> = children(my_pid())?
            .into_iter()
            .filter(|pid| !known(*pid))
            .filter(|pid| stat_field(*pid, 6).is_ok_and(|its: i32| its == session))
            .collect();
        if strays.is_empty() {
            return Ok(());
        }
        for pid in strays {
            match Pidfd::open(pid) {
                Ok(stray) => stray.kill()?,
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Kills these processes as far as they are children of this one that are not `known`, and waits
/// until they have ended.
///
/// # Errors
/// What pidfd_send_signal(2) says.
pub fn end_children_among(pids: &[i32], known: &dyn Fn(i32) -> bool) -> io::Result<()> {
    let own = my_pid();
    for pid in pids.iter().filter(|pid| !known(**pid)) {
        let Ok(process) = Pidfd::open(*pid) else {
            continue;
        };
        // Read after the pidfd is held: it is the parent of that very process.
        if stat_field(*pid, 4).is_ok_and(|parent: i32| parent == own) {
            process.kill()?;
        }
    }
    Ok(())
}

/// The start time of a process, field 22 of `/proc/PID/stat`, clock ticks since boot.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    stat_field(pid, 22)
}

/// The pid of this process.
pub(crate) fn my_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The children of a process, dead ones that were not waited for included.
pub(crate) fn children(parent: i32) -> io::Result<Vec<i32>> {
    // A process may end while we look: then it is nobody's child.
    let is_child = |pid: &i32| stat_field(*pid, 4).is_ok_and(|ppid: i32| ppid == parent);
    Ok(all()?.into_iter().filter(is_child).collect())
}

/// The processes that have the pipe of this inode open; those that cannot be looked into are left
/// out.
pub(crate) fn holders_of_pipe(inode: u64) -> io::Result<Vec<i32>> {
    let name = format!("pipe:[{inode}]");
    let holds = |pid: &i32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut fds| {
            fds.any(|fd| {
                fd.and_then(|fd| fs::read_link(fd.path()))
                    .is_ok_and(|target| target.as_os_str() == name.as_str())
            })
        })
    };
    Ok(all()?.into_iter().filter(holds).collect())
}

fn all() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    Ok(pids)
}

/// Where in this process's memory its arguments and its environment are, see proc_pid_stat(5).
pub(crate) fn strings_of_this_process() -> io::Result<[std::ops::Range<usize>; 2]> {
    let field = |number| stat_field::<usize>(my_pid(), number);
    Ok([field(48)?..field(49)?, field(50)?..field(51)?])
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc_pid_stat(5); from the third on.
fn stat_field<T: std::str::FromStr>(pid: i32, field: usize) -> io::Result<T> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, the name, may itself hold blanks and parentheses.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(field.checked_sub(3)?))
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat has no number in field {field}: {stat}"),
            )
        })
}

/// waitid(2): the pid and its end, or `None` when nothing has ended.
fn waitid(kind: libc::idtype_t, id: libc::id_t, options: i32) -> io::Result<Option<(i32, Ended)>> {
    // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: `info` outlives the call, and the kernel writes no more than a siginfo_t.
    let answer = unsafe { libc::waitid(kind, id, &raw mut info, options) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid filled in the SIGCHLD form of the union, or left it zeroed.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    if pid == 0 {
        return Ok(None);
    }
    let ended = match info.si_code {
        libc::CLD_EXITED => Ended::Exited(status),
        _ => Ended::Signaled(status),
    };
    Ok(Some((pid, ended)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Ended::Exited(3).code(), 3);
        assert_eq!(Ended::Signaled(libc::SIGKILL).code(), 137);
    }

    #[test]
    fn a_start_time_is_that_of_the_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(me).unwrap() > start_time(1).unwrap());
        assert_eq!(
            start_time(i32::MAX).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "it is waited for by its pidfd")]
    fn a_child_is_signalled_and_waited_for_by_pidfd() {
        let child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pidfd = Pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(pidfd.try_wait().unwrap(), None);
        // A real-time signal: past what most wrappers can name.
        pidfd.signal(40).unwrap();
        assert_eq!(pidfd.wait().unwrap(), Ended::Signaled(40));
        assert_eq!(
            pidfd.signal(9).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    }

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(children(me).unwrap().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(me).unwrap().contains(&pid));
    }
}
