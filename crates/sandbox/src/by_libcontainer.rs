//! Makes a container's init with libcontainer, for what [`crate::init`] does not do itself.
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Process, Spec};

use crate::cgroup::Cgroup;
use crate::complaints::Complaints;
use crate::executor::{ContainerExecutor, read_verdict};
use crate::process::Pidfd;
use crate::workload::Workload;
use crate::zygote::{Create, Doing, Done, JobError, Report};
use crate::{bundle, console, loopback, propagation, rootfs, sysctl};

/// Below the shim's directory for the container: the bundle libcontainer builds from.
pub(crate) const BUNDLE: &str = "libcontainer";
/// In the bundle: what libcontainer keeps, in a directory for each container.
const STATE: &str = "state";
/// libcontainer's name for the socket its init waits at.
const NOTIFY_SOCKET: &str = "notify.sock";

/// What of a spec is left to libcontainer; `None` for nearly all containers.
pub(crate) fn needs_it(spec: &Spec) -> Option<&'static str> {
    let hooks = spec.hooks().as_ref();
    let asked = |hooks: Option<&Vec<_>>| hooks.is_some_and(|hooks| !hooks.is_empty());
    #[allow(deprecated, reason = "a container may still have such hooks")]
    if hooks.is_some_and(|hooks| {
        asked(hooks.prestart().as_ref())
            || asked(hooks.create_runtime().as_ref())
            || asked(hooks.create_container().as_ref())
            || asked(hooks.start_container().as_ref())
    }) {
        return Some("hooks");
    }
    if spec.mounts().iter().flatten().any(is_id_mapped) {
        return Some("an id-mapped mount");
    }
    spec.linux().as_ref().and_then(of_linux)
}

fn of_linux(linux: &Linux) -> Option<&'static str> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let of = |kind| namespaces.iter().find(|namespace| namespace.typ() == kind);
    if of(LinuxNamespaceType::User).is_some() {
        return Some("a user namespace");
    }
    if of(LinuxNamespaceType::Mount).is_none_or(|mount| mount.path().is_some()) {
        return Some("a mount namespace that is not its own");
    }
    None
}

fn is_id_mapped(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.uid_mappings().is_some()
        || mount.gid_mappings().is_some()
        || options
            .iter()
            .any(|option| matches!(option.as_str(), "idmap" | "ridmap"))
}

/// Makes the init of a container whose root filesystem is mounted, in its cgroup.
pub(crate) fn make(
    job: &mut Create,
    spec: &Spec,
    process: &Process,
    workload: Workload,
    cgroup: &Cgroup,
    report: &Report,
) -> Result<Done, JobError> {
    bundle::write_normalized(&job.dir.join(BUNDLE), spec.clone(), cgroup.path())?;
    make_cwd(&job.rootfs, spec, process)?;
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
    // In hierarchies too that libcontainer does not know.
    cgroup.join(pid)?;

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
        ..Done::default()
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

/// Brings `lo` up in the network namespace of `pid`. This process stays there: it ends soon.
fn bring_loopback_up(pid: i32) -> Result<(), JobError> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).doing(|| format!("open {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .doing(|| format!("enter the network namespace {path}"))?;
    loopback::up().doing(|| "bring lo up")
}

/// Lets init execute.
pub(crate) fn start(dir: &Path, id: &str) -> io::Result<()> {
    let state: PathBuf = dir.join(BUNDLE).join(STATE).join(id);
    // The path may be longer than the 108 bytes a socket's name has: go by a descriptor.
    let state = rootfs::open_in_root(&state, Path::new("/"), OFlag::O_PATH)?;
    let socket = format!("/proc/self/fd/{}/{NOTIFY_SOCKET}", state.as_raw_fd());
    UnixStream::connect(socket)?.write_all(b"start")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reason(change: impl FnOnce(&mut Value)) -> Option<&'static str> {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "/"},
            "hooks": {"createRuntime": [], "poststop": [{"path": "/bin/true"}]},
            "mounts": [{"destination": "/x", "source": "/x", "options": ["rbind"]}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        });
        change(&mut spec);
        needs_it(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn nearly_all_containers_are_made_without() {
        assert_eq!(reason(|_| {}), None);
    }

    #[test]
    fn what_is_left_to_it_is_known() {
        let namespaces = |namespaces| reason(|spec| spec["linux"]["namespaces"] = namespaces);
        let hook = json!([{"path": "/bin/true"}]);
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
        ] {
            let hooks = json!({kind: hook});
            assert_eq!(
                reason(|spec| spec["hooks"] = hooks),
                Some("hooks"),
                "{kind}"
            );
        }
        assert_eq!(
            reason(|spec| spec["mounts"][0]["options"] = json!(["rbind", "ridmap"])),
            Some("an id-mapped mount")
        );
        let user = json!([{"type": "mount"}, {"type": "user"}]);
        assert_eq!(namespaces(user), Some("a user namespace"));
        for mount in [json!([]), json!([{"type": "mount", "path": "/x"}])] {
            assert_eq!(
                namespaces(mount),
                Some("a mount namespace that is not its own")
            );
        }
    }
}
