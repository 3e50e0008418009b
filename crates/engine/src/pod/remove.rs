//! A pod's end, from its record alone: whoever made it may be gone.
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use husk_node::process;
use log::Level;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

use super::{Engine, Error, Paths, Record, sandbox};
use crate::shim::{self, Binary, Shim, Task};
use crate::{cgroup, netns, network};

/// How long a process may take to be reaped after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// How long a shim may take to exit once it has been asked to.
const SHIM_EXIT: Duration = Duration::from_secs(10);

/// How often the supervisor and the shim are looked at while they end.
const POLL: Duration = Duration::from_millis(20);

const SIGKILL: u32 = 9;

/// Removes a pod and all that was kept of it. A running one is stopped first if `force`; its
/// containers then have until `patience` to end.
///
/// # Errors
/// [`Error::Running`] without `force`; what could not be removed.
pub async fn remove(
    engine: &Engine,
    record: &Record,
    force: bool,
    patience: Duration,
) -> Result<(), Error> {
    if let Some(supervisor) = record
        .supervisor
        .filter(|process| process::is_alive(*process))
    {
        if !force {
            return Err(Error::Running(record.name.clone()));
        }
        let signal = |signal| {
            if process::is_alive(supervisor)
                && let Err(errno) = kill(Pid::from_raw(supervisor.pid), signal)
            {
                log::warn!("{signal} to the supervisor {}: {errno}", supervisor.pid);
            }
        };
        signal(Signal::SIGTERM);
        let ended = async {
            while process::is_alive(supervisor) {
                sleep(POLL).await;
            }
        };
        if timeout(patience, ended).await.is_err() {
            signal(Signal::SIGKILL);
        }
    }
    if !engine.paths.state_of(&record.id).exists() {
        return Ok(());
    }
    release(engine, record).await?;
    forget(engine, record)
}

/// Ends what runs of a pod and gives back mounts, namespaces and cgroups. What is gone already is
/// no error, so this can be repeated.
pub(super) async fn release(engine: &Engine, record: &Record) -> Result<(), Error> {
    end_by_shim(engine, record).await;
    let mut first = Ok(());
    let mut note = |result: Result<(), Error>| {
        if first.is_ok() {
            first = result;
        }
    };
    for id in ids(record) {
        note(unmount(&engine.paths.bundle(&record.id, id).join("rootfs")));
    }
    for path in record.mounts.iter().rev() {
        note(unmount(path));
    }
    if let Some(path) = &record.netns {
        let dir = engine.paths.state_of(&record.id);
        note(network::detach(&record.network, &record.id, path, &dir).map_err(Error::from));
        note(netns::remove(path).map_err(Error::io("unpin the network namespace", path)));
    }
    if let Some(path) = &record.cgroup {
        let removed = cgroup::remove(path).await;
        note(removed.map_err(|source| Error::Cgroup {
            path: path.clone(),
            source,
        }));
    }
    first
}

/// Removes the pod's directories, the record's last.
pub(super) fn forget(engine: &Engine, record: &Record) -> Result<(), Error> {
    remove_dir(&engine.paths.data_of(&record.id))?;
    remove_dir(&engine.paths.state_of(&record.id))
}

/// Removes a directory in which nothing is mounted: below a mount could be a volume of the node.
fn remove_dir(dir: &Path) -> Result<(), Error> {
    let real = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        real => real.map_err(Error::io("find", dir))?,
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("remove", dir))?;
    if let Some(mounted) = mount_points(&mounts).find(|path| path.starts_with(&real)) {
        let busy = io::Error::other(format!("{} is still mounted", mounted.display()));
        return Err(Error::io("remove", dir)(busy));
    }
    fs::remove_dir_all(dir).map_err(Error::io("remove", dir))
}

/// The fifth field of each line, proc_pid_mountinfo(5). Escaped characters, blanks and such, are
/// in no path that the engine makes.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = &Path> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new)
}

/// Removes the data of pods that no record knows: those of the node's last boot.
pub(super) fn sweep(paths: &Paths) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(paths.pods()) else {
        return Ok(());
    };
    // Listed before the records are: a pod's record is written before its data is made.
    let entries: Vec<_> = entries.flatten().collect();
    let known = Record::all(paths)?;
    for entry in entries {
        let name = entry.file_name();
        if !known.iter().any(|record| *record.id == *name) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Asks the shim to end everything; one that does not answer is cleaned up after by its `delete`
/// command, as containerd does it (contract 43 to 45).
async fn end_by_shim(engine: &Engine, record: &Record) {
    // The engine was killed, or failed, before it knew where a shim listens that may well run.
    if record.address.is_empty() {
        return delete_by_command(engine, record, Level::Debug).await;
    }
    let asked = match Shim::connect(&record.address, record.version).await {
        Ok(shim) => ask(record, &shim).await,
        Err(error) => Err(error),
    };
    if let Err(error) = asked {
        log::debug!(
            "pod {}: {error}; cleaning up by the delete command",
            record.name
        );
        delete_by_command(engine, record, Level::Warn).await;
        return remove_dead_socket(record);
    }
    wait_until_gone(record).await;
}

fn socket_of(record: &Record) -> &Path {
    Path::new(record.address.trim_start_matches("unix://"))
}

/// Not every shim's `delete` removes the socket of one that was killed.
fn remove_dead_socket(record: &Record) {
    let socket = socket_of(record);
    let dead = UnixStream::connect(socket)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if dead && let Err(error) = fs::remove_file(socket) {
        log::warn!("the socket {} stays: {error}", socket.display());
    }
}

/// A shim cleans up after it has answered, and removes its socket last (contract 46).
async fn wait_until_gone(record: &Record) {
    let socket = socket_of(record);
    let gone = async {
        while socket.exists() {
            sleep(POLL).await;
        }
    };
    if timeout(SHIM_EXIT, gone).await.is_err() {
        log::warn!(
            "the shim of pod {} has not exited: {} is still there",
            record.name,
            socket.display()
        );
    }
}

async fn ask(record: &Record, shim: &Shim) -> Result<(), shim::Error> {
    let task = shim.task();
    for container in record.containers.iter().rev() {
        end_task(&task, &container.id).await?;
    }
    if record.sandbox_api {
        shim.sandbox().stop(&record.id).await?;
        return shim.sandbox().shutdown(&record.id).await;
    }
    end_task(&task, &record.id).await?;
    task.shutdown(&record.id).await
}

async fn end_task(task: &Task, id: &str) -> Result<(), shim::Error> {
    let ended = async {
        task.kill(id, "", SIGKILL, true).await?;
        // The shim answers at once for one that has exited; one that never does is deleted anyway.
        let _ = timeout(KILLED, task.wait(id, "")).await;
        Ok(())
    };
    match ended.await {
        Err(error @ shim::Error::Refused { .. }) if !error.is_gone() => return Err(error),
        Err(error @ (shim::Error::NoAnswer { .. } | shim::Error::Connect { .. })) => {
            return Err(error);
        }
        _ => {}
    }
    match task.delete(id, "").await {
        Err(error @ shim::Error::Refused { .. }) if error.is_gone() => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// Runs the shim's `delete` for each bundle; what it complains of is logged at `level`.
async fn delete_by_command(engine: &Engine, record: &Record, level: Level) {
    let Ok(binary) = Binary::find(record.shim.to_str()) else {
        log::warn!(
            "{} is gone: what pod {} left stays",
            record.shim.display(),
            record.name
        );
        return;
    };
    let engine = Engine {
        shim: binary,
        ..engine.clone()
    };
    for id in ids(record) {
        let bundle = engine.paths.bundle(&record.id, id);
        if !bundle.exists() {
            continue;
        }
        let events = engine.paths.state_of(&record.id).join("events.sock");
        let command = sandbox::command(&engine, id, bundle, &events.to_string_lossy());
        if let Err(error) = command.delete().await {
            log::log!(level, "{error}");
        }
    }
}

/// What the shim knows: the containers, then the sandbox.
fn ids(record: &Record) -> impl Iterator<Item = &str> {
    let containers = record
        .containers
        .iter()
        .map(|container| container.id.as_str());
    containers.chain([record.id.as_str()])
}

fn unmount(path: &Path) -> Result<(), Error> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::io("unmount", path)(errno.into())),
    }
}
