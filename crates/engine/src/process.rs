//! Processes that may have ended, told from later ones with their pid.
use std::fs;

pub use husk_scope::record::Process;

/// The process that calls.
#[must_use]
pub fn this() -> Option<Process> {
    by_pid(i32::try_from(std::process::id()).ok()?)
}

/// The process that has this pid now.
#[must_use]
pub fn by_pid(pid: i32) -> Option<Process> {
    start_time(pid).map(|start_time| Process { pid, start_time })
}

/// Whether it still runs; a zombie does not.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    start_time(process.pid) == Some(process.start_time)
}

/// Fields 3 and 22 of `/proc/PID/stat`, proc_pid_stat(5); the second field may hold spaces and
/// parentheses.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_successor_does_not() {
        let this = this().unwrap();
        assert!(is_alive(this));
        assert!(!is_alive(Process {
            start_time: this.start_time + 1,
            ..this
        }));
    }
}
