//! Output to one of containerd's fifos.
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::debug;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionread;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep};

/// How long output waits for containerd to open its end.
const READER: Duration = Duration::from_secs(3);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);

/// How much is copied at once, in bytes.
const CHUNK: usize = 8192;

/// See open(2).
const ENXIO: i32 = 6;

/// A fifo, open at both ends: without containerd output waits in it instead of failing with EPIPE
/// (contract 40).
pub(super) struct Fifo {
    to: Arc<pipe::Sender>,
    hold: pipe::Receiver,
    /// Whether somebody had it open for reading when it was opened.
    had_reader: bool,
}

impl Fifo {
    /// Opens both ends, once containerd has its own open: whoever runs a short process cancels the
    /// opening of what is not open yet when the process has ended. A reader that does not come is
    /// not waited for any longer than 3 s.
    pub(super) async fn open(path: &str) -> io::Result<Self> {
        let deadline = Instant::now() + READER;
        let options = pipe::OpenOptions::new();
        while Instant::now() < deadline {
            match options.open_sender(path) {
                Ok(to) => {
                    let hold = options.open_receiver(path)?;
                    return Ok(Self {
                        to: to.into(),
                        hold,
                        had_reader: true,
                    });
                }
                // Nobody has it open for reading yet.
                Err(error) if error.raw_os_error() == Some(ENXIO) => sleep(LOOK).await,
                Err(error) => return Err(error),
            }
        }
        let hold = options.open_receiver(path)?;
        let to = options.open_sender(path)?;
        Ok(Self {
            to: to.into(),
            hold,
            had_reader: false,
        })
    }

    /// Tells what is unread for as long as the copy goes on.
    pub(super) fn gauge(&self) -> Gauge {
        Gauge(Arc::downgrade(&self.to))
    }

    /// Copies until the process's end closes, and lets go once containerd has read it all, or has
    /// not for 3 s.
    ///
    /// containerd opens its end in its own time. Letting go before would lose what is in the fifo,
    /// and containerd's open(2) would wait for a writer that never comes. When a process is deleted,
    /// containerd's client closes its end, whether or not it has read what is in the fifo. A reader
    /// that was there and has left an empty fifo is not waited for: it has read all there was.
    pub(super) async fn copy<R: AsyncRead + Unpin>(self, mut from: R) {
        // A terminal that hangs up answers EIO: that is how it ends (contract 42).
        if let Err(error) = pump(&mut from, &self.to).await {
            debug!("output ended: {error}");
        }
        drop(self.hold);
        let deadline = Instant::now() + READER;
        while !is_read(&self.to, self.had_reader) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }
}

/// What is unread of a process's output.
pub(super) struct Gauge(Weak<pipe::Sender>);

impl Gauge {
    /// Whether something is in the fifo; `None` once the copy is over.
    pub(super) fn has_unread(&self) -> Option<bool> {
        let fifo = self.0.upgrade()?;
        Some(ioctl_fionread(&*fifo).is_ok_and(|unread| unread > 0))
    }
}

/// Copies to the end of `from`.
async fn pump(from: &mut (impl AsyncRead + Unpin), to: &pipe::Sender) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether somebody has, or had, the fifo open, and has read what was written.
fn is_read(fifo: &pipe::Sender, had_reader: bool) -> bool {
    (had_reader || has_reader(fifo)) && ioctl_fionread(fifo).is_ok_and(|unread| unread == 0)
}

/// The write end of a pipe without readers is in error, see poll(2).
fn has_reader(fifo: &pipe::Sender) -> bool {
    let mut asked = [PollFd::new(fifo.as_fd(), PollFlags::empty())];
    let answered = poll(&mut asked, PollTimeout::ZERO);
    let error = asked.iter().any(|fd| {
        fd.revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
    });
    answered.is_ok() && !error
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_comes_after_the_end_gets_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let fifo = Fifo::open(path.to_str().unwrap()).await.unwrap();
        let copy = tokio::spawn(fifo.copy(&b"said at once"[..]));
        sleep(Duration::from_millis(50)).await;
        assert!(!copy.is_finished(), "it waits for a reader");
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(read.await.unwrap(), "said at once");
        copy.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_has_left_an_empty_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let reader = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        let fifo = Fifo::open(path.to_str().unwrap()).await.unwrap();
        drop(reader);
        let begin = Instant::now();
        fifo.copy(&b""[..]).await;
        assert!(begin.elapsed() < READER / 2);
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_gets_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let reader = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        let fifo = Fifo::open(path.to_str().unwrap()).await.unwrap();
        let copy = tokio::spawn(fifo.copy(&b"said at once"[..]));
        sleep(Duration::from_millis(50)).await;
        assert!(!copy.is_finished(), "it waits until all is read");
        let mut text = [0; 12];
        reader.readable().await.unwrap();
        assert_eq!(reader.try_read(&mut text).unwrap(), 12);
        copy.await.unwrap();
    }
}
