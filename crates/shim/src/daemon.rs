//! The daemon: what `start` leaves behind, before, around and after serving.
//!
//! `start` forks it; the child executes this program anew ([`husk_sandbox::reexec`]), so that neither
//! it nor what it makes runs a file that a container could write to, or has containerd's environment.
//! What it has to know comes in a file without a name, beside the socket that listens already. The
//! zygote is forked before that file is read: a container's neighbours may come to see its memory.
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, PipeReader, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use containerd_shim::StartOpts;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use husk_sandbox::daemon::one_heap;
use husk_sandbox::process::{Pidfd, start_time};
use husk_sandbox::reexec::{ReadOnlyProgram, inherited};
use husk_sandbox::zygote::{Zygote, ZygoteError};
use husk_scope::record;
use log::{error, info, warn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getpid, setsid};
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::handler::Handler;
use crate::store::Store;
use crate::{logger, placement, serve, socket};

/// The action by which `start` executes this program as the daemon; nobody else has a use for it.
const ACTION: &str = "serve";

/// What `start` tells the daemon.
#[derive(Serialize, Deserialize)]
struct Told {
    /// The bundle's containerd namespace.
    namespace: String,
    ttrpc_address: String,
    debug: bool,
    /// The handler's options: type and value.
    options: Vec<(String, Vec<u8>)>,
    record: record::Pod,
    /// Why the OOM score stays as it is, if it does.
    oom_score: Option<String>,
}

/// A shim that is about to live.
pub(crate) struct Daemon {
    /// Where containerd takes events.
    pub(crate) ttrpc_address: String,
    /// The bound socket, listening.
    pub(crate) listener: UnixListener,
    /// Its path.
    pub(crate) socket: PathBuf,
    /// Where the record is.
    pub(crate) store: Store,
    /// The record so far.
    pub(crate) record: record::Pod,
    /// Ends once `start` has recorded this process: only then may this process change the record.
    recorded: PipeReader,
    /// What the handler's options say.
    pub(crate) handler: Handler,
    /// See [`Told`].
    oom_score: Option<String>,
}

/// In the child of `start`: executes this program as the daemon. `containerd` is the process that ran
/// `start`.
///
/// # Errors
/// What the kernel says. Nobody reads it: `start` has answered.
pub(crate) fn become_one(
    program: &ReadOnlyProgram,
    opts: StartOpts,
    record: record::Pod,
    listener: UnixListener,
    recorded: PipeReader,
    containerd: u32,
) -> Result<Infallible> {
    // `start` is not over for containerd while anyone holds its stdout (contract 5).
    detach()?;
    let arguments = arguments(&opts, &record.id);
    let oom_score = placement::follow_oom_score(containerd);
    let told = Told {
        namespace: opts.namespace,
        ttrpc_address: opts.ttrpc_address,
        debug: opts.debug,
        options: opts
            .extensions
            .into_iter()
            .map(|any| (any.type_url, any.value))
            .collect(),
        record,
        oom_score: oom_score.err().map(|error| error.to_string()),
    };
    let file = File::from(memfd_create(c"husk-start", MFdFlags::MFD_CLOEXEC)?);
    let mut writer = BufWriter::new(&file);
    serde_json::to_writer(&mut writer, &told)?;
    writer.flush()?;
    drop(writer);
    let descriptors = [
        OwnedFd::from(file),
        OwnedFd::from(listener),
        OwnedFd::from(recorded),
    ];
    // Compilers of plugins are looked for there.
    let path = std::env::var_os("PATH").map(|path| {
        let mut entry = OsString::from("PATH=");
        entry.push(path);
        entry
    });
    program
        .execute(arguments, path.into_iter().collect(), descriptors)
        .context("execute the daemon")
}

/// Those by which ps(1) shows which pod's shim this is. The first is what the shim was called by: it
/// may name a configuration.
fn arguments(opts: &StartOpts, id: &str) -> Vec<OsString> {
    let program = std::env::args_os().next().unwrap_or_default();
    let flags = [
        ("-namespace", opts.namespace.as_str()),
        ("-id", id),
        ("-address", opts.address.as_str()),
    ];
    let flags = flags.iter().flat_map(|(flag, value)| [*flag, *value]);
    std::iter::once(program)
        .chain(flags.chain([ACTION]).map(OsString::from))
        .collect()
}

/// Whether this program was executed as the daemon.
#[must_use]
pub(crate) fn is_asked_for() -> bool {
    std::env::args_os().next_back().as_deref() == Some(OsStr::new(ACTION))
}

/// Lives until Shutdown. Everything the pod had is gone when this returns, the socket last.
///
/// # Errors
/// It could not begin, or not clean up. The log has it too: nobody waits for this process.
pub(crate) fn run() -> Result<()> {
    one_heap();
    // The kernel has named it after a descriptor.
    prctl::set_name(c"containerd-shim").context("name this process")?;
    prctl::set_child_subreaper(true).context("become a subreaper")?;
    let zygote = Zygote::fork();
    let (daemon, debug) = Daemon::inherit()?;
    // Without the fifo there is no way to say that there is none.
    let record = &daemon.record;
    let _ = logger::init(Path::new("log"), &record.namespace, &record.id, debug);
    let socket = daemon.socket.clone();
    let lived = daemon.live(zygote);
    if let Err(error) = &lived {
        error!("the shim ends: {error:#}");
    }
    // Last, because without a socket nobody asks for a shim that is still at work.
    lived.and(socket::remove(&socket))
}

impl Daemon {
    /// Takes what `start` has left, and whether to log all.
    fn inherit() -> Result<(Self, bool)> {
        let [told, listener, recorded] =
            inherited().context("take what `start` has left: this action is its own")?;
        let mut told = File::from(told);
        told.rewind().context("read what `start` says")?;
        let told: Told =
            serde_json::from_reader(BufReader::new(told)).context("read what `start` says")?;
        let options: Vec<Any> = told
            .options
            .into_iter()
            .map(|(type_url, value)| Any {
                type_url,
                value,
                ..Any::default()
            })
            .collect();
        let daemon = Self {
            ttrpc_address: told.ttrpc_address,
            listener: UnixListener::from(listener),
            socket: told.record.socket.clone(),
            store: Store::new(&told.namespace, &told.record.id)?,
            record: told.record,
            recorded: PipeReader::from(recorded),
            handler: Handler::read(&options),
            oom_score: told.oom_score,
        };
        Ok((daemon, told.debug))
    }

    fn live(mut self, zygote: Result<Zygote, ZygoteError>) -> Result<()> {
        let zygote = zygote.context("fork the zygote")?;
        if let Some(error) = &self.oom_score {
            warn!("the OOM score stays as it is: {error}");
        }
        for option in &self.handler.ignored {
            info!("the runtime option {option} has no effect on husk");
        }
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
        self.record.created_ms = now_ms();
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
