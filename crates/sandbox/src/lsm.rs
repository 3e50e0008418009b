//! Security modules of the kernel: SELinux's labels and AppArmor's profiles.
//!
//! Both bind a process at its next execve(2), by what it wrote to `attr` of its own procfs
//! directory. What is not there is refused, by name and before anything is made: a container that
//! was to be confined must not run unconfined.
use std::ffi::{CStr, CString};
use std::fs;
use std::io::Write;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};
use oci_spec::runtime::{Linux, Process};

use crate::error::{Doing, JobError};
use crate::procfs::Procfs;

/// `SELINUX_MAGIC` of linux/magic.h.
const SELINUX: FsType = FsType(0xf97c_ff8c);
/// The label of all processes as long as SELinux has no policy.
const WITHOUT_POLICY: &str = "kernel";

/// `process.selinuxLabel`, unless it is empty, which is as if it were not there.
fn label(process: &Process) -> Option<&str> {
    process
        .selinux_label()
        .as_deref()
        .filter(|label| !label.is_empty())
}

/// `process.apparmorProfile`, as above.
fn profile(process: &Process) -> Option<&str> {
    process
        .apparmor_profile()
        .as_deref()
        .filter(|profile| !profile.is_empty())
}

/// Sees that what a process is to be confined by is there.
///
/// # Errors
/// `Invalid`: the kernel lacks the module, or it is not enabled. Other runtimes refuse this too;
/// containerd sends neither where the node has no such module.
pub(crate) fn check(process: &Process) -> Result<(), JobError> {
    if let Some(label) = label(process) {
        see_that_selinux_is_on("process.selinuxLabel", label)?;
    }
    match profile(process) {
        Some(profile) if !apparmor_is_on() => Err(JobError::invalid(format!(
            "process.apparmorProfile is {profile:?}, but AppArmor is not enabled on this node: leave it \
             empty, or boot with apparmor=1"
        ))),
        _ => Ok(()),
    }
}

/// `linux.mountLabel`, if there is one.
///
/// # Errors
/// `Invalid`: SELinux is not enabled.
pub(crate) fn mount_label(linux: &Linux) -> Result<Option<CString>, JobError> {
    let label = linux.mount_label().as_deref().unwrap_or_default();
    if label.is_empty() {
        return Ok(None);
    }
    let field = "linux.mountLabel";
    see_that_selinux_is_on(field, label)?;
    // It is quoted where it becomes a mount's option.
    match CString::new(label) {
        Ok(text) if !label.contains('"') => Ok(Some(text)),
        _ => Err(JobError::invalid(format!("{field} {label:?} is no label"))),
    }
}

fn see_that_selinux_is_on(field: &str, label: &str) -> Result<(), JobError> {
    let is_mounted = statfs("/sys/fs/selinux").is_ok_and(|fs| fs.filesystem_type() == SELINUX);
    let has_policy = || {
        fs::read_to_string("/proc/self/attr/current")
            .is_ok_and(|own| own.trim_end_matches(['\0', '\n']) != WITHOUT_POLICY)
    };
    if is_mounted && has_policy() {
        return Ok(());
    }
    Err(JobError::invalid(format!(
        "{field} is {label:?}, but SELinux is not enabled on this node: leave it empty, or boot with a \
         policy"
    )))
}

fn apparmor_is_on() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.first() == Some(&b'Y'))
}

/// Confines this process from its next execve(2) on. It is to be called in the container, as root of
/// it: whatever the container has at /proc.
pub(crate) fn confine_at_exec(process: &Process) -> Result<(), JobError> {
    let (label, profile) = (label(process), profile(process));
    if label.is_none() && profile.is_none() {
        return Ok(());
    }
    let procfs = Procfs::private().doing(|| "open a procfs, to confine the process")?;
    if let Some(profile) = profile {
        set_profile(&procfs, profile)?;
    }
    if let Some(label) = label {
        write(&procfs, "attr/exec", label)
            .map_err(|errno| refused(errno, "process.selinuxLabel", label))?;
    }
    Ok(())
}

/// Labels the keys and keyrings that this process makes, until its next execve(2), as the process
/// itself will be.
pub(crate) fn label_keys(process: &Process) -> Result<(), JobError> {
    let Some(label) = label(process) else {
        return Ok(());
    };
    let procfs = Procfs::private().doing(|| "open a procfs, to label keys")?;
    match write(&procfs, "attr/keycreate", label) {
        // A kernel without keyrings.
        Err(Errno::ENOENT) => Ok(()),
        done => done.map_err(|errno| refused(errno, "process.selinuxLabel", label)),
    }
}

/// aa_change_onexec(2).
fn set_profile(procfs: &Procfs, profile: &str) -> Result<(), JobError> {
    let request = format!("exec {profile}");
    let done = match write(procfs, "attr/apparmor/exec", &request) {
        // Before Linux 5.8 there is one file for whichever module is the first.
        Err(Errno::ENOENT) if !has_own_directory(procfs) => write(procfs, "attr/exec", &request),
        done => done,
    };
    done.map_err(|errno| match errno {
        Errno::ENOENT => JobError::invalid(format!(
            "the AppArmor profile {profile:?} of process.apparmorProfile is not loaded on this node: \
             load it with apparmor_parser"
        )),
        errno => refused(errno, "process.apparmorProfile", profile),
    })
}

fn has_own_directory(procfs: &Procfs) -> bool {
    procfs.open_own_to_write("attr/apparmor/exec").is_ok()
}

fn write(procfs: &Procfs, path: &str, value: &str) -> Result<(), Errno> {
    let mut file = procfs.open_own_to_write(path)?;
    // The kernel takes it as a whole, or not at all.
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    file.write_all(value.as_bytes()).map_err(errno)
}

fn refused(errno: Errno, field: &str, value: &str) -> JobError {
    let message = format!("cannot set {field} to {value:?}: {errno}");
    match errno {
        // A label that the policy does not know, or that the shim's may not become.
        Errno::EINVAL | Errno::EACCES | Errno::EPERM => JobError::invalid(message),
        _ => JobError::failed(message),
    }
}

/// Labels a file that a path of our own making leads to.
pub(crate) fn label_file(path: &str, label: &CStr) -> Result<(), Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let value = label.to_bytes_with_nul();
    // SAFETY: path, name and value are valid for the call, which reads `value.len()` bytes of the last.
    let answer = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.selinux".as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(answer).map(drop)
}
