//! What `/proc` says about a process, which may have ended: a record names it by pid and start time.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use husk_scope::Kind;
pub use husk_scope::record::Process;
use nix::unistd::{SysconfVar, sysconf};

/// The process that calls; `None` where there is no `/proc`.
#[must_use]
pub fn this() -> Option<Process> {
    by_pid(i32::try_from(std::process::id()).ok()?)
}

/// The process that has this pid now, a zombie too.
#[must_use]
pub fn by_pid(pid: i32) -> Option<Process> {
    stat(pid).map(|stat| Process {
        pid,
        start_time: stat.start_time,
    })
}

/// Whether the recorded process still runs, and is not a later one that came to have its pid. A
/// zombie does not run.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    stat(process.pid).is_some_and(|stat| {
        stat.start_time == process.start_time && !matches!(stat.state, 'Z' | 'X')
    })
}

/// The inode of a namespace of a process, namespaces(7); `None` when the process is gone, or the kernel has no
/// such kind.
#[must_use]
pub fn namespace(pid: i32, kind: Kind) -> Option<u64> {
    inode(Path::new(&format!("/proc/{pid}/ns/{}", kind.proc_name())))
}

/// The inode of the namespace at a path, as a process sees that path: a pin may be mounted in its
/// mount namespace only. `None` when there is no namespace.
#[must_use]
pub fn inode_seen_by(pid: i32, path: &Path) -> Option<u64> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    inode(&Path::new(&format!("/proc/{pid}/root")).join(relative))
}

fn inode(path: &Path) -> Option<u64> {
    let meta = fs::metadata(path).ok()?;
    // All namespaces are on one filesystem; what is left of a pin once unmounted is a plain file.
    let ours = fs::metadata("/proc/self/ns/mnt").ok()?;
    (meta.dev() == ours.dev()).then(|| meta.ino())
}

/// Memory of a process, in bytes; see `smaps_rollup` in proc(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages, those shared with other processes too.
    pub rss: u64,
    /// Pages that only this process has, and has written: what it costs.
    pub private_dirty: u64,
    /// Resident pages, each divided by the number of processes that share it.
    pub pss: u64,
}

/// `None` for a process that is gone or has no memory of its own, such as a zombie.
#[must_use]
pub fn memory(pid: i32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        rss: field("Rss:")?,
        private_dirty: field("Private_Dirty:")?,
        pss: field("Pss:")?,
    })
}

/// The command line, the name in brackets where there is none, as ps(1) shows it.
#[must_use]
pub fn command(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end_matches('\0').replace('\0', " ");
    if text.is_empty() {
        stat(pid).map(|stat| format!("[{}]", stat.name))
    } else {
        Some(text)
    }
}

/// The pid a process has in its own pid namespace.
#[must_use]
pub fn inner_pid(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// What is read of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name, cut by the kernel to 15 bytes.
    pub name: String,
    /// `R`, `S`, `Z` and so on.
    pub state: char,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// `None` when there is no such process.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses; what follows its last one does not.
    let (before, after) = text.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of the line; the state is field 3.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat {
        name: name.to_owned(),
        state,
        start_time,
    })
}

/// Seconds since a process started.
///
/// # Errors
/// `/proc/uptime` cannot be read.
pub fn age(process: Process) -> io::Result<u64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/uptime has no number"))?;
    let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok());
    let ticks = u64::from(ticks.unwrap_or(100).max(1));
    let started = Duration::from_millis(process.start_time * 1000 / ticks);
    Ok(Duration::from_secs_f64(uptime.max(0.0))
        .saturating_sub(started)
        .as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "42 (a) S b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                name: "a) S b".into(),
                state: 'S',
                start_time: 987_654
            }
        );
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn this_process_is_known() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let start_time = stat(pid).unwrap().start_time;
        assert_eq!(this(), Some(Process { pid, start_time }));
        assert!(is_alive(Process { pid, start_time }));
        assert!(!is_alive(Process {
            pid,
            start_time: start_time + 1
        }));
        assert!(age(Process { pid, start_time }).unwrap() < 3600);
        let memory = memory(pid).unwrap();
        assert!(
            memory.rss >= memory.pss
                && memory.pss > memory.private_dirty
                && memory.private_dirty > 0,
            "{memory:?}"
        );
        assert!(command(pid).unwrap().contains("husk"));
        assert_eq!(
            namespace(pid, Kind::Network),
            inode(Path::new("/proc/self/ns/net"))
        );
        assert!(inner_pid(pid).is_some());
        assert!(inode_seen_by(pid, Path::new("/proc/self/ns/net")).is_some());
        assert_eq!(inode_seen_by(pid, Path::new("/proc/self/stat")), None);
        assert_eq!(inode_seen_by(pid, Path::new("/nowhere")), None);
    }
}
