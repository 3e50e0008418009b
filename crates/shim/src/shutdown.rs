//! The one way the daemon ends.
use std::sync::Arc;

use tokio::sync::watch;

/// Says that the daemon shall end, and tells when it was said. Clones are the same handle.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    requested: Arc<watch::Sender<bool>>,
}

impl Shutdown {
    /// A handle on which nothing was requested yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            requested: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Ends the daemon once running requests are answered; further calls change nothing.
    ///
    /// Only Shutdown and ShutdownSandbox may call it, once nothing lives in the pod (contract 24
    /// and 46), a SIGTERM under the same condition, and a pod that nobody can find any more.
    pub(crate) fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Waits for [`Shutdown::request`]; at once when it was called before.
    pub(crate) async fn requested(&self) {
        let mut receiver = self.requested.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
