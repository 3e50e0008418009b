//! `start`: answers with the address of the pod's shim, and becomes that shim if there is none.
use std::io::Write as _;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, Result};
use containerd_shim::{Flags, StartOpts};
use husk_request::bootstrap;
use husk_sandbox::daemon::{Side, fork, own_cores};
use husk_sandbox::process::{Pidfd, start_time};
use husk_sandbox::reexec::ReadOnlyProgram;
use husk_scope::record;
use nix::libc::SIGKILL;
use serde::Serialize;

use crate::socket::{self, Bound};
use crate::store::{self, Store};
use crate::{daemon, delete, group, handler, placement};

/// The version of the task API that containerd 2.0 and newer speak (contract 3 and 4).
const API_VERSION: u32 = 3;

/// The reply to `start`, in the form that containerd 2.0 to 2.4 read.
#[derive(Serialize)]
struct Reply<'a> {
    version: u32,
    address: &'a str,
    protocol: &'a str,
}

/// Starts the shim of the pod that the bundle in the working directory belongs to.
///
/// Whatever can fail is done before the fork, where containerd still reads the error. The socket
/// listens when the reply is written: containerd may connect at once.
///
/// # Errors
/// Broken input, a bundle or socket that cannot be used. Nothing is left behind then.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    store::check_id(&flags.namespace).context("the flag -namespace")?;
    store::check_id(&flags.id).context("the flag -id")?;
    let bundle = std::env::current_dir()
        .context("the working directory must be the bundle, but cannot be entered")?;
    let opts = bootstrap::start_opts(flags, &bootstrap::read_stdin().context("read stdin")?)?;
    let pod = match group::of_bundle(&bundle)? {
        Some(group) => {
            store::check_id(&group).context("the annotation that names the pod")?;
            group
        }
        None => opts.id.clone(),
    };
    let store = Store::new(&opts.namespace, &pod)?;
    let path = socket::path(&opts, &pod)?;
    let address = socket::address(&path);

    // By this file others find the shim of a bundle.
    store::write_atomic(&bundle.join("address"), address.as_bytes())
        .with_context(|| format!("write {}/address", bundle.display()))?;

    let Bound::New(listener) = socket::bind(&path)? else {
        return reply(&address);
    };
    let record = record::Pod {
        id: pod,
        namespace: opts.namespace.clone(),
        socket: path.clone(),
        ..record::Pod::default()
    };
    // A shim died and containerd starts its pod anew without having called `delete`.
    let begun = delete::abandoned_pod(&store).and_then(|()| begin(&store, record, opts, listener));
    if begun.is_err() {
        // The first failure is the one to report.
        let _ = socket::remove(&path);
    }
    begun.and_then(|()| reply(&address))
}

/// Forks what is to be the daemon and records the pod. A failure leaves no record.
fn begin(
    store: &Store,
    record: record::Pod,
    opts: StartOpts,
    listener: UnixListener,
) -> Result<()> {
    let begun = fork_recorded(store, record, opts, listener);
    if begun.is_err() {
        // The first failure is the one to report.
        let _ = store.remove();
    }
    begun
}

fn fork_recorded(
    store: &Store,
    record: record::Pod,
    opts: StartOpts,
    listener: UnixListener,
) -> Result<()> {
    // What this process is given, its child inherits.
    if let Some(cgroup) = handler::shim_cgroup(&opts.extensions) {
        placement::enter_cgroup(&cgroup)?;
    }
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        own_cores().context(
            "containerd asks for core scheduling (sched_core), which this kernel refuses",
        )?;
    }
    let program = ReadOnlyProgram::open().context(
        "copy the mount of this program, read-only, so that no container can write to it through what \
         runs in the container (it takes Linux 5.12, and a mount that is not unbindable)",
    )?;
    // The parent here is containerd: what the shim's OOM score is measured by.
    let containerd = std::os::unix::process::parent_id();
    let (recorded, recording) = std::io::pipe().context("make a pipe")?;
    match fork().context("fork the daemon")? {
        Side::Parent(child) => {
            // The child has it, too: whoever closes it last has to wait for the kernel.
            drop(program);
            record_shim(store, record, child)?;
            drop(recording);
            Ok(())
        }
        Side::Child => {
            drop(recording);
            match daemon::become_one(&program, opts, record, listener, recorded, containerd) {
                Err(error) => Err(error),
                Ok(never) => match never {},
            }
        }
    }
}

/// Puts the daemon on record before anyone learns its address, so that a `delete` that comes
/// before the daemon's own first record still finds it.
fn record_shim(store: &Store, mut record: record::Pod, pid: i32) -> Result<()> {
    let shim = Pidfd::open(pid).context("open the daemon")?;
    let recorded = start_time(pid)
        .map_err(anyhow::Error::from)
        .and_then(|start_time| {
            record.shim = Some(record::Process { pid, start_time });
            Ok(store.save(&record)?)
        });
    if recorded.is_err() {
        // One that has ended by now is what is wanted.
        let _ = shim.signal(SIGKILL);
    }
    recorded
}

/// Writes the reply, the only bytes that ever go to stdout (contract 5).
fn reply(address: &str) -> Result<()> {
    let reply = serde_json::to_vec(&Reply {
        version: API_VERSION,
        address,
        protocol: "ttrpc",
    })?;
    std::io::stdout()
        .write_all(&reply)
        .context("write the reply")
}
