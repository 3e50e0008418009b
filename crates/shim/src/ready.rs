//! Waits until a descriptor is readable.
use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor that `inner` owns for as long as it lives.
///
/// # Errors
/// epoll refuses it.
pub(crate) fn readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "its unsafe successor is for types whose descriptor may change; these never do"
    )]
    AsyncFd::with_interest(inner, Interest::READABLE)
}
