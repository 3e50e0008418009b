//! Cgroups: limits, numbers, freezing, killing; v2 first, v1 as it is.
//!
//! A [`Cgroup`] is a place, not a hold on it: it may be gone by the time it is used, which every
//! function says with an error of kind `NotFound`, except where that is what was wanted.

mod dbus;
pub mod devices;
mod directories;
mod driver;
mod error;
mod files;
mod freeze;
mod kill;
mod limits;
mod make;
mod oom;
mod paths;
mod remove;
mod stats;
mod systemd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::LinuxResources;

pub use driver::{Driver, below};
pub use error::{Error, Result};
pub use make::New;
pub use oom::OomWatch;
pub use stats::{
    Counters, CpuV1, HugeTlb, IoV1, IoV2, MemoryEntryV1, MemoryV1, MemoryV2, Pids, Pressure, Stall,
    Stats, StatsV1, StatsV2,
};

/// The cgroup of a container or a pod, in every hierarchy the node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Never empty; one for v2.
    hierarchies: Vec<Hierarchy>,
}

/// A cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// As in `/proc/PID/cgroup`: empty for v2, else controllers with commas, or `name=...`.
    controllers: String,
    /// As in `/proc/PID/cgroup`.
    path: PathBuf,
    /// Where the hierarchy is mounted, or the part of it that can be seen.
    mount: PathBuf,
    /// The cgroup's directory, below the mount.
    dir: PathBuf,
}

/// What a container sees of its cgroup in one hierarchy.
pub(crate) struct View<'a> {
    /// Empty for v2; else controllers with commas, or `name=...`.
    pub(crate) controllers: &'a str,
    /// The directory that the node has the hierarchy in, by name.
    pub(crate) name: &'a str,
    /// The container's cgroup.
    pub(crate) dir: &'a Path,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    fn is_root(&self) -> bool {
        self.path == Path::new("/")
    }
}

/// Looks for the hierarchies of this node, so that processes that are forked later need not. What
/// fails is told when they are needed.
pub(crate) fn look_around() {
    let _ = paths::mounts();
}

impl Cgroup {
    /// The cgroup a process is in.
    ///
    /// On v1, hierarchies whose root the process is in are left out if it is elsewhere in others:
    /// the root is everyone's, so it was never put anywhere there.
    ///
    /// # Errors
    /// There is no such process, or no cgroup filesystem.
    pub fn of(pid: i32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        Self::at(&paths::parse_membership(&files::read_bytes(&path)?))
    }

    /// The cgroup at these paths: hierarchy (empty for v2) to path, as in `/proc/PID/cgroup`.
    ///
    /// # Errors
    /// No cgroup filesystem that shows one of them is mounted.
    pub fn at(paths: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let mounts = paths::mounts()?;
        let in_charge = paths::in_charge(mounts)?;
        let mut hierarchies: Vec<_> = paths
            .iter()
            .filter_map(|(controllers, path)| {
                let path = paths::normal(path)?;
                let (mount, dir) = paths::locate(&in_charge, controllers, &path)?;
                Some(Hierarchy {
                    controllers: controllers.clone(),
                    path,
                    mount,
                    dir,
                })
            })
            .collect();
        if hierarchies.iter().any(|hierarchy| !hierarchy.is_root()) {
            hierarchies.retain(|hierarchy| !hierarchy.is_root());
        }
        if hierarchies.is_empty() {
            return Err(Error::Unsupported(format!(
                "no mounted cgroup filesystem shows the cgroup {paths:?}: mount it below \
                 /sys/fs/cgroup in the shim's mount namespace"
            )));
        }
        Ok(Self { hierarchies })
    }

    /// The cgroup a container has, or will have: what `linux.cgroupsPath` of its spec says.
    ///
    /// With it, `delete` can clean up when neither a process nor a record of the paths is left.
    ///
    /// # Errors
    /// `Invalid` for a path of the wrong form; `Unsupported` for the systemd driver on v1; no
    /// cgroup filesystem.
    pub fn named(driver: Driver, cgroups_path: Option<&str>, id: &str) -> Result<Self> {
        let place = driver::Place::of(driver, cgroups_path, id)?;
        let mounts = paths::mounts()?;
        let in_charge = paths::in_charge(mounts)?;
        let unified = in_charge.iter().any(|mount| mount.controllers.is_empty());
        let path = match place {
            driver::Place::Path(path) => path,
            driver::Place::Unit(_) if !unified => return Err(driver::systemd_on_v1()),
            driver::Place::Unit(unit) => driver::manager_cgroup()?.join(unit.path()?),
        };
        let paths = in_charge
            .iter()
            .map(|mount| (mount.controllers.join(","), path.clone()))
            .collect();
        Self::at(&paths)
    }

    /// Whether this node can make cgroups that way; call it before anything is made.
    ///
    /// # Errors
    /// No cgroup filesystem, the systemd driver on v1, or without systemd: what to change.
    pub fn check(driver: Driver) -> Result<()> {
        make::check(driver)
    }

    /// Makes the cgroup [`named`](Self::named) so, with its limits and device rules in force,
    /// before a process is in it. Without rules, there are the default devices only.
    ///
    /// The runtime that then builds the container is to be given [`Cgroup::path`] as
    /// `linux.cgroupsPath` and no `linux.resources`; when the container's init is there,
    /// [`New::adopt`] it. With the systemd driver this forks a process that does nothing and
    /// keeps the scope until then.
    ///
    /// # Errors
    /// As for `named`; `Busy` when it has processes; `Unsupported` for a limit this node cannot
    /// keep; `Invalid` for one that makes no sense; or what the kernel or systemd says. Nothing
    /// is left behind.
    pub fn make(
        driver: Driver,
        cgroups_path: Option<&str>,
        id: &str,
        resources: Option<&LinuxResources>,
    ) -> Result<New> {
        make::make(driver, cgroups_path, id, resources)
    }

    /// Makes it where it is missing, without limits, such as the cgroup of a pod that no kubelet
    /// has made. Slices of systemd are left to systemd: it makes them with their first scope.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ensure(&self) -> Result<()> {
        directories::make(self, &mut Vec::new())
    }

    /// Moves a process into it, in every hierarchy.
    ///
    /// # Errors
    /// The process or the cgroup is gone; on v2 also that the cgroup hands down controllers to
    /// cgroups below it (`ResourceBusy`), as a pod's does: processes live in those only.
    pub fn join(&self, pid: i32) -> Result<()> {
        self.hierarchies
            .iter()
            .try_for_each(|it| files::write(&it.dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Changes limits; those that are not named stay. Device rules stay, too: containerd repeats
    /// those of the container when it changes others.
    ///
    /// # Errors
    /// `Unsupported` for a limit this node cannot keep; `Invalid` for one that makes no sense, or
    /// is below what is in use with `checkBeforeUpdate`; or what the kernel or systemd says.
    pub fn update(&self, driver: Driver, resources: &LinuxResources) -> Result<()> {
        self.check_before_update(resources)?;
        if driver == Driver::Systemd {
            let properties = limits::properties(&self.limits(resources)?)?;
            systemd::set(self.unit_name(), &properties)?;
        }
        self.limit(resources)
    }

    /// What a container sees of it: one for v2, one for each hierarchy of v1.
    pub(crate) fn views(&self) -> Vec<View<'_>> {
        let view = |hierarchy| {
            let Hierarchy {
                controllers,
                mount,
                dir,
                ..
            }: &Hierarchy = hierarchy;
            Some(View {
                controllers,
                name: mount.file_name()?.to_str()?,
                dir,
            })
        };
        self.hierarchies.iter().filter_map(view).collect()
    }

    /// Its directory, where a process may be born into it: only v2 can do that.
    pub(crate) fn birthplace(&self) -> Option<&Path> {
        self.unified().map(|hierarchy| hierarchy.dir.as_path())
    }

    /// The cgroup above it, such as that of the pod (contract 20); `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let above = |hierarchy: &Hierarchy| {
            let parent = Hierarchy {
                path: hierarchy.path.parent()?.to_owned(),
                dir: hierarchy.dir.parent()?.to_owned(),
                ..hierarchy.clone()
            };
            // Above the mount are no cgroups.
            let shown = parent.dir.starts_with(&parent.mount);
            (shown && !parent.is_root()).then_some(parent)
        };
        let hierarchies: Vec<_> = self.hierarchies.iter().filter_map(above).collect();
        (!hierarchies.is_empty()).then_some(Self { hierarchies })
    }

    /// Its path from the root of each hierarchy: what `linux.cgroupsPath` must say for a runtime
    /// that joins it, and finds nothing to make or to limit any more.
    #[must_use]
    pub fn path(&self) -> &Path {
        // All hierarchies have the same: it was made so, and there is one at least.
        self.hierarchies
            .first()
            .map_or(Path::new("/"), |first| &first.path)
    }

    /// The paths, as in `/proc/PID/cgroup`.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.hierarchies
            .iter()
            .map(|hierarchy| (hierarchy.controllers.clone(), hierarchy.path.clone()))
            .collect()
    }

    /// Whether there is such a cgroup, in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.hierarchies
            .iter()
            .any(|hierarchy| hierarchy.dir.exists())
    }

    /// Its processes, and those of the cgroups below it.
    ///
    /// # Errors
    /// What reading `cgroup.procs` says.
    pub fn pids(&self) -> Result<Vec<i32>> {
        kill::pids(&self.members()?.dir)
    }

    /// The numbers the kernel keeps about it; those it does not keep are absent.
    ///
    /// # Errors
    /// What reading them says.
    pub fn stats(&self) -> Result<Stats> {
        if let Some(hierarchy) = self.unified() {
            return Ok(Stats::V2(Box::new(stats::read_v2(&hierarchy.dir)?)));
        }
        let dir = |controller: &str| {
            self.hierarchies
                .iter()
                .find(|it| it.has(controller))
                .map(|it| it.dir.as_path())
        };
        Ok(Stats::V1(Box::new(stats::read_v1(dir)?)))
    }

    /// Freezes every process in it, and waits until they are: at most 5 s.
    ///
    /// # Errors
    /// No freezer, or they do not freeze; then they are thawed again.
    pub fn freeze(&self) -> Result<()> {
        match self.unified() {
            Some(dir) => freeze::freeze_v2(not_root(dir)?),
            None => freeze::freeze_v1(not_root(self.controller("freezer")?)?),
        }
    }

    /// Thaws it.
    ///
    /// # Errors
    /// No freezer.
    pub fn thaw(&self) -> Result<()> {
        match self.unified() {
            Some(dir) => freeze::thaw_v2(not_root(dir)?),
            None => freeze::thaw_v1(not_root(self.controller("freezer")?)?),
        }
    }

    /// Kills every process in it, frozen or not: `cgroup.kill`, or freeze, signal, thaw.
    ///
    /// A process may take a moment to die of it. A cgroup that is gone has none left to kill.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> Result<()> {
        let members = self.members()?;
        let dir = not_root(members)?;
        let killed = match self.unified() {
            Some(_) => kill::kill_v2(dir),
            None if members.has("freezer") => kill::kill_v1(dir),
            None => kill::signal_until_none(dir),
        };
        match killed {
            Err(error) if error.is_gone() => Ok(()),
            killed => killed,
        }
    }

    /// Watches for memory kills; arm it at Create (contract 38).
    ///
    /// # Errors
    /// No memory controller.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        match self.unified() {
            Some(hierarchy) => OomWatch::v2(&hierarchy.dir),
            None => OomWatch::v1(&self.controller("memory")?.dir),
        }
    }

    /// Removes it and what is below it, in every hierarchy; gone already is no error.
    ///
    /// A scope of systemd is stopped as well, which ends what is in it: should its cgroup go first,
    /// systemd may not notice and keep the unit. [`kill`](Self::kill) comes before, so that nobody
    /// has to wait for those who ignore SIGTERM.
    ///
    /// # Errors
    /// `Busy` when a process is still in it after 2 s.
    pub fn remove(&self) -> Result<()> {
        let stopped = match self.unified() {
            Some(hierarchy) if systemd::is_scope(&hierarchy.path) => {
                systemd::stop(self.unit_name())
            }
            _ => Ok(()),
        };
        let deadline = Instant::now() + remove::PATIENCE;
        // All are tried: one that stays must not make the others stay.
        let results: Vec<_> = self
            .hierarchies
            .iter()
            .map(|it| remove::remove(not_root(it)?, deadline))
            .collect();
        results.into_iter().chain([stopped]).collect()
    }

    /// Writes limits.
    fn limit(&self, resources: &LinuxResources) -> Result<()> {
        limits::apply(&self.limits(resources)?, |controller| {
            match self.unified() {
                Some(hierarchy) => Some(hierarchy.dir.as_path()),
                None => self.controller(controller).ok().map(|it| it.dir.as_path()),
            }
        })
    }

    fn limits(&self, resources: &LinuxResources) -> Result<Vec<limits::Write>> {
        let Some(hierarchy) = self.unified() else {
            return limits::v1(resources);
        };
        let now = limits::Now::read(resources, |file| {
            files::read_if_there(&hierarchy.dir.join(file))
        })?;
        limits::v2(resources, &now)
    }

    /// A limit below what is in use kills processes at once, which a caller may ask not to happen.
    fn check_before_update(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else {
            return Ok(());
        };
        let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok());
        let Some(limit) = limit.filter(|limit| *limit > 0) else {
            return Ok(());
        };
        if memory.check_before_update() != Some(true) {
            return Ok(());
        }
        let used = match self.unified() {
            Some(hierarchy) => files::read(&hierarchy.dir.join("memory.current"))?,
            None => files::read(&self.controller("memory")?.dir.join("memory.usage_in_bytes"))?,
        };
        match files::number(&used) {
            Some(used) if used > limit => Err(Error::Invalid(format!(
                "the memory limit of {limit} bytes is below the {used} bytes in use, and \
                 checkBeforeUpdate asks for no such change"
            ))),
            _ => Ok(()),
        }
    }

    /// The name systemd has for it.
    fn unit_name(&self) -> &str {
        let name = self
            .hierarchies
            .first()
            .and_then(|it| it.path.file_name()?.to_str());
        name.unwrap_or_default()
    }

    fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.is_empty())
    }

    fn controller(&self, name: &str) -> Result<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.has(name)).ok_or_else(|| {
            Error::Unsupported(format!(
                "the container has no cgroup of the {name} controller: this kernel lacks it, or \
                 it is not mounted"
            ))
        })
    }

    /// The hierarchy to find processes in: v2, or those of v1 in which all runtimes put them.
    fn members(&self) -> Result<&Hierarchy> {
        self.unified()
            .or_else(|| {
                ["freezer", "pids", "devices"]
                    .iter()
                    .find_map(|it| self.controller(it).ok())
            })
            .ok_or_else(|| {
                Error::Unsupported(
                    "the container has no cgroup of the freezer, pids or devices controller, so \
                     its processes cannot be told: mount one of them"
                        .into(),
                )
            })
    }
}

/// The root holds every process of the node: it is never frozen, killed or removed.
fn not_root(hierarchy: &Hierarchy) -> Result<&Path> {
    if hierarchy.is_root() {
        return Err(Error::Invalid(
            "the root cgroup holds every process of the node and belongs to no container".into(),
        ));
    }
    Ok(&hierarchy.dir)
}

/// Translates what a spec says of a cgroup for both versions and both drivers, and makes nothing.
#[cfg(fuzzing)]
pub(crate) fn translate(cgroups_path: Option<&str>, resources: &LinuxResources) {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let _ = driver::Place::of(driver, cgroups_path, "container");
    }
    let writes = [
        limits::v1(resources),
        limits::Now::read(resources, |_| Ok(None)).and_then(|now| limits::v2(resources, &now)),
        limits::Now::read(resources, |_| Ok(Some("9000 100000".to_owned())))
            .and_then(|now| limits::v2(resources, &now)),
    ];
    for writes in writes.into_iter().flatten() {
        let _ = limits::properties(&writes);
    }
    devices::translate(resources.devices().as_deref().unwrap_or_default());
}
