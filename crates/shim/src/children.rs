//! The shim's children: those that someone watches, and orphans, which nobody does (contract 46).
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use husk_sandbox::process::{self, Ended, Pidfd};
use log::{debug, warn};
use tokio::signal::unix::{SignalKind, signal};

use crate::ready::readable;
use crate::sync::lock;

/// Tells the children that someone watches by pidfd from orphans that were handed to this
/// subreaper.
#[derive(Debug, Default)]
pub(crate) struct Children {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watched: HashSet<i32>,
    /// Jobs of the zygote under way: what they make is a child that nobody watches yet.
    jobs: usize,
}

impl Children {
    /// Reaps orphans from now on.
    ///
    /// # Errors
    /// SIGCHLD cannot be listened to.
    pub(crate) fn reap_from_now_on(self: &Arc<Self>) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        let children = Arc::clone(self);
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                children.reap_orphans();
            }
        });
        Ok(())
    }

    /// A job of the zygote begins.
    pub(crate) fn begin_job(&self) {
        lock(&self.inner).jobs += 1;
    }

    /// A job of the zygote has ended, and has made this process.
    pub(crate) fn end_job(&self, made: Option<i32>) {
        let mut inner = lock(&self.inner);
        inner.watched.extend(made);
        inner.jobs = inner.jobs.saturating_sub(1);
        drop(inner);
        self.reap_orphans();
    }

    /// Leaves this child to someone who watches it.
    pub(crate) fn claim(&self, pid: i32) {
        lock(&self.inner).watched.insert(pid);
    }

    /// Takes back a child that was reaped, or that nobody watches any more.
    pub(crate) fn release(&self, pid: i32) {
        lock(&self.inner).watched.remove(&pid);
        self.reap_orphans();
    }

    /// Ends those whom the dead zygote left at work. Blocks until they have ended.
    ///
    /// # Errors
    /// See [`process::end_strays`].
    pub(crate) fn end_strays(&self) -> io::Result<()> {
        process::end_strays(&|pid| self.is_watched(pid))
    }

    /// Ends those of these processes that are children whom nobody watches. Blocks until they have
    /// ended.
    ///
    /// # Errors
    /// See [`process::end_children_among`].
    pub(crate) fn end_unwatched(&self, pids: &[i32]) -> io::Result<()> {
        process::end_children_among(pids, &|pid| self.is_watched(pid))
    }

    fn is_watched(&self, pid: i32) -> bool {
        lock(&self.inner).watched.contains(&pid)
    }

    fn reap_orphans(&self) {
        let inner = lock(&self.inner);
        if inner.jobs > 0 {
            return;
        }
        match process::reap_orphans(&|pid| inner.watched.contains(&pid)) {
            Ok(0) => {}
            Ok(count) => debug!("reaped {count} orphans"),
            Err(error) => warn!("cannot reap orphans: {error}"),
        }
    }
}

/// A pidfd as tokio wants to watch it.
struct Watched(Arc<Pidfd>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

/// Waits for a child's end and reaps it.
///
/// # Errors
/// It is not a child of this process, or epoll refuses the pidfd.
pub(crate) async fn ended(process: &Arc<Pidfd>) -> io::Result<Ended> {
    let watched = readable(Watched(Arc::clone(process)))?;
    loop {
        let mut ready = watched.readable().await?;
        match process.try_wait()? {
            Some(ended) => return Ok(ended),
            None => ready.clear_ready(),
        }
    }
}
