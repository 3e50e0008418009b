//! A procfs of a pid namespace that this process is not in.
//!
//! procfs shows the pid namespace of whoever opens its context, fsopen(2), unless that says another:
//! Linux 6.17 has an option for it. Before that a process has to be in the namespace, among the
//! container's neighbours, who may have CAP_SYS_PTRACE. All that this one is good for is to open the
//! context, and all that can be made of it:
//!
//! - its root is empty and read-only, and its one descriptor is a socket to this process;
//! - a seccomp filter leaves it fsopen(2), sendmsg(2), clone(2) and its exit, whoever steers it;
//! - its capability, CAP_SYS_ADMIN, is one of a user namespace that owns nothing but that root. Where
//!   the node has no user namespaces it is the node's; but opening a context needs no more than a look
//!   at it, and nothing else is left to do with it.
//!
//! Who makes a filesystem of the context is this process. Since whoever traces the other one could
//! have sent any context, it is tried with an option that no other filesystem has, and what was
//! mounted is looked at.
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use libcontainer::capabilities::drop_privileges;
use libcontainer::syscall::syscall::create_syscall;
use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{ForkResult, fork};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::error::{Doing, JobError};
use crate::mount_api::Context;
use crate::process::Pidfd;
use crate::{console, holder, sys};

/// The first descriptor that is free for one who has none but [`SOCKET`].
const OPENED: RawFd = 1;
const SOCKET: RawFd = 0;

/// A mount, attached nowhere yet, of a procfs with these options. The mount table names the source.
pub(super) fn mount(namespace: &File, source: &Path, options: &str) -> Result<OwnedFd, JobError> {
    let what = || "make a procfs of the pid namespace that the container joins";
    match with_option(namespace) {
        Ok(context) => {
            configure(&context, source, options)?;
            context.mount(0).doing(what)
        }
        Err(Errno::EINVAL) => {
            let context = from_inside(namespace)?;
            configure(&context, source, options)?;
            let procfs = context.mount(0).doing(what)?;
            match shows(&procfs, namespace) {
                Ok(true) => Ok(procfs),
                // Its first process is one that root of this user namespace may not look at: a
                // neighbour's own namespace is all that it could be instead.
                Err(Errno::EACCES) => Ok(procfs),
                Ok(false) => Err(JobError::failed(
                    "what was to be the container's procfs is something else: a neighbour has \
                     interfered",
                )),
                Err(errno) => Err(JobError::from_errno(
                    errno,
                    "look at the container's procfs",
                )),
            }
        }
        Err(errno) => Err(JobError::from_errno(errno, what())),
    }
}

/// `EINVAL`: the kernel is older than 6.17.
fn with_option(namespace: &File) -> Result<Context, Errno> {
    let context = Context::open(c"proc")?;
    context.set_descriptor(c"pidns", namespace.as_fd())?;
    Ok(context)
}

fn configure(context: &Context, source: &Path, options: &str) -> Result<(), JobError> {
    const HIDEPID: &str = "hidepid";
    CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Errno::EINVAL)
        .and_then(|source| context.set(c"source", Some(&source)))
        .doing(|| "name the source of the container's procfs")?;
    let options = options.split(',').filter(|option| !option.is_empty());
    let mut options: Vec<_> = options
        .map(|option| match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        })
        .collect();
    // Its default; no other filesystem has it.
    if !options.iter().any(|(name, _)| *name == HIDEPID) {
        options.push((HIDEPID, Some("0")));
    }
    for (name, value) in options {
        let what = || format!("set the option {name} of the container's procfs");
        let text = |text| CString::new(text).map_err(|_| Errno::EINVAL);
        text(name)
            .and_then(|name| context.set(&name, value.map(text).transpose()?.as_deref()))
            .doing(what)?;
    }
    Ok(())
}

/// Whether it is a procfs, and of that namespace.
fn shows(procfs: &OwnedFd, namespace: &File) -> Result<bool, Errno> {
    if fstatfs(procfs)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    let first = fstatat(procfs, "1/ns/pid", AtFlags::empty())?;
    let wanted = fstat(namespace)?;
    Ok((first.st_dev, first.st_ino) == (wanted.st_dev, wanted.st_ino))
}

/// A context that a process in the namespace has opened.
fn from_inside(namespace: &File) -> Result<Context, JobError> {
    let what = || "open a procfs in the pid namespace that the container joins";
    let (ours, its) = UnixStream::pair().doing(what)?;
    let parent = std::process::id();
    // SAFETY: this process has one thread, so the child's memory is in no half-changed state.
    let maker = match unsafe { fork() }.doing(what)? {
        ForkResult::Child => {
            let status = match go_and_open(parent, namespace, its) {
                Ok(()) => 0,
                Err(errno) => errno as i32,
            };
            sys::exit_now(status)
        }
        ForkResult::Parent { child } => Pidfd::open(child.as_raw()).doing(what)?,
    };
    drop(its);
    let context = console::await_fd(ours.as_raw_fd());
    let ended = maker.wait().doing(what)?;
    match context {
        Ok(context) => Ok(Context::from(context)),
        Err(errno) => Err(JobError::failed(format!(
            "cannot {}: {errno} (the process that was to do it {ended})",
            what()
        ))),
    }
}

/// Gives up everything, and forks the process that opens and sends.
fn go_and_open(parent: u32, namespace: &File, socket: UnixStream) -> Result<(), Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    sys::die_with_parent(parent, Signal::SIGKILL).map_err(errno)?;
    holder::leave_the_node().map_err(|_| Errno::EXDEV)?;
    setns(namespace, CloneFlags::CLONE_NEWPID)?;
    // Where this is refused, see above.
    let _ = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    drop_privileges(&one_capability(), &*create_syscall()).map_err(|_| Errno::EPERM)?;
    sys::keep_one(OwnedFd::from(socket), SOCKET).map_err(errno)?;
    confine().map_err(|_| Errno::EACCES)?;
    // SAFETY: like fork(2): no new stack, no shared memory; this process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if Errno::result(pid)? == 0 {
        let sent = Context::open(c"proc").and_then(|_| console::send_fd(SOCKET, OPENED));
        sys::exit_now(i32::from(sent.is_err()));
    }
    Ok(())
}

fn one_capability() -> LinuxCapabilities {
    let one = || Some(Capabilities::from([Capability::SysAdmin]));
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(one());
    capabilities.set_permitted(one());
    capabilities.set_effective(one());
    capabilities.set_inheritable(Some(Capabilities::default()));
    capabilities.set_ambient(Some(Capabilities::default()));
    capabilities
}

/// Leaves this process and its children what they need, besides memory.
fn confine() -> Result<(), libseccomp::error::SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::KillProcess)?;
    for name in [
        "fsopen",
        "sendmsg",
        "close",
        "clone",
        "exit_group",
        "brk",
        "mmap",
    ] {
        filter.add_rule(ScmpAction::Allow, ScmpSyscall::from_name(name)?)?;
    }
    filter.load()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::zombie_processes, reason = "whoever asked waits for it")]
    /// Of a process that sleeps in a pid namespace of its own.
    fn another_namespace() -> (std::process::Child, File) {
        let child = std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sleep", "60"])
            .spawn()
            .unwrap();
        let entry = format!("/proc/{}/ns/pid_for_children", child.id());
        let ours = std::fs::read_link("/proc/self/ns/pid").unwrap();
        for _ in 0..500 {
            if let Ok(found) = std::fs::read_link(&entry)
                && found != ours
                && let Ok(namespace) = File::open(&entry)
            {
                return (child, namespace);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("unshare has made no pid namespace");
    }

    #[test]
    fn both_ways_lead_to_the_procfs_of_the_namespace() {
        let (mut child, namespace) = another_namespace();
        let mut ways = vec![from_inside(&namespace).unwrap()];
        ways.extend(with_option(&namespace));
        for context in ways {
            configure(&context, Path::new("proc"), "subset=pid").unwrap();
            let procfs = context.mount(0).unwrap();
            assert!(shows(&procfs, &namespace).unwrap());
            let ours = File::open("/proc/self/ns/pid").unwrap();
            assert!(!shows(&procfs, &ours).unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn nothing_else_is_taken_for_it() {
        for kind in [c"tmpfs", c"sysfs", c"mqueue"] {
            let context = Context::open(kind).unwrap();
            assert!(
                configure(&context, Path::new("proc"), "").is_err(),
                "{kind:?}"
            );
        }
        let ours = File::open("/proc/self/ns/pid").unwrap();
        let tmpfs = Context::open(c"tmpfs").unwrap().mount(0).unwrap();
        assert!(!shows(&tmpfs, &ours).unwrap());
    }
}
