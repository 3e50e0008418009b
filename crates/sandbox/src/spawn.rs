//! Programs that the shim itself starts, such as logging binaries.
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};

use crate::process::Pidfd;

/// The first descriptor after stdin, stdout and stderr.
const FIRST: RawFd = 3;

/// Starts a program that finds `descriptors` open as 3, 4 and so on.
///
/// # Errors
/// What fcntl(2), fork(2) and execve(2) say.
pub fn with_descriptors<const N: usize>(
    mut command: Command,
    descriptors: [OwnedFd; N],
) -> io::Result<Pidfd> {
    // Above the places where they shall be, so that no dup2 closes what another still needs.
    let above = FIRST + RawFd::try_from(N).map_err(io::Error::other)?;
    let mut sources = Vec::with_capacity(N);
    for descriptor in &descriptors {
        let copy = fcntl(descriptor.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: the kernel has just returned this descriptor; no one else owns it.
        sources.push(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) });
    }
    let dup_all = move || {
        for (source, target) in sources.iter().zip(FIRST..) {
            // SAFETY: dup2 takes two integers and touches no memory of ours.
            if unsafe { libc::dup2(source.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls nothing but dup2, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(dup_all) };
    let child = command.spawn()?;
    Pidfd::open(i32::try_from(child.id()).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;
    use crate::process::Ended;

    #[test]
    fn descriptors_are_where_they_shall_be() {
        let (read_in, mut write_in) = io::pipe().unwrap();
        let (mut read_out, write_out) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "cat <&3 >&4; exit 5"]);
        let process = with_descriptors(command, [read_in.into(), write_out.into()]).unwrap();
        write_in.write_all(b"hello").unwrap();
        drop(write_in);
        let mut text = String::new();
        read_out.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let ended = (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            process.try_wait().unwrap()
        });
        assert_eq!(ended, Some(Ended::Exited(5)));
    }
}
