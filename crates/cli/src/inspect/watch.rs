//! `husk inspect --watch`: the page again and again, until it is enough.
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use husk_terminal::messages::say;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{InspectArgs, find, links, report, text};

/// Between one look and the next.
const PAUSE: Duration = Duration::from_secs(1);

/// A screen of our own, without a cursor, whose lines are cut at its edge: xterm's private modes.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal's other screen; the first one, as it was, when dropped.
struct Screen;

/// Shows the pod until it is gone, or until SIGINT or SIGTERM.
///
/// # Errors
/// The standard output is no terminal; no such pod.
pub(super) fn watch(args: &InspectArgs) -> Result<()> {
    ensure!(
        io::stdout().is_terminal(),
        "--watch draws on a terminal and the standard output is none: leave out --watch"
    );
    let colours = args.color.wanted();
    let mut pod = find::find(
        &args.state_dir,
        args.namespace.as_deref(),
        args.pod.as_deref(),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making a runtime to wait in")?;
    let guard = runtime.enter();
    let mut ends = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    ];
    drop(guard);
    let screen = Screen::enter()?;
    loop {
        let mut report = report::look(&pod);
        links::count(&mut report, &pod);
        let (_, height) = husk_terminal::size().unwrap_or((0, 24));
        Screen::draw(&text::render(&report, colours), usize::from(height))?;
        if runtime.block_on(ended(&mut ends)) {
            return Ok(());
        }
        // By its id: another one may get its name meanwhile.
        match find::find(&args.state_dir, Some(&pod.namespace), Some(&pod.id)) {
            Ok(now) => pod = now,
            Err(_) => break,
        }
    }
    drop(screen);
    say(format_args!("pod {} is gone", pod.id));
    Ok(())
}

/// Waits; whether it is enough.
async fn ended([interrupt, terminate]: &mut [Signal; 2]) -> bool {
    tokio::select! {
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
        () = tokio::time::sleep(PAUSE) => false,
    }
}

impl Screen {
    fn enter() -> Result<Self> {
        // Made first: what has been half written is taken back, too.
        let screen = Self;
        write(ENTER)?;
        Ok(screen)
    }

    fn draw(page: &str, height: usize) -> Result<()> {
        write(&frame(page, height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where nothing can be written, nothing is to be put right.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("writing to the terminal")
}

/// The page over what is there, line by line so that nothing flickers, and no more than fits.
fn frame(page: &str, height: usize) -> String {
    let lines = page.lines().count();
    let shown = if lines > height {
        height.saturating_sub(1)
    } else {
        lines
    };
    let mut frame = String::from("\x1b[H");
    for (index, line) in page.lines().take(shown).enumerate() {
        let next = if index == 0 { "" } else { "\r\n" };
        let _ = write!(frame, "{next}{line}\x1b[K");
    }
    if shown < lines {
        let more = lines - shown;
        let _ = write!(
            frame,
            "\r\n… {more} more lines: too many for this terminal\x1b[K"
        );
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls_the_terminal() {
        let page = "a\nb\nc\nd\n";
        assert_eq!(frame(page, 4).matches("\r\n").count(), 3);
        let cut = frame(page, 3);
        assert_eq!(cut.matches("\r\n").count(), 2);
        assert!(cut.contains("… 2 more lines"), "{cut:?}");
        assert!(!cut.contains('c'));
        assert_eq!(frame("", 0), "\x1b[H\x1b[J");
    }

    #[test]
    fn what_was_there_before_is_erased() {
        assert_eq!(frame("a\nb\n", 9), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
    }
}
