//! Killing every process of a cgroup.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Error, Result};
use super::{files, freeze};

/// How often to look for processes that were forked while the others were being killed, where
/// they could not be frozen first.
const ROUNDS: usize = 50;

/// The processes of a cgroup and of those below it.
pub(super) fn pids(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = BTreeSet::new();
    for (depth, dir) in files::tree(dir)?.iter().enumerate() {
        match files::read(&dir.join("cgroup.procs")) {
            // A process of another pid namespace reads as 0: nobody here can name it.
            Ok(text) => {
                let named = text.lines().filter_map(|pid| pid.parse::<i32>().ok());
                pids.extend(named.filter(|pid| *pid > 0));
            }
            Err(error) if depth > 0 && (error.is_gone() || is_threaded(&error)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids.into_iter().collect())
}

/// Whether this is a cgroup of threads: their processes are listed in the one above.
fn is_threaded(error: &Error) -> bool {
    matches!(error, Error::File { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP))
}

/// Kills what is in a v2 cgroup, in one step where the kernel can (Linux 5.14).
pub(super) fn kill_v2(dir: &Path) -> Result<()> {
    match files::write(&dir.join("cgroup.kill"), "1") {
        Err(error) if error.is_gone() && dir.exists() => {
            signal_frozen(dir, freeze::freeze_v2, freeze::thaw_v2)
        }
        done => done,
    }
}

/// Kills what is in a v1 cgroup of the freezer hierarchy.
pub(super) fn kill_v1(freezer: &Path) -> Result<()> {
    signal_frozen(freezer, freeze::freeze_v1, freeze::thaw_v1)
}

/// Freezes, so that no process forks away, kills, and thaws: a frozen process does not die.
fn signal_frozen(
    dir: &Path,
    freeze: fn(&Path) -> Result<()>,
    thaw: fn(&Path) -> Result<()>,
) -> Result<()> {
    let frozen = freeze(dir);
    let signalled = match &frozen {
        Ok(()) => signal(dir).map(drop),
        Err(error) if error.is_gone() => return Ok(()),
        Err(_) => signal_until_none(dir),
    };
    if frozen.is_ok() {
        thaw(dir)?;
    }
    signalled
}

/// Kills what is in a cgroup that has no freezer, or does not freeze, again and again until no
/// process is left: each round kills those that the former round's processes forked.
pub(super) fn signal_until_none(dir: &Path) -> Result<()> {
    for _ in 0..ROUNDS {
        if signal(dir)? == 0 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Err(Error::Busy(format!(
        "processes in {} outlive SIGKILL: see its cgroup.procs and their /proc/PID/stack",
        dir.display()
    )))
}

/// Sends SIGKILL to every process; how many there were.
fn signal(dir: &Path) -> Result<usize> {
    let pids = pids(dir)?;
    for pid in &pids {
        // One that has ended by now is what was wanted.
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => {
                return Err(Error::Busy(format!(
                    "cannot kill process {pid} of {}: {errno}",
                    dir.display()
                )));
            }
        }
    }
    Ok(pids.len())
}
