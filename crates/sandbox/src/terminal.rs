//! Terminals.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Tells a terminal its size, in characters; see TIOCSWINSZ in ioctl_tty(2).
///
/// # Errors
/// `ENOTTY` when it is no terminal.
pub fn resize(terminal: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel only reads `size`.
    let answer = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_terminal_learns_its_size() {
        let pty = nix::pty::openpty(None, None).unwrap();
        resize(pty.master.as_fd(), 132, 43).unwrap();
        // stty reads the size of its stdin.
        let stty = std::process::Command::new("stty")
            .arg("size")
            .stdin(pty.slave)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&stty.stdout).trim(), "43 132");
    }

    #[test]
    fn what_is_no_terminal_says_so() {
        let (read, _write) = io::pipe().unwrap();
        let error = resize(read.as_fd(), 80, 24).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
