//! What bounds a process besides its cgroup: rlimits, priorities, processors, the OOM score.
use std::fs;
use std::mem;

use libcontainer::syscall::syscall::create_syscall;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimit,
    PosixRlimitType, Process, Scheduler,
};

use crate::error::{Doing, JobError};
use crate::process::Pidfd;

/// Sets the I/O priority and rlimits, but for that of processes: see [`set_processes`].
pub(super) fn set(process: &Process) -> Result<(), JobError> {
    for limit in process.rlimits().iter().flatten() {
        if limit.typ() == PosixRlimitType::RlimitNproc {
            raise_processes(limit)?;
        } else {
            set_rlimit(limit)?;
        }
    }
    match process.io_priority() {
        Some(priority) => set_io_priority(priority),
        None => Ok(()),
    }
}

/// Sets the rlimit of processes, once there is nothing more to fork: the maker of a process is one
/// more of the same user.
pub(super) fn set_processes(process: &Process) -> Result<(), JobError> {
    let limits = process.rlimits().iter().flatten();
    limits
        .filter(|limit| limit.typ() == PosixRlimitType::RlimitNproc)
        .try_for_each(set_rlimit)
}

/// Raises the hard rlimits as far as the spec asks, for a process that is to lower them again in a user
/// namespace, where raising takes a privilege that nobody has.
pub(crate) fn raise(process: &Process) -> Result<(), JobError> {
    for limit in process.rlimits().iter().flatten() {
        let what = || format!("raise process.rlimits {:?}", limit.typ());
        let resource = resource(limit.typ());
        let (soft, hard) = getrlimit(resource).doing(what)?;
        if hard < limit.hard() {
            setrlimit(resource, soft, limit.hard()).doing(what)?;
        }
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
    }
}

/// Raises the rlimit of processes as far as it has to be, which may take a privilege that is given up
/// before [`set_processes`] lowers it.
fn raise_processes(limit: &PosixRlimit) -> Result<(), JobError> {
    let what = || format!("set process.rlimits {:?}", limit.typ());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).doing(what)?;
    let (soft, hard) = (soft.max(limit.soft()), hard.max(limit.hard()));
    setrlimit(Resource::RLIMIT_NPROC, soft, hard).doing(what)
}

fn set_rlimit(limit: &PosixRlimit) -> Result<(), JobError> {
    create_syscall().set_rlimit(limit).map_err(|error| {
        JobError::failed(format!(
            "cannot set process.rlimits {:?}: {error}",
            limit.typ()
        ))
    })
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Sets the OOM score of this process to that of the spec, if it has one.
pub(crate) fn set_oom_score(process: &Process) -> Result<(), JobError> {
    let Some(score) = process.oom_score_adj() else {
        return Ok(());
    };
    fs::write(OOM_SCORE, score.to_string()).doing(|| {
        format!("set process.oomScoreAdj to {score} (less than the shim's takes CAP_SYS_RESOURCE)")
    })
}

/// Sets the OOM score of this process to that of the spec; without one, to that of the container's
/// init, not the shim's, which is protected.
pub(crate) fn set_oom_score_of_exec(process: &Process, init: i32) -> Result<(), JobError> {
    if process.oom_score_adj().is_some() {
        return set_oom_score(process);
    }
    let path = format!("/proc/{init}/oom_score_adj");
    let score = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    // Lowering it may be refused; then the process is more exposed than init, no less.
    let _ = fs::write(OOM_SCORE, score.trim());
    Ok(())
}

/// Binds this process to the processors of a list such as `0-3,7`; an empty list changes nothing.
pub(crate) fn set_affinity(list: Option<&str>) -> Result<(), JobError> {
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return Ok(());
    };
    let set = parse_cpus(list).ok_or_else(|| {
        JobError::invalid(format!(
            "process.execCPUAffinity: {list:?} is no list of processors"
        ))
    })?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .doing(|| format!("set process.execCPUAffinity to {list}"))
}

fn parse_cpus(list: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        for cpu in first..=last {
            set.set(cpu).ok()?;
        }
    }
    Some(set)
}

/// ioprio_set(2): the class in the bits from 13 up, the priority below.
fn set_io_priority(priority: &LinuxIOPriority) -> Result<(), JobError> {
    const WHO_PROCESS: i32 = 1;
    const CLASS_SHIFT: i64 = 13;
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    if !(0..8).contains(&priority.priority()) {
        return Err(JobError::invalid(
            "process.ioPriority.priority is not from 0 to 7",
        ));
    }
    let value = (class << CLASS_SHIFT) | priority.priority();
    // SAFETY: ioprio_set(2) takes integers.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) };
    Errno::result(answer).doing(|| "set process.ioPriority")?;
    Ok(())
}

/// Sets the scheduler of a process, if one is asked for, from outside: a process with a deadline may
/// not fork, and one that is to reset it on fork has lost it then. See sched_setattr(2).
pub(crate) fn set_scheduler(
    scheduler: Option<&Scheduler>,
    process: &Pidfd,
) -> Result<(), JobError> {
    let Some(scheduler) = scheduler else {
        return Ok(());
    };
    let priority = scheduler.priority().unwrap_or(0);
    let attributes = libc::sched_attr {
        size: u32::try_from(mem::size_of::<libc::sched_attr>()).unwrap_or(0),
        sched_policy: policy(*scheduler.policy()),
        sched_flags: scheduler
            .flags()
            .iter()
            .flatten()
            .fold(0, |flags, one| flags | flag(*one)),
        sched_nice: scheduler.nice().unwrap_or(0),
        sched_priority: u32::try_from(priority)
            .map_err(|_| JobError::invalid("process.scheduler.priority is negative"))?,
        sched_runtime: scheduler.runtime().unwrap_or(0),
        sched_deadline: scheduler.deadline().unwrap_or(0),
        sched_period: scheduler.period().unwrap_or(0),
    };
    // SAFETY: `attributes` outlives the call, and says its own size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            process.pid,
            &raw const attributes,
            0,
        )
    };
    Errno::result(answer).doing(|| "set process.scheduler")?;
    Ok(())
}

/// The numbers of linux/sched.h.
fn policy(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

/// The bits of linux/sched.h.
fn flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        let set = parse_cpus("0-2, 7").unwrap();
        let cpus: Vec<usize> = (0..10).filter(|cpu| set.is_set(*cpu).unwrap()).collect();
        assert_eq!(cpus, [0, 1, 2, 7]);
        for wrong in ["", "x", "3-1", "1-", "99999999"] {
            assert!(parse_cpus(wrong).is_none(), "{wrong}");
        }
    }
}
