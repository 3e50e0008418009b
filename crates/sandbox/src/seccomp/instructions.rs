//! Filters as the kernel takes them.
use std::io;

/// In bytes; see linux/filter.h.
const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// A program of classic BPF.
#[derive(Debug)]
pub(crate) struct Instructions(Vec<libc::sock_filter>);

impl Instructions {
    /// A program that is written out.
    pub(crate) const fn new(instructions: Vec<libc::sock_filter>) -> Self {
        Self(instructions)
    }

    /// Reads a program as seccomp_export_bpf(3) writes it, in the byte order of the machine.
    pub(crate) fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
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

    /// Binds this process, and those it will fork, for good, with the flags of seccomp(2). It takes
    /// `no_new_privs` or CAP_SYS_ADMIN. A listener stays open until the process executes.
    pub(crate) fn load(&self, flags: libc::c_ulong) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads `len` instructions, which `self` keeps alive, and writes none.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        if answer >= 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
