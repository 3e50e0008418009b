//! Makes a container's init with libcontainer, or leaves nothing behind.
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Mount, Process, Spec};

use crate::cgroup::{Cgroup, New};
use crate::complaints::Complaints;
use crate::executor::{ContainerExecutor, read_verdict};
use crate::process::{self, Pidfd};
use crate::workload::Workload;
use crate::zygote::{Create, Doing, Done, JobError, Leftovers, Report};
use crate::{bundle, console, loopback, propagation, rootfs, sysctl};

/// Below the shim's directory for the container: the bundle libcontainer builds from.
const BUNDLE: &str = "libcontainer";
/// In the bundle: what libcontainer keeps, in a directory for each container.
const STATE: &str = "state";
/// libcontainer's name for the socket its init waits at.
const NOTIFY_SOCKET: &str = "notify.sock";

pub(crate) fn create(mut job: Create, report: &Report) -> Result<Done, JobError> {
    report.step("reading config.json");
    let spec = bundle::load(&job.dir)?;
    let (process, workload) = bundle::process(&spec)?;
    bundle::check_paths(&spec)?;

    report.step("making the cgroup");
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let cgroup = Cgroup::make(job.driver, bundle::cgroups_path(&spec), &job.id, resources)?;

    report.step("mounting the root filesystem");
    let made = bundle::write_normalized(&job.dir.join(BUNDLE), spec.clone(), cgroup.path())
        .and_then(|()| rootfs::mount_all(&job.rootfs, &job.mounts))
        .and_then(|()| bundle::check_root(&spec))
        .and_then(|()| make_cwd(&job.rootfs, &spec, &process))
        .and_then(|()| build(&mut job, &spec, &process, workload, report))
        .and_then(|done| adopt(cgroup, done));
    made.map_err(|error| {
        report.step("undoing a failed create");
        // Children of this process are libcontainer's intermediate and init, nothing else.
        let processes = process::children(process::my_pid()).unwrap_or_default();
        error.leaving(undo(&job, &processes))
    })
}

/// Undoes a create whose builder died, and left these processes.
pub(crate) fn undo_orphaned(job: &Create, processes: &[i32]) -> Leftovers {
    let mut left = undo(job, processes);
    let removed = bundle::load(&job.dir).and_then(|spec| {
        // Only when it is empty: that builder may have died before the cgroup was its own.
        Ok(Cgroup::named(job.driver, bundle::cgroups_path(&spec), &job.id)?.remove()?)
    });
    left.note(removed, || {
        format!("remove the cgroup of container {}", job.id)
    });
    left
}

fn adopt(cgroup: New, done: Done) -> Result<Done, JobError> {
    if let Some(init) = &done.process {
        cgroup.adopt(init.pid)?;
    }
    Ok(done)
}

/// Makes the working directory, as other runtimes do for an image that names one it lacks.
fn make_cwd(root: &Path, spec: &Spec, process: &Process) -> Result<(), JobError> {
    let cwd = process.cwd();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let covering = mounts
        .iter()
        .filter(|mount| cwd.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count());
    let (base, below) = match covering {
        None => (Some(root), cwd.as_path()),
        // Of what is mounted only a bind mount has a place to make a directory in by now.
        Some(mount) => (
            mount
                .source()
                .as_deref()
                .filter(|source| source.is_dir() && !is_read_only(mount)),
            cwd.strip_prefix(mount.destination()).unwrap_or(cwd),
        ),
    };
    let Some(base) = base else { return Ok(()) };
    match rootfs::make_dirs_in_root(base, below) {
        // A read-only place either has the directory, or entering it fails and says so.
        Ok(()) | Err(nix::errno::Errno::EROFS | nix::errno::Errno::ENOTDIR) => Ok(()),
        Err(errno) => Err(JobError::from_errno(
            errno,
            format!(
                "make the working directory {} of the container",
                cwd.display()
            ),
        )),
    }
}

fn is_read_only(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    options
        .iter()
        .any(|option| matches!(option.as_str(), "ro" | "rro"))
}

fn build(
    job: &mut Create,
    spec: &Spec,
    process: &Process,
    workload: Workload,
    report: &Report,
) -> Result<Done, JobError> {
    let terminal = process.terminal().unwrap_or(false);
    let console = terminal
        .then(|| console::Listener::bind(&job.dir))
        .transpose()?;
    let (started, started_writer) = io::pipe().doing(|| "make a pipe")?;
    let (verdict, verdict_writer) = io::pipe().doing(|| "make a pipe")?;
    let complaints = Complaints::collect().doing(|| "listen to libcontainer")?;
    let executor = ContainerExecutor::new(workload, &started_writer, &verdict_writer);

    report.step("building the container");
    if !terminal {
        console::own_stdio(&job.stdio, bundle::host_user(spec, process))?;
    }
    let pid = run_libcontainer(job, console.as_ref(), executor).map_err(|error| {
        drop(verdict_writer);
        read_verdict(verdict).unwrap_or_else(|| explain(&job.id, spec, &error, complaints))
    })?;
    let init = Pidfd::open(pid).doing(|| format!("open a pidfd for init, pid {pid}"))?;

    report.step("setting the propagation of mounts");
    propagation::set(pid, spec)?;
    if job.loopback {
        report.step("bringing lo up");
        bring_loopback_up(pid)?;
    }
    let console = match console {
        None => None,
        Some(listener) => {
            report.step("taking the terminal");
            Some(listener.accept(process, bundle::host_user(spec, process))?)
        }
    };
    Ok(Done {
        process: Some(init),
        started: Some(OwnedFd::from(started)),
        console,
    })
}

fn run_libcontainer(
    job: &mut Create,
    console: Option<&console::Listener>,
    executor: ContainerExecutor,
) -> Result<i32, LibcontainerError> {
    let mut builder = ContainerBuilder::new(job.id.clone(), SyscallType::default())
        .validate_id()?
        .with_root_path(job.dir.join(BUNDLE).join(STATE))?
        .with_console_socket(console.map(console::Listener::path))
        .with_executor(executor);
    if console.is_none() {
        builder.stdin = job.stdio.stdin.take();
        builder.stdout = job.stdio.stdout.take();
        builder.stderr = job.stdio.stderr.take();
    }
    let container = builder
        .as_init(job.dir.join(BUNDLE))
        // The cgroup is there, whoever made it: libcontainer joins it by its path.
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    container
        .pid()
        .map(|pid| pid.as_raw())
        .ok_or_else(|| LibcontainerError::Other("libcontainer made no init".to_owned()))
}

/// What libcontainer logged as it failed; its error, where that is all there is.
fn explain(id: &str, spec: &Spec, error: &LibcontainerError, complaints: Complaints) -> JobError {
    let reason = complaints.first().unwrap_or_else(|| error.to_string());
    let mut message = format!("cannot create container {id}: {reason}");
    // libcontainer does not say which of them it could not set.
    for name in sysctl::unknown(spec) {
        message = format!("{message}; the node has no sysctl {name}");
    }
    match error {
        LibcontainerError::InvalidSpec(_) | LibcontainerError::InvalidID(_) => {
            JobError::invalid(message)
        }
        _ => JobError::failed(message),
    }
}

/// Brings `lo` up in the network namespace of `pid`. This process stays there: it ends soon.
fn bring_loopback_up(pid: i32) -> Result<(), JobError> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).doing(|| format!("open {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .doing(|| format!("enter the network namespace {path}"))?;
    loopback::up().doing(|| "bring lo up")
}

/// Undoes what a failed create has done: processes, mounts, files. It goes on past what it cannot
/// undo: `delete` comes after it.
fn undo(job: &Create, processes: &[i32]) -> Leftovers {
    let mut left = Leftovers::default();
    for pid in processes {
        let killed = Pidfd::open(*pid).and_then(|process| process.kill());
        left.note(killed, || format!("kill process {pid}"));
    }
    if !job.mounts.is_empty() {
        let unmounted = rootfs::unmount_all(&job.rootfs);
        left.note(unmounted, || format!("unmount {}", job.rootfs.display()));
    }
    let bundle = job.dir.join(BUNDLE);
    left.note(gone(fs::remove_dir_all(&bundle)), || {
        format!("remove {}", bundle.display())
    });
    let socket = job.dir.join(console::SOCKET);
    left.note(gone(fs::remove_file(&socket)), || {
        format!("remove {}", socket.display())
    });
    left
}

/// What was not there needs no removal.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Lets the init of a container execute; see [`crate::zygote::start`].
pub(crate) fn start(dir: &Path, id: &str) -> io::Result<()> {
    let state: PathBuf = dir.join(BUNDLE).join(STATE).join(id);
    // The path may be longer than the 108 bytes a socket's name has: go by a descriptor.
    let state = rootfs::open_in_root(&state, Path::new("/"), OFlag::O_PATH)?;
    let socket = format!("/proc/self/fd/{}/{NOTIFY_SOCKET}", state.as_raw_fd());
    UnixStream::connect(socket)?.write_all(b"start")
}
