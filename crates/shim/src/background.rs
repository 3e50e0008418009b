//! Steps that take their time, on threads of their own.
use std::io;

use tokio::task::spawn_blocking;

use crate::failure::Failure;

/// Runs a blocking step on a thread of its own.
pub(crate) async fn in_background<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(act).await.map_err(io::Error::other)?
}

/// Runs a cgroup's slow step on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> husk_sandbox::cgroup::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match spawn_blocking(act).await {
        Ok(result) => result.map_err(Failure::from),
        Err(error) => Err(Failure::internal(format!("a step was cut short: {error}"))),
    }
}
