//! Who is connected to the shim.
//!
//! A Go client that finds the answer to its last call and the end of the connection at once may take
//! the end for the answer, and containerd then fails ShutdownSandbox. So the shim ends once those it
//! has answered have hung up.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// The number of open connections. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    open: watch::Sender<usize>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    connections: Connections,
}

impl Connections {
    /// Counts a connection until it is dropped.
    pub(crate) fn admit(&self, stream: UnixStream) -> Connection {
        self.open.send_modify(|open| *open += 1);
        Connection {
            stream,
            connections: self.clone(),
        }
    }

    /// Waits until none is open, or `limit` has passed; says whether none was.
    pub(crate) async fn closed(&self, limit: Duration) -> bool {
        let mut open = self.open.subscribe();
        timeout(limit, open.wait_for(|open| *open == 0))
            .await
            .is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_to_hang_up_is_waited_for() {
        let connections = Connections::default();
        assert!(connections.closed(Duration::ZERO).await);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (other, _its) = UnixStream::pair().unwrap();
        let (first, second) = (connections.admit(ours), connections.admit(other));
        drop(first);
        assert!(!connections.closed(Duration::from_millis(20)).await);
        drop(second);
        assert!(connections.closed(Duration::from_secs(10)).await);
    }
}
