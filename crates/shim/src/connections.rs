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

/// The count of connections. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    count: watch::Sender<Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    open: usize,
    /// Those that were ever made, or any number that changes with each.
    made: u64,
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
        self.count.send_modify(|count| {
            count.open += 1;
            count.made = count.made.wrapping_add(1);
        });
        Connection {
            stream,
            connections: self.clone(),
        }
    }

    /// Waits until none is open, or `limit` has passed; says whether none was.
    pub(crate) async fn closed(&self, limit: Duration) -> bool {
        timeout(limit, self.all_closed()).await.is_ok()
    }

    /// Waits until none is open.
    pub(crate) async fn all_closed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self
            .count
            .subscribe()
            .wait_for(|count| count.open == 0)
            .await;
    }

    /// Waits until one is made, also one that ends at once, or `limit` has passed; says whether one
    /// was.
    pub(crate) async fn made(&self, limit: Duration) -> bool {
        let mut count = self.count.subscribe();
        let before = count.borrow_and_update().made;
        timeout(limit, count.wait_for(|count| count.made != before))
            .await
            .is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.count.send_modify(|count| count.open -= 1);
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
    async fn one_that_ends_at_once_is_seen() {
        let connections = Connections::default();
        assert!(!connections.made(Duration::from_millis(20)).await);
        let made = tokio::spawn({
            let connections = connections.clone();
            async move { connections.made(Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        let (ours, _theirs) = UnixStream::pair().unwrap();
        drop(connections.admit(ours));
        assert!(made.await.unwrap());
    }

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
