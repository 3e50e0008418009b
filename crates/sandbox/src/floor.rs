//! The least that a container takes: what the program `husk-floor` needs of the kernel and has no
//! safe wrapper for. Shims are measured against it.
use std::io;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::daemon::Side;

/// An instruction of classic BPF, as `<linux/filter.h>` lays it out.
const INSTRUCTION: usize = size_of::<libc::sock_filter>();

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
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Reads a filter as seccomp_export_bpf(3) writes it.
    ///
    /// # Errors
    /// It is not a whole number of instructions.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let (instructions, rest) = bytes.as_chunks::<INSTRUCTION>();
        if !rest.is_empty() {
            return Err(io::Error::other(format!(
                "a filter of {} bytes is not made of instructions of {INSTRUCTION}",
                bytes.len()
            )));
        }
        let read = |&[a, b, jt, jf, c, d, e, f]: &[u8; INSTRUCTION]| libc::sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([c, d, e, f]),
        };
        Ok(Self(instructions.iter().map(read).collect()))
    }

    /// Puts this process under the filter; it must have `no_new_privs` or CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// What seccomp(2) says.
    pub fn load(&mut self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            filter: self.0.as_mut_ptr(),
        };
        // SAFETY: the kernel reads `len` instructions of a vector that outlives the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if answer == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
