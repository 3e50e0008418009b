//! Making a container's cgroup, with its limits, before any of its processes is there.

use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getppid, pause};
use oci_spec::runtime::LinuxResources;

use super::driver::{self, Driver, Place, Unit};
use super::error::{Error, Result};
use super::{Cgroup, devices, directories, limits, paths, systemd};

/// A cgroup that was made for a container whose processes are not there yet; dropping it undoes
/// that.
#[must_use = "dropping it removes the cgroup"]
#[derive(Debug)]
pub struct New {
    cgroup: Cgroup,
    /// Keeps a scope of systemd from ending for want of processes.
    anchor: Option<Anchor>,
    /// The directories that were not there before.
    made: Vec<PathBuf>,
    adopted: bool,
}

impl New {
    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Moves the container's init in, in hierarchies too that its maker may not have known, and
    /// hands the cgroup over: from now on it stays.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses; then the cgroup is undone.
    pub fn adopt(self, init: i32) -> Result<Cgroup> {
        self.cgroup.join(init)?;
        Ok(self.keep())
    }

    /// Hands the cgroup over, as the container's init is in it, in all hierarchies.
    pub(crate) fn keep(mut self) -> Cgroup {
        // Only now: a scope of systemd ends with its last process.
        self.anchor = None;
        self.adopted = true;
        self.cgroup.clone()
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if self.adopted {
            return;
        }
        self.anchor = None;
        // Whatever half-made container is in it has no one left to tell.
        let undone = self.cgroup.kill().and_then(|()| self.cgroup.remove());
        if let Err(error) = undone {
            log::warn!(
                "cannot undo the cgroup {}: {error}",
                self.cgroup.path().display()
            );
        }
        directories::unmake(&self.made);
    }
}

/// Makes the cgroup; see [`Cgroup::make`].
pub(super) fn make(
    driver: Driver,
    cgroups_path: Option<&str>,
    id: &str,
    resources: Option<&LinuxResources>,
) -> Result<New> {
    let place = Place::of(driver, cgroups_path, id)?;
    if let Place::Unit(Unit { name, .. }) = &place
        && name.ends_with(".slice")
    {
        return Err(Error::Invalid(format!(
            "the cgroupsPath of {id} names the slice {name}: processes are in scopes, so it must \
             read slice:prefix:name with another name"
        )));
    }
    let cgroup = Cgroup::named(driver, cgroups_path, id)?;
    if cgroup.exists() && !cgroup.pids()?.is_empty() {
        return Err(Error::Busy(format!(
            "the cgroup {:?} for {id} has processes already: is a container of that name running, \
             or does its cgroupsPath name the cgroup of another?",
            cgroup.paths()
        )));
    }
    let mut new = New {
        cgroup,
        anchor: None,
        made: Vec::new(),
        adopted: false,
    };
    if let Place::Unit(unit) = place {
        new.anchor = Some(start(&unit, id, &new, resources)?);
    }
    // In slices too: systemd does not hand down controllers it knows nothing of, such as hugetlb.
    directories::make(&new.cgroup, &mut new.made)?;
    if let Some(resources) = resources {
        new.cgroup.limit(resources)?;
    }
    let rules = resources.and_then(|resources| resources.devices().as_deref());
    devices::attach(&new.cgroup, rules.unwrap_or_default())?;
    Ok(new)
}

/// Has systemd start a scope, with its limits, around a process of ours.
fn start(unit: &Unit, id: &str, new: &New, resources: Option<&LinuxResources>) -> Result<Anchor> {
    let writes = match resources {
        Some(resources) => limits::v2(resources, &limits::Now::default())?,
        None => Vec::new(),
    };
    let anchor = Anchor::fork()?;
    systemd::start(
        unit,
        id,
        anchor.pid.as_raw(),
        &limits::properties(&writes)?,
        new.cgroup.path(),
    )?;
    Ok(anchor)
}

/// A process that does nothing; it ends when this is dropped.
#[derive(Debug)]
struct Anchor {
    pid: Pid,
}

impl Anchor {
    fn fork() -> Result<Self> {
        let parent = nix::unistd::getpid();
        // SAFETY: the child calls nothing but system calls, so it needs no lock another thread may
        // hold.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => Ok(Self { pid: child }),
            Ok(ForkResult::Child) => {
                // It must not outlive a parent that is killed, before this call either.
                let bound = prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == parent;
                if bound {
                    loop {
                        pause();
                    }
                }
                // SAFETY: _exit(2) ends this process and runs no code of the parent.
                unsafe { libc::_exit(1) }
            }
            Err(errno) => Err(Error::Systemd(format!(
                "cannot fork a process to start a scope of systemd with: {errno}"
            ))),
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // Ended or killed by others already, it is still ours to reap: the pid is its own.
        if let Err(errno) = kill(self.pid, Signal::SIGKILL) {
            log::warn!("cannot kill process {}: {errno}", self.pid);
        }
        if let Err(errno) = waitpid(self.pid, None) {
            log::warn!("cannot reap process {}: {errno}", self.pid);
        }
    }
}

/// Whether this node can make cgroups in the way asked for; see [`Cgroup::check`].
pub(super) fn check(driver: Driver) -> Result<()> {
    let mounts = paths::mounts()?;
    let in_charge = paths::in_charge(mounts)?;
    if driver == Driver::Cgroupfs {
        return Ok(());
    }
    if !in_charge.iter().any(|mount| mount.controllers.is_empty()) {
        return Err(driver::systemd_on_v1());
    }
    if !systemd::booted() {
        return Err(Error::Unsupported(
            "the systemd cgroup driver was asked for, but systemd does not run this node: set \
             SystemdCgroup = false"
                .into(),
        ));
    }
    Ok(())
}
