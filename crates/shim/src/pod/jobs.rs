//! The zygote's jobs, awaited.
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use husk_sandbox::error::JobError;
use husk_sandbox::job::{Done, Job};
use husk_sandbox::process::Pidfd;
use husk_sandbox::zygote::Zygote;
use log::{debug, error, warn};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::background::in_background;
use crate::children::Children;
use crate::failure::Failure;
use crate::failure::with_causes;
use crate::ready::readable;
use crate::sync::lock;

const SIGKILL: i32 = 9;

/// Runs jobs side by side and hands each result to whoever waits for it.
#[derive(Debug)]
pub(crate) struct Jobs {
    zygote: AsyncFd<Socket>,
    children: Arc<Children>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Done, Failure>>>,
    /// Why no job can be done any more.
    broken: Option<Failure>,
}

/// The zygote as tokio wants to watch it.
#[derive(Debug)]
struct Socket(Zygote);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Jobs {
    /// Begins to listen to the zygote.
    ///
    /// # Errors
    /// epoll refuses the zygote's socket.
    pub(crate) fn new(zygote: Zygote, children: &Arc<Children>) -> io::Result<Arc<Self>> {
        children.claim(zygote.process().pid);
        let jobs = Arc::new(Self {
            zygote: readable(Socket(zygote))?,
            children: Arc::clone(children),
            inner: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&jobs).listen());
        Ok(jobs)
    }

    /// Has a job done. Once begun it is done to its end, also when nobody waits any more.
    pub(crate) async fn run(&self, job: Job) -> Result<Done, Failure> {
        self.submit(job)?
            .await
            .unwrap_or_else(|_| Err(Failure::internal("the zygote's answer was lost")))
    }

    fn submit(&self, job: Job) -> Result<oneshot::Receiver<Result<Done, Failure>>, Failure> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = lock(&self.inner);
        if let Some(broken) = &inner.broken {
            return Err(broken.clone());
        }
        inner.next += 1;
        let id = inner.next;
        let sent = self.zygote.get_ref().0.send(id, job);
        sent.map_err(|error| Failure::internal(with_causes(&error)))?;
        inner.waiting.insert(id, sender);
        self.children.begin_job();
        Ok(receiver)
    }

    async fn listen(self: Arc<Self>) {
        loop {
            let mut ready = match self.zygote.readable().await {
                Ok(ready) => ready,
                Err(error) => return self.give_up(&error).await,
            };
            match self.zygote.get_ref().0.receive() {
                Ok(Some((id, result))) => self.finish(id, result),
                Ok(None) => ready.clear_ready(),
                Err(error) => return self.give_up(&error).await,
            }
        }
    }

    fn finish(&self, id: u64, result: Result<Done, JobError>) {
        let made = result.as_ref().ok().and_then(|done| done.process.as_ref());
        self.children.end_job(made.map(|process| process.pid));
        let waiting = lock(&self.inner).waiting.remove(&id);
        match waiting {
            // Whoever asked is a task of its own and waits to the end.
            Some(sender) => drop(sender.send(result.map_err(Failure::from))),
            None => warn!("the zygote answered job {id}, which nobody asked for"),
        }
    }

    /// Fails the jobs under way, once nobody is left who could go on with one.
    async fn give_up(&self, error: &(dyn std::error::Error + Sync)) {
        let failure = Failure::internal(format!(
            "the zygote, which makes this pod's processes, is gone: {error}; delete the pod and \
             make it anew"
        ));
        if lock(&self.inner).broken.replace(failure.clone()).is_some() {
            return;
        }
        error!("no process can be made in this pod any more: {error}");
        let children = Arc::clone(&self.children);
        let ended = in_background(move || children.end_strays()).await;
        if let Err(error) = ended {
            warn!("processes of the dead zygote stay: {error}");
        }
        // As long as it is a zombie that is spoken for, no orphan that ends later is reaped, and a
        // pid namespace with an unreaped process in it does not end.
        self.children.release(self.zygote.get_ref().0.process().pid);
        let waiting = std::mem::take(&mut lock(&self.inner).waiting);
        for sender in waiting.into_values() {
            self.children.end_job(None);
            drop(sender.send(Err(failure.clone())));
        }
    }

    /// Whether the zygote is gone: then nobody undoes a job that failed.
    pub(crate) fn are_broken(&self) -> bool {
        lock(&self.inner).broken.is_some()
    }

    /// Ends the zygote and reaps it, so that no zombie is left to whoever adopts it.
    pub(crate) async fn close(&self) {
        lock(&self.inner).broken = Some(Failure::precondition("the pod has stopped"));
        let zygote = self.zygote.get_ref().0.process();
        let ended = async {
            let fd = zygote.fd.try_clone()?;
            zygote.signal(SIGKILL)?;
            let pid = zygote.pid;
            crate::children::ended(&Arc::new(Pidfd { pid, fd })).await
        };
        if let Err(error) = ended.await {
            debug!("the zygote had ended before: {error}");
        }
        self.children.release(zygote.pid);
    }
}
