//! What a relay may ask of the kernel.
//!
//! Written out as instructions: the list is short, and libseccomp would leave its memory in a process
//! that has little else.
use std::io;

use crate::seccomp::Instructions;

/// See linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where the fields of `struct seccomp_data` are; see seccomp(2).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// System calls with any arguments: what the loop does, and what memory and time take.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_ctl,
    libc::SYS_splice,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendto,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_pipe2,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_epoll_create1,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getppid,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit_group,
];

/// What an argument of a system call must be.
#[derive(Clone, Copy)]
enum Must {
    /// This number.
    Be(u32),
    /// Without these bits.
    Lack(u32),
}

/// System calls with certain arguments only: each line is one way to be allowed.
const ALLOWED_WITH: &[(libc::c_long, &[(u32, Must)])] = &[
    (libc::SYS_socket, &[(0, Must::Be(libc::AF_INET as u32))]),
    (libc::SYS_socket, &[(0, Must::Be(libc::AF_INET6 as u32))]),
    (libc::SYS_mmap, &[(2, Must::Lack(libc::PROT_EXEC as u32))]),
    (
        libc::SYS_mprotect,
        &[(2, Must::Lack(libc::PROT_EXEC as u32))],
    ),
    (libc::SYS_fcntl, &[(1, Must::Be(libc::F_SETPIPE_SZ as u32))]),
    (libc::SYS_fcntl, &[(1, Must::Be(libc::F_GETFD as u32))]),
    (
        libc::SYS_prctl,
        &[
            (0, Must::Be(libc::PR_SET_PDEATHSIG as u32)),
            (1, Must::Be(libc::SIGKILL as u32)),
        ],
    ),
];

/// Binds this process for good: what is not allowed kills it.
pub(super) fn load() -> io::Result<()> {
    Instructions::new(program()?).load(0)
}

fn program() -> io::Result<Vec<libc::sock_filter>> {
    let mut program = vec![
        load_word(ARCH),
        skip_if_equal(ARCHITECTURE, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
    ];
    for number in ALLOWED {
        program.extend([
            load_word(NUMBER),
            skip_if_equal(as_word(*number)?, 0, 1),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    for (number, arguments) in ALLOWED_WITH {
        // Each check either goes on or leads behind the answer of this line. The low words are enough:
        // the kernel takes these arguments as 32-bit integers.
        let mut left = u8::try_from(2 * arguments.len() + 1).map_err(io::Error::other)?;
        program.push(load_word(NUMBER));
        program.push(skip_if_equal(as_word(*number)?, 0, left));
        for (which, must) in *arguments {
            left -= 2;
            program.push(load_word(ARGUMENTS + 8 * which));
            program.push(match must {
                Must::Be(word) => skip_if_equal(*word, 0, left),
                Must::Lack(bits) => jump(libc::BPF_JSET, *bits, left, 0),
            });
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
    }
    program.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    Ok(program)
}

fn as_word(number: libc::c_long) -> io::Result<u32> {
    u32::try_from(number).map_err(io::Error::other)
}

fn load_word(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn skip_if_equal(word: u32, if_so: u8, if_not: u8) -> libc::sock_filter {
    jump(libc::BPF_JEQ, word, if_so, if_not)
}

fn jump(condition: u32, word: u32, if_so: u8, if_not: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, if_so, if_not, word)
}

fn answer(what: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        // Codes have 16 bits.
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    }
}
