//! Making a container's cgroup, with its limits, before any of its processes is there.

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getppid, pause};
use oci_spec::runtime::LinuxResources;

use super::driver::{self, Driver, Place, Unit};
use super::error::{Error, Result};
use super::{Cgroup, Hierarchy, devices, files, limits, paths, systemd};

/// A cgroup that was made for a container whose processes are not there yet; dropping it undoes
/// that.
#[must_use = "dropping it removes the cgroup"]
#[derive(Debug)]
pub struct New {
    cgroup: Cgroup,
    /// Keeps a scope of systemd from ending for want of processes.
    anchor: Option<Anchor>,
    adopted: bool,
}

impl New {
    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its path from the root of each hierarchy: what `linux.cgroupsPath` must say for a runtime
    /// that joins it, and finds nothing to make or to limit any more.
    #[must_use]
    pub fn path(&self) -> &Path {
        // All hierarchies have the same: it was made so, and there is one at least.
        self.cgroup
            .hierarchies
            .first()
            .map_or(Path::new("/"), |first| &first.path)
    }

    /// Moves the container's init in, in hierarchies too that its maker may not have known, and
    /// hands the cgroup over: from now on it stays.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses; then the cgroup is undone.
    pub fn adopt(mut self, init: i32) -> Result<Cgroup> {
        self.cgroup.join(init)?;
        // Only now: a scope of systemd ends with its last process.
        self.anchor = None;
        self.adopted = true;
        Ok(self.cgroup.clone())
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
            log::warn!("cannot undo the cgroup {}: {error}", self.path().display());
        }
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
        adopted: false,
    };
    match place {
        Place::Path(_) => make_directories(&new.cgroup)?,
        Place::Unit(unit) => new.anchor = Some(start(&unit, id, &new, resources)?),
    }
    if let Some(resources) = resources {
        new.cgroup.limit(resources)?;
        // No list at all asks for no rules, an empty one for the default devices only.
        if let Some(devices) = resources.devices() {
            devices::attach(&new.cgroup, devices)?;
        }
    }
    Ok(new)
}

/// Makes the directories of a cgroup, and what is missing above it.
pub(super) fn make_directories(cgroup: &Cgroup) -> Result<()> {
    for hierarchy in &cgroup.hierarchies {
        if hierarchy.controllers.is_empty() {
            make_v2(hierarchy)?;
        } else {
            make_v1(hierarchy)?;
        }
    }
    Ok(())
}

/// The directories from the root of the mount down to the cgroup, both included.
fn way_to(hierarchy: &Hierarchy) -> Vec<&Path> {
    let mut way: Vec<_> = hierarchy
        .dir
        .ancestors()
        .take(hierarchy.path.components().count())
        .collect();
    way.reverse();
    way
}

fn make_directory(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(Error::file("make the cgroup", dir)),
    }
}

/// Makes a v2 cgroup, and has every cgroup above it hand down its controllers.
fn make_v2(hierarchy: &Hierarchy) -> Result<()> {
    let way = way_to(hierarchy);
    let mut above: Option<&Path> = None;
    for dir in way {
        if let Some(above) = above {
            hand_down_controllers(above)?;
            make_directory(dir)?;
        }
        above = Some(dir);
    }
    // One that was left behind frozen would hold its first process before it can do anything.
    files::write(&hierarchy.dir.join("cgroup.freeze"), "0")
}

/// Enables for the children what the cgroup has itself.
///
/// What cannot be is left out: where a limit needs it, that fails with a message of its own. A
/// cgroup with processes hands down none ("no internal processes", cgroup-v2.rst).
fn hand_down_controllers(dir: &Path) -> Result<()> {
    let available = files::read(&dir.join("cgroup.controllers"))?;
    let control = dir.join("cgroup.subtree_control");
    let enabled = files::read(&control)?;
    let enabled: Vec<_> = enabled.split_whitespace().collect();
    for controller in available
        .split_whitespace()
        .filter(|name| !enabled.contains(name))
    {
        // One by one: the kernel takes all of a write or nothing.
        if let Err(error) = files::write(&control, &format!("+{controller}")) {
            log::debug!(
                "the controller {controller} stays off below {}: {error}",
                dir.display()
            );
        }
    }
    Ok(())
}

fn make_v1(hierarchy: &Hierarchy) -> Result<()> {
    let mut above: Option<&Path> = None;
    for dir in way_to(hierarchy) {
        if let Some(above) = above {
            make_directory(dir)?;
            if hierarchy.has("cpuset") {
                inherit_cpuset(above, dir)?;
            }
        }
        above = Some(dir);
    }
    Ok(())
}

/// A v1 cpuset starts empty and takes no process before it has CPUs and memory nodes.
fn inherit_cpuset(above: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(file);
        if files::read(&own)?.trim().is_empty() {
            files::write(&own, files::read(&above.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// Has systemd start a scope, with its limits, around a process of ours.
fn start(unit: &Unit, id: &str, new: &New, resources: Option<&LinuxResources>) -> Result<Anchor> {
    let writes = match resources {
        Some(resources) => limits::v2(resources, None)?,
        None => Vec::new(),
    };
    let anchor = Anchor::fork()?;
    systemd::start(
        unit,
        id,
        anchor.pid.as_raw(),
        &limits::properties(&writes)?,
        new.path(),
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
    let in_charge = paths::in_charge(&mounts)?;
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
