//! The daemon: what the child of `start` does before, around and after serving.
use std::fs::OpenOptions;
use std::io::{PipeReader, Read as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use containerd_shim::StartOpts;
use husk_sandbox::daemon::one_heap;
use husk_sandbox::process::{Pidfd, start_time};
use husk_sandbox::zygote::Zygote;
use husk_scope::record;
use log::{error, info, warn};
use nix::sys::prctl;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getpid, setsid};

use crate::handler::Handler;
use crate::store::Store;
use crate::{logger, placement, serve, socket};

/// A shim that is about to live.
pub(crate) struct Daemon {
    /// What containerd told `start`.
    pub(crate) opts: StartOpts,
    /// The bound socket, listening.
    pub(crate) listener: UnixListener,
    /// Its path.
    pub(crate) socket: PathBuf,
    /// Where the record is.
    pub(crate) store: Store,
    /// The record so far.
    pub(crate) record: record::Pod,
    /// Ends once `start` has recorded this process: only then may this process change the record.
    pub(crate) recorded: PipeReader,
    /// What the handler's options say.
    pub(crate) handler: Handler,
    /// The process that ran `start`.
    pub(crate) containerd: u32,
}

impl Daemon {
    /// Lives until Shutdown. Everything the pod had is gone when this returns, the socket last.
    ///
    /// # Errors
    /// It could not begin, or not clean up. The log has it too: nobody waits for this process.
    pub(crate) fn run(self) -> Result<()> {
        // `start` is not over for containerd while anyone holds its stdout (contract 5).
        detach()?;
        one_heap();
        let log = Path::new("log");
        // Without the fifo there is no way to say that there is none.
        let _ = logger::init(log, &self.opts.namespace, &self.record.id, self.opts.debug);
        let socket = self.socket.clone();
        let lived = self.live();
        if let Err(error) = &lived {
            error!("the shim ends: {error:#}");
        }
        // Last, because without a socket nobody asks for a shim that is still at work.
        lived.and(socket::remove(&socket))
    }

    fn live(mut self) -> Result<()> {
        prctl::set_child_subreaper(true).context("become a subreaper")?;
        if let Err(error) = placement::follow_oom_score(self.containerd) {
            warn!("the OOM score stays as it is: {error}");
        }
        for option in &self.handler.ignored {
            info!("the runtime option {option} has no effect on husk");
        }
        let zygote = Zygote::fork().context("fork the zygote")?;
        if let Err(error) = placement::raise_descriptor_limit() {
            warn!("the limit of open files stays as it is: {error}");
        }
        self.record_processes(zygote.process())?;
        let store = self.store.clone();
        serve::until_shutdown(self, zygote)?;
        store.remove()?;
        Ok(())
    }

    /// Puts the shim and the zygote on record before either does anything.
    fn record_processes(&mut self, zygote: &Pidfd) -> Result<()> {
        self.recorded
            .read_to_end(&mut Vec::new())
            .context("wait for the record of `start`")?;
        self.record.shim = Some(process(getpid().as_raw())?);
        self.record.zygote = Some(process(zygote.pid)?);
        self.record.created_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| u64::try_from(since.as_millis()).ok())
            .unwrap_or_default();
        Ok(self.store.save(&self.record)?)
    }
}

fn process(pid: i32) -> Result<record::Process> {
    let start_time = start_time(pid).with_context(|| format!("read the start of process {pid}"))?;
    Ok(record::Process { pid, start_time })
}

/// Lets go of whatever ties this process to the one that ran `start`, except the directory.
fn detach() -> Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    dup2_stdin(&null).context("replace stdin")?;
    dup2_stdout(&null).context("replace stdout")?;
    dup2_stderr(&null).context("replace stderr")?;
    setsid().context("begin a session")?;
    Ok(())
}
