//! Undoing a pod, driven by its record, when its shim no longer can.
//!
//! Every step is tried whatever became of the others, and each may find its work done: `delete`
//! may run twice, and two of them at once.
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use husk_sandbox::cgroup::{self, Cgroup, Driver};
use husk_sandbox::hooks;
use husk_sandbox::job::Holder;
use husk_sandbox::process::{Pidfd, start_time};
use husk_sandbox::rootfs::unmount_all;
use husk_scope::record::{Container, Namespace, Pod, Process, Relay};
use husk_scope::{Ids, Kind};
use nix::libc::SIGKILL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::ids;
use crate::store::Store;

/// How long killed processes may take to die.
const DEATH: Duration = Duration::from_secs(2);

/// How long a hook of a container may take that is deleted without its shim.
const POSTSTOP: Duration = Duration::from_secs(1);

/// How often the shim's session is searched again for what was forked during the last search.
const ROUNDS: usize = 5;

/// Clears away, and remembers what could not be.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    /// What could not be cleared away, and why.
    pub(crate) warnings: Vec<String>,
}

/// Whether this process still lives: it, not another one that has its pid by now.
#[must_use]
pub(crate) fn lives(process: Process) -> bool {
    open(process).is_some()
}

impl Cleanup {
    /// Kills everything of a pod and removes what it had, its record last. The socket is left:
    /// by now it may be that of the pod's next shim.
    pub(crate) fn pod(&mut self, store: &Store, record: &Pod) {
        // First whoever could make more: the shim, then the zygote and the jobs it left.
        self.kill(record.shim.into_iter().chain(record.zygote));
        if let Some(shim) = record.shim {
            self.kill_session(shim);
        }
        for relay in &record.relays {
            self.end_relay(record, relay);
        }
        for container in &record.containers {
            self.kill_container(container);
        }
        for namespace in &record.namespaces {
            self.end_holder(record, namespace);
        }
        for container in &record.containers {
            self.remove_container(container);
            self.give_back(record, container.ids);
            self.run_poststop(container);
        }
        for mount in record.mounts.iter().rev() {
            self.unmount(mount);
        }
        for namespace in &record.namespaces {
            self.unpin(namespace);
            self.give_back(record, namespace.ids);
        }
        // What a job mounted or pinned just before it could be put on record is below this.
        self.unmount(store.dir());
        self.attempt(store.remove(), || format!("forget pod {}", record.id));
    }

    /// Kills one container of a pod and removes what it had, and nothing of its neighbours.
    pub(crate) fn container(&mut self, record: &Pod, id: &str) {
        let (mine, others): (Vec<_>, Vec<_>) = record
            .containers
            .iter()
            .partition(|container| container.id == id);
        for container in mine {
            let shared = |other: &&&Container| contains(container, other);
            if let Some(neighbour) = others.iter().find(shared) {
                self.warnings.push(format!(
                    "container {id} has the cgroup of {}: only its own processes are killed, and \
                     the cgroup stays",
                    neighbour.id
                ));
                self.kill_processes(container);
                self.unmount_rootfs(container);
            } else {
                self.kill_container(container);
                self.remove_container(container);
            }
            self.give_back(record, container.ids);
            self.run_poststop(container);
            let removed = remove_dir(&container.dir);
            self.attempt(removed, || format!("remove {}", container.dir.display()));
        }
    }

    /// Notes a failed step.
    pub(crate) fn attempt<E: Display>(
        &mut self,
        result: Result<(), E>,
        step: impl FnOnce() -> String,
    ) {
        if let Err(error) = result {
            self.warnings.push(format!("{}: {error:#}", step()));
        }
    }

    fn kill_container(&mut self, container: &Container) {
        if let Some(cgroup) = self.cgroup(container) {
            self.attempt(cgroup.kill(), || format!("kill container {}", container.id));
        }
        self.kill_processes(container);
    }

    fn kill_processes(&mut self, container: &Container) {
        self.kill(
            container
                .init
                .into_iter()
                .chain(container.execs.values().copied().flatten()),
        );
    }

    /// Kills the holder, also one that was made just before it could be put on record: whoever is
    /// in the pinned namespace. Removes its cgroup.
    fn end_holder(&mut self, record: &Pod, namespace: &Namespace) {
        self.kill(namespace.holder);
        if namespace.kind != Kind::Pid || !namespace.pinned {
            return;
        }
        let inside: Vec<_> = in_pid_namespace(&namespace.path)
            .filter_map(|pid| Pidfd::open(pid).ok())
            .collect();
        self.end(&inside);
        if let Some(cgroup) = self.holder_cgroup(record, namespace) {
            let ended = cgroup.kill().and_then(|()| cgroup.remove());
            self.attempt(ended, || {
                format!("remove the cgroup of the holder of pod {}", record.id)
            });
        }
    }

    /// Kills a relay, which is in the shim's session if it is not on record yet, and removes its cgroup.
    fn end_relay(&mut self, record: &Pod, relay: &Relay) {
        self.kill(relay.process);
        if relay.cgroup.is_empty() {
            return;
        }
        let cgroup = Cgroup::named(
            Driver::of(&record.cgroup_parent),
            Some(&relay.cgroup),
            "relay",
        );
        let whose = || format!("a relay of pod {}", record.id);
        if let Some(cgroup) = self.found(cgroup, whose) {
            self.attempt(cgroup.remove(), || {
                format!("remove the cgroup of {}", whose())
            });
        }
    }

    fn remove_container(&mut self, container: &Container) {
        self.unmount_rootfs(container);
        if let Some(cgroup) = self.cgroup(container) {
            self.attempt(cgroup.remove(), || {
                format!("remove the cgroup of container {}", container.id)
            });
        }
    }

    /// Gives back ids that nobody has any more.
    fn give_back(&mut self, record: &Pod, ids: Option<Ids>) {
        if let Some(ids) = ids {
            let given = Store::new(&record.namespace, &record.id)
                .map_err(io::Error::other)
                .and_then(|store| ids::give_back(ids, store.dir()));
            self.attempt(given, || format!("give back the ids from {} on", ids.first));
        }
    }

    /// Runs the hooks that come when nothing is left of a container, as its spec in the shim's
    /// directory names them. Without that it was deleted before.
    fn run_poststop(&mut self, container: &Container) {
        if let Ok(Some(hooks)) =
            hooks::left_to_run(&container.dir, &container.id, &container.bundle)
        {
            self.warnings.extend(hooks.run_all_within(POSTSTOP));
        }
    }

    /// Unmounts a root filesystem in the bundle. One elsewhere was there before the shim, which
    /// mounts only in the bundle.
    fn unmount_rootfs(&mut self, container: &Container) {
        if container.rootfs.starts_with(&container.bundle) {
            self.unmount(&container.rootfs);
        }
    }

    /// The container's cgroup: where its init was, or else where it was to be.
    fn cgroup(&mut self, container: &Container) -> Option<Cgroup> {
        let cgroup = if container.cgroups.is_empty() {
            let path = container.cgroups_path.as_str();
            let named = Some(path).filter(|path| !path.is_empty());
            Cgroup::named(Driver::of(path), named, &container.id)
        } else {
            Cgroup::at(&container.cgroups)
        };
        self.found(cgroup, || format!("container {}", container.id))
    }

    /// The cgroup of a pinned pid namespace's holder, if the pod has one to put it in.
    fn holder_cgroup(&mut self, record: &Pod, namespace: &Namespace) -> Option<Cgroup> {
        let driver = Driver::of(&record.cgroup_parent);
        let holder = Holder {
            pin: namespace.path.clone(),
            join: Vec::new(),
            cgroup: Some(record.cgroup_parent.clone()).filter(|path| !path.is_empty()),
            driver,
        };
        let path = holder.cgroups_path()?;
        let cgroup = Cgroup::named(driver, Some(&path), "holder");
        self.found(cgroup, || format!("the holder of pod {}", record.id))
    }

    /// A cgroup without the hierarchies in which it holds this process: whoever was never put into
    /// a cgroup of its own there is in its parent's, which is containerd's.
    fn found(
        &mut self,
        cgroup: cgroup::Result<Cgroup>,
        whose: impl FnOnce() -> String,
    ) -> Option<Cgroup> {
        let own = cgroup_of_self();
        let holds_own = |hierarchy: &String, path: &PathBuf| {
            own.get(hierarchy).is_some_and(|own| own.starts_with(path))
        };
        let foreign = cgroup.and_then(|cgroup| {
            let mut paths = cgroup.paths();
            paths.retain(|hierarchy, path| !holds_own(hierarchy, path));
            Cgroup::at(&paths)
        });
        foreign
            .inspect_err(|error| {
                self.warnings
                    .push(format!("find the cgroup of {}: {error}", whose()));
            })
            .ok()
    }

    /// Kills these processes, and waits until they have ended.
    fn kill(&mut self, processes: impl IntoIterator<Item = Process>) {
        let condemned: Vec<_> = processes.into_iter().filter_map(open).collect();
        self.end(&condemned);
    }

    fn end(&mut self, condemned: &[Pidfd]) {
        for process in condemned {
            // One that has ended by now is what was wanted.
            let _ = process.signal(SIGKILL);
        }
        let deadline = Instant::now() + DEATH;
        for process in condemned {
            if !ended(process, deadline) {
                self.warnings.push(format!(
                    "process {} outlives SIGKILL: see /proc/{}/stack",
                    process.pid, process.pid
                ));
            }
        }
    }

    /// Kills whatever is in the session of a dead shim: the zygote and its jobs stay in it, also
    /// those whose parents are gone. A container's processes leave it before they execute.
    fn kill_session(&mut self, shim: Process) {
        for _ in 0..ROUNDS {
            // A pid is given out anew only when no session bears its number any more.
            if start_time(shim.pid).is_ok_and(|start| start != shim.start_time) {
                return;
            }
            let members: Vec<_> = session(shim.pid)
                .filter_map(|pid| Pidfd::open(pid).ok())
                .collect();
            if members.is_empty() {
                return;
            }
            self.end(&members);
        }
    }

    fn unmount(&mut self, path: &Path) {
        if !path.as_os_str().is_empty() {
            self.attempt(unmount_all(path), || format!("unmount {}", path.display()));
        }
    }

    fn unpin(&mut self, namespace: &Namespace) {
        if let Some(shm) = &namespace.shm {
            self.unmount(shm);
        }
        if namespace.pinned {
            self.unmount(&namespace.path);
            let removed = match fs::remove_file(&namespace.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            self.attempt(removed, || format!("remove {}", namespace.path.display()));
        }
    }
}

/// Whether this process has ended, or does so within `limit`.
#[must_use]
pub(crate) fn ends_within(process: Process, limit: Duration) -> bool {
    open(process).is_none_or(|pidfd| ended(&pidfd, Instant::now() + limit))
}

/// Opens a process if it is still the one on record and has not ended.
fn open(process: Process) -> Option<Pidfd> {
    let pidfd = Pidfd::open(process.pid).ok()?;
    // Read after the pidfd is held: from then on the pid cannot come to mean another process
    // without the pidfd being that of a dead one.
    let same = start_time(process.pid).ok()? == process.start_time;
    (same && !ended(&pidfd, Instant::now())).then_some(pidfd)
}

/// Waits until the process has ended or the deadline has passed.
fn ended(process: &Pidfd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    let mut fds = [PollFd::new(process.fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

/// Every process of the node.
fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The live processes of a session.
fn session(leader: i32) -> impl Iterator<Item = i32> {
    processes().filter(move |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        in_session(&stat, leader)
    })
}

/// The processes of a pinned pid namespace; none if nothing is pinned there.
pub(crate) fn in_pid_namespace(pin: &Path) -> impl Iterator<Item = i32> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let pinned = identity(pin);
    processes().filter(move |pid| {
        pinned.is_some() && identity(Path::new(&format!("/proc/{pid}/ns/pid"))) == pinned
    })
}

/// Whether /proc/PID/stat is that of a member that has not ended: fields 3 and 6, counted behind
/// the name, which may hold anything.
fn in_session(stat: &str, leader: i32) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = fields.split(' ');
    let state = fields.next();
    state != Some("Z") && fields.nth(2).and_then(|id| id.parse().ok()) == Some(leader)
}

/// Whether one container's cgroup is or contains another's.
fn contains(container: &Container, other: &Container) -> bool {
    container.cgroups.iter().any(|(hierarchy, path)| {
        let theirs = other.cgroups.get(hierarchy);
        theirs.is_some_and(|theirs| theirs.starts_with(path))
    })
}

/// Where this process is, as `/proc/PID/cgroup` says; nowhere if that cannot be told.
fn cgroup_of_self() -> BTreeMap<String, PathBuf> {
    fs::read_to_string("/proc/self/cgroup")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (hierarchy, path) = rest.split_once(':')?;
            Some((hierarchy.to_owned(), PathBuf::from(path)))
        })
        .collect()
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    unmount_all(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_behind_the_name() {
        assert!(in_session("7 (a) S b) ) S 1 7 42 0 -1", 42));
        assert!(!in_session("7 (x) S 1 7 43 0 -1", 42));
        assert!(!in_session("7 (x) Z 1 7 42 0 -1", 42), "dead already");
        assert!(!in_session("", 42));
    }

    #[test]
    fn a_later_process_with_the_same_pid_is_not_meant() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = start_time(pid).unwrap();
        assert!(lives(Process {
            pid,
            start_time: own
        }));
        assert!(!lives(Process {
            pid,
            start_time: own - 1
        }));
    }
}
