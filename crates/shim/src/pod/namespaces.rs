//! Makes the namespaces that the pod's containers share.
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use husk_request::cri;
use husk_sandbox::job::{Holder, Job, Namespaces};
use husk_sandbox::process::start_time;
use husk_scope::record::{Namespace, Process};
use husk_scope::{Ids, Kind, Plan, Scope};

use super::sandbox::mappings;
use super::{Pod, spec, watch};
use crate::failure::Failure;
use crate::sync::lock;
use crate::{ids, sandbox_files};

/// What the sandbox is made of, beside the namespaces on record.
#[derive(Clone, Debug, Default)]
pub(super) struct Sandbox {
    /// The pause container of podsandbox mode.
    pub(super) container: Option<String>,
    /// The holder's pid, with the Sandbox API; 0 without one.
    pub(super) pid: i32,
    /// The pod's host name.
    pub(super) hostname: Option<String>,
    /// The pod's cgroup, as a spec would name it; empty if it is not known.
    pub(super) cgroup: String,
    /// Files to mount into each container: destination and source (contract 15).
    pub(super) files: Vec<(PathBuf, PathBuf)>,
    /// Sysctls of its namespaces.
    pub(super) sysctls: BTreeMap<String, String>,
}

impl Pod {
    /// Makes the shared namespaces that a plan wants and the pod does not have yet.
    pub(super) async fn make_missing(self: &Arc<Self>, plan: &Plan) -> Result<(), Failure> {
        let changed: Vec<_> = plan
            .iter()
            .filter(|(_, planned)| planned.is_changed())
            .filter(|(_, planned)| matches!(planned.scope, Scope::Pod | Scope::Group(_)))
            .map(|(kind, planned)| (kind, planned.scope.clone()))
            .collect();
        self.make_shared(&changed).await
    }

    /// Makes those of these namespaces that the pod does not have yet.
    pub(super) async fn make_shared(
        self: &Arc<Self>,
        wanted: &[(Kind, Scope)],
    ) -> Result<(), Failure> {
        let _sharing = self.sharing.lock().await;
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(kind, scope)| self.shared(*kind, scope).is_none())
            .collect();
        let mut scopes: Vec<&Scope> = Vec::new();
        for (_, scope) in &missing {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        for scope in scopes {
            let kinds: Vec<_> = missing
                .iter()
                .filter(|(_, of)| of == scope)
                .map(|(kind, _)| *kind)
                .collect();
            self.make_for(scope, &kinds, Namespaces::default()).await?;
        }
        Ok(())
    }

    /// Makes namespaces of one scope: first those that can be made and pinned at once, then the
    /// pid namespace, whose holder joins the others. `job` says what else to do in them.
    pub(super) async fn make_for(
        self: &Arc<Self>,
        scope: &Scope,
        kinds: &[Kind],
        mut job: Namespaces,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::internal(format!("cannot make room for {scope} namespaces: {error}"))
        };
        let pins = self.store.dir().join("ns");
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&pins)
            .map_err(failed)?;
        let mut made = Vec::new();
        for kind in kinds {
            let path = pins.join(format!("{}{}", kind.proc_name(), suffix(scope)));
            let ids = match (kind, scope) {
                (Kind::User, Scope::Group(_)) => Some(self.take_ids()?),
                _ => None,
            };
            let shm = match kind {
                Kind::Ipc => Some(self.make_shm(scope)?),
                _ => None,
            };
            made.push(Namespace {
                kind: *kind,
                scope: scope.clone(),
                path,
                pinned: true,
                holder: None,
                shm,
                ids,
            });
        }
        // On record first: what is made after a crash of this shim must be found.
        self.record(|record| record.namespaces.extend(made.iter().cloned()));
        let result = self.run_jobs(scope, &made, &mut job).await;
        if result.is_err() {
            self.forget_namespaces(&made).await;
        }
        result
    }

    async fn run_jobs(
        self: &Arc<Self>,
        scope: &Scope,
        made: &[Namespace],
        job: &mut Namespaces,
    ) -> Result<(), Failure> {
        let of_kind = |kind| made.iter().find(|namespace| namespace.kind == kind);
        job.make = made
            .iter()
            .filter(|namespace| namespace.kind != Kind::Pid)
            .map(|namespace| {
                (
                    namespace.kind.proc_name().to_owned(),
                    namespace.path.clone(),
                )
            })
            .collect();
        if let Some(ids) = of_kind(Kind::User).and_then(|user| user.ids) {
            let ids = mappings(&[cri::Ids {
                inside: 0,
                on_the_node: ids.first,
                count: ids.count,
            }]);
            job.id_mappings = (ids.clone(), ids);
        }
        if of_kind(Kind::Cgroup).is_some() {
            let (cgroup, driver) = self.pod_cgroup();
            job.cgroup = Some(cgroup).filter(|path| !path.is_empty());
            job.driver = driver;
        }
        if of_kind(Kind::Uts).is_some() && job.hostname.is_none() {
            job.hostname = lock(&self.sandbox).hostname.clone();
        }
        if of_kind(Kind::Time).is_some() {
            job.time_offsets = self.offsets()?;
        }
        job.loopback = of_kind(Kind::Network).is_some();
        if !job.make.is_empty() || !job.sysctls.is_empty() {
            self.jobs.run(Job::Namespaces(job.clone())).await?;
        }
        match of_kind(Kind::Pid) {
            Some(pid) => self.make_holder(scope, pid).await,
            None => Ok(()),
        }
    }

    async fn make_holder(
        self: &Arc<Self>,
        scope: &Scope,
        namespace: &Namespace,
    ) -> Result<(), Failure> {
        let holder = self.holder(scope, &namespace.path);
        let done = self.jobs.run(Job::Holder(holder)).await?;
        let pidfd = done
            .process
            .ok_or_else(|| Failure::internal("the zygote made no holder"))?;
        let pid = pidfd.pid;
        let process = start_time(pid)
            .ok()
            .map(|start_time| Process { pid, start_time });
        self.record(|record| {
            for found in &mut record.namespaces {
                if found.kind == Kind::Pid && found.scope == *scope {
                    found.holder = process;
                }
            }
        });
        if *scope == Scope::Pod {
            lock(&self.sandbox).pid = pid;
            watch::holder(self, Arc::new(pidfd));
        } else {
            watch::reap(self, Arc::new(pidfd));
        }
        Ok(())
    }

    /// The holder of the pid namespace that is pinned here.
    pub(super) fn holder(&self, scope: &Scope, pin: &Path) -> Holder {
        // With all of them /proc/HOLDER/ns/*, which CRI writes into specs, leads to the pod's.
        let join = [Kind::User, Kind::Network, Kind::Ipc, Kind::Uts]
            .into_iter()
            .filter_map(|kind| Some((kind.proc_name().to_owned(), self.shared(kind, scope)?)))
            .collect();
        let (cgroup, driver) = self.pod_cgroup();
        Holder {
            pin: pin.to_owned(),
            join,
            cgroup: Some(cgroup).filter(|path| !path.is_empty()),
            driver,
        }
    }

    /// A range of ids that is this pod's until it is given back.
    pub(super) fn take_ids(&self) -> Result<Ids, Failure> {
        ids::take(self.config()?.users, self.store.dir()).map_err(|error| {
            Failure::internal(format!("cannot give a user namespace its ids: {error}"))
        })
    }

    /// Gives back a range of ids that nobody has any more.
    pub(super) fn give_back_ids(&self, ids: Option<Ids>) {
        if let Some(ids) = ids
            && let Err(error) = ids::give_back(ids, self.store.dir())
        {
            log::warn!("the ids from {} on stay taken: {error}", ids.first);
        }
    }

    fn make_shm(&self, scope: &Scope) -> Result<PathBuf, Failure> {
        let shm = self.store.dir().join(format!("shm{}", suffix(scope)));
        if lock(&self.record).mounts.contains(&shm) {
            // From an earlier try, which failed later on.
            return Ok(shm);
        }
        self.record(|record| record.mounts.push(shm.clone()));
        sandbox_files::mount_shm(&shm).map_err(|error| {
            Failure::internal(format!("cannot mount the pod's {}: {error}", shm.display()))
        })?;
        Ok(shm)
    }

    fn offsets(&self) -> Result<BTreeMap<String, (i64, u32)>, Failure> {
        let offsets = self.config()?.offsets;
        Ok(offsets
            .iter()
            .map(|(clock, offset)| (clock.to_owned(), (offset.secs, offset.nanosecs)))
            .collect())
    }

    /// The pod's cgroup, as a spec would name it, and who makes it.
    pub(super) fn pod_cgroup(&self) -> (String, husk_sandbox::cgroup::Driver) {
        let cgroup = lock(&self.sandbox).cgroup.clone();
        let driver = self.driver(&cgroup);
        (cgroup, driver)
    }

    /// Who makes this cgroup: its form says so, else the handler.
    pub(super) fn driver(&self, cgroups_path: &str) -> husk_sandbox::cgroup::Driver {
        use husk_sandbox::cgroup::Driver;
        match self.handler.systemd_cgroup {
            Some(true) => Driver::Systemd,
            _ => Driver::of(cgroups_path),
        }
    }

    /// Learns what a container's spec says about its pod.
    pub(super) fn learn(&self, bundle: &spec::Bundle, id: &str) {
        let mut sandbox = lock(&self.sandbox);
        if bundle.is_sandbox() {
            sandbox.container = Some(id.to_owned());
        }
        if sandbox.cgroup.is_empty() {
            sandbox.cgroup = spec::parent_cgroup(&bundle.cgroups_path());
        }
        if sandbox.hostname.is_none() {
            let pod = bundle.annotation(spec::HUSK_POD).map(str::to_owned);
            sandbox.hostname = pod.or_else(|| bundle.spec.hostname().clone());
        }
    }
}

/// Tells the files of one group from those of the pod and of other groups.
fn suffix(scope: &Scope) -> String {
    let Scope::Group(name) = scope else {
        return String::new();
    };
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("-{hex}")
}
