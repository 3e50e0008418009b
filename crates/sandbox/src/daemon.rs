//! What the shim needs of the kernel to become a daemon.
use std::io;

use nix::unistd::ForkResult;

/// On which side of [`fork`] this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The process that called, with the pid of its copy.
    Parent(i32),
    /// Its copy.
    Child,
}

/// Forks a process that has one thread, so that the copy may do anything the original could.
///
/// # Errors
/// More than one thread (the copy would inherit locks that nobody releases), or what fork(2) says.
pub fn fork() -> io::Result<Side> {
    only_thread()?;
    // SAFETY: there is no other thread, so no lock or allocator state is caught half-way.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child.as_raw())),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// What is larger, in bytes, is a mapping of its own, given back as it is freed; as much may lie free
/// at the heap's end. glibc's own values, which it raises up to 64 MiB as larger things are freed.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 128 * 1024;

/// Lets all threads take their memory from one heap. glibc gives each thread one of its own, which
/// costs every pod a few dirty pages for each; the shim's threads hardly ever allocate at once.
///
/// What is large is kept out of that heap for good: one large thing that is freed would make glibc
/// keep as much for later.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, LARGE),
        (libc::M_TRIM_THRESHOLD, LARGE),
    ] {
        // SAFETY: sets a number of the allocator's, under its own lock.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}

/// Gives the pages of the heap that hold nothing back to the kernel, also those amid others that do.
/// Walks the whole heap: for when much was freed.
pub fn give_back_memory() {
    // SAFETY: touches free memory of the allocator's only, under its own lock.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Fails unless this process has one thread.
pub(crate) fn only_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "a process with {threads} threads cannot be forked safely"
    )))
}

/// Gives this process, and those it will fork, a core scheduling cookie of their own: they share
/// a core's hyperthreads with nobody else. See the kernel's `admin-guide/hw-vuln/core-scheduling`.
///
/// # Errors
/// `EINVAL` without `CONFIG_SCHED_CORE`, `ENODEV` without simultaneous multithreading.
pub fn own_cores() -> io::Result<()> {
    // SAFETY: takes numbers only, changes nothing in this process's memory.
    let result = unsafe {
        libc::prctl(
            libc::PR_SCHED_CORE,
            libc::PR_SCHED_CORE_CREATE,
            0,
            libc::PR_SCHED_CORE_SCOPE_THREAD_GROUP,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threaded_process_is_not_forked() {
        // The test harness itself has a thread per test, and its main one.
        let error = fork().unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
    }
}
