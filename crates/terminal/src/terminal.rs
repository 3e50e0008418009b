//! The terminal that `husk` runs in.
use std::io::{self, IsTerminal as _, stdin, stdout};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Colours of containers' names, which a line's text never uses: ECMA-48 SGR, readable on dark
/// and light backgrounds.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Text in the colour of the container with this index; plain where colour is not wanted.
pub fn coloured(text: &str, index: usize, wanted: bool) -> String {
    match COLOURS.get(index % COLOURS.len()) {
        Some(colour) if wanted => format!("\x1b[{colour}m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

/// Whether colour is wanted on a stream: it is a terminal, and <https://no-color.org> is unset.
pub fn wants_colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Width and height of the terminal, in characters.
pub fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// stdin in raw mode: each key goes to the container as it is typed. Undone when dropped.
pub struct Raw(Termios);

impl Raw {
    /// Sets raw mode.
    ///
    /// # Errors
    /// stdin is no terminal.
    pub fn set() -> io::Result<Self> {
        if !stdin().is_terminal() {
            return Err(io::Error::other("stdin is no terminal: leave out -t"));
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(stdin(), SetArg::TCSANOW, &self.0) {
            log::warn!("the terminal stays raw ({errno}); `reset` helps");
        }
    }
}
