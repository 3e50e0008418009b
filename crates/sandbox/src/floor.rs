//! The least that a container takes: what the program `husk-floor` needs of the kernel and has no
//! safe wrapper for. Shims are measured against it.
use std::io;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::daemon::Side;
use crate::seccomp::Instructions;

/// Forks a process that has one thread; the copy is in new namespaces of these kinds.
///
/// # Errors
/// More than one thread (the copy would inherit locks that nobody releases), or what clone(2)
/// says.
pub fn fork_into(namespaces: CloneFlags) -> io::Result<Side> {
    crate::daemon::only_thread()?;
    let flags = namespaces.bits() | Signal::SIGCHLD as i32;
    // SAFETY: like fork(2): no new stack, no shared memory; there is no other thread, so no lock
    // or allocator state is caught half-way.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid).map_err(io::Error::other)? {
        0 => Ok(Side::Child),
        pid if pid > 0 => Ok(Side::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A compiled system call filter.
pub struct Filter(Instructions);

impl Filter {
    /// Reads a filter as seccomp_export_bpf(3) writes it.
    ///
    /// # Errors
    /// It is not a whole number of instructions.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        Instructions::from_bytes(bytes).map(Self)
    }

    /// Puts this process under the filter; it must have `no_new_privs` or CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// What seccomp(2) says.
    pub fn load(&self) -> io::Result<()> {
        self.0.load(0)
    }
}
