//! Makes and undoes the sandbox of the Sandbox API, and what any pod keeps for its containers.
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use husk_plugin_host::decide;
use husk_plugin_host::subject::Question;
use husk_sandbox::cgroup::{Cgroup, Stats};
use husk_sandbox::job::Namespaces;
use husk_sandbox::process::{Pidfd, start_time};
use husk_sandbox::rootfs::unmount_all;
use husk_scope::record::{Namespace, Process};
use husk_scope::{Kind, Scope, Scopes};
use nix::libc::SIGKILL;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use serde_json::{Value, json};

use super::clean::remove_dir;
use super::policy::Facts;
use super::{Pod, spec};
use crate::background::blocking;
use crate::background::in_background;
use crate::cleanup::in_pid_namespace;
use crate::failure::Failure;
use crate::sandbox_files::{self, SandboxFiles};
use crate::sync::lock;
use husk_request::cri::{Ids, Mode, SandboxConfig};

/// Of the spec that StartSandbox answers with.
const OCI_VERSION: &str = "1.2.0";

/// What containerd's CRI sets in every pod with a network of its own, unless the pod does
/// (contract 16).
const NETWORK_SYSCTLS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    (PING_GROUPS, "0 2147483647"),
];
const PING_GROUPS: &str = "net.ipv4.ping_group_range";

/// What containerd says of a sandbox that it wants made.
pub(crate) struct NewSandbox {
    pub(crate) config: SandboxConfig,
    /// The network namespace that CRI made; empty for the node's.
    pub(crate) network: PathBuf,
}

/// Makes the sandbox; answers with the holder's pid, 0 without one. After a failure nothing of it
/// is left (contract 21).
pub(super) async fn make(pod: &Arc<Pod>) -> Result<u32, Failure> {
    let made = try_make(pod).await;
    match made {
        Ok(_) => pod.tell_plugins_of_sandbox(Question::SandboxStarted).await,
        Err(_) => {
            if let Err(error) = undo(pod).await {
                log::warn!("a sandbox that could not be made leaves something behind: {error}");
            }
        }
    }
    made
}

async fn try_make(pod: &Arc<Pod>) -> Result<u32, Failure> {
    pod.config()?;
    let new = lock(&pod.new_sandbox)
        .take()
        .ok_or_else(|| Failure::internal("the sandbox's configuration was lost"))?;
    check(&new.config)?;
    describe(pod, &new);
    let facts = Facts {
        requested: requested(&new),
        labels: new.config.labels.clone(),
        annotations: new.config.annotations.clone(),
    };
    let scopes = pod.plan_sandbox(facts).await?.scopes();
    join_network(pod, &new);
    write_files(pod, &new.config)?;
    pod.make_early().await?;
    let kinds = kinds(pod, &scopes);
    let sysctls = sysctls(&new)?;
    lock(&pod.sandbox).sysctls.clone_from(&sysctls);
    let job = Namespaces {
        join: pod.network(),
        hostname: Some(new.config.hostname.clone()).filter(|name| !name.is_empty()),
        sysctls,
        id_mappings: (mappings(&new.config.users), mappings(&new.config.groups)),
        ..Namespaces::default()
    };
    pod.make_for(&Scope::Pod, &kinds, job).await?;
    u32::try_from(lock(&pod.sandbox).pid).map_err(|error| Failure::internal(error.to_string()))
}

fn check(config: &SandboxConfig) -> Result<(), Failure> {
    if config.network == Mode::Node && !config.hostname.is_empty() {
        // As runc does; the kubelet names no such pod.
        return Err(Failure::invalid(format!(
            "the pod's hostname {:?} would be the node's: a pod with the node's network has no UTS \
             namespace of its own; leave the hostname empty",
            config.hostname
        )));
    }
    Ok(())
}

/// The sandbox's scopes, as CRI's own sandbox container would have them.
fn requested(new: &NewSandbox) -> Scopes {
    let NewSandbox { config, .. } = new;
    decide::sandbox_requested(
        config.network == Mode::Pod,
        config.ipc == Mode::Pod,
        config.user == Mode::Pod,
        match config.pid {
            Mode::Pod => Scope::Pod,
            Mode::Node => Scope::Node,
            _ => Scope::Container,
        },
    )
}

/// The kinds of namespace that are made for the sandbox; the network is CRI's.
fn kinds(pod: &Pod, scopes: &Scopes) -> Vec<Kind> {
    let is_missing = |kind: Kind| {
        kind != Kind::Network
            && scopes[kind] == Scope::Pod
            && pod.shared(kind, &Scope::Pod).is_none()
    };
    Kind::ALL
        .into_iter()
        .filter(|kind| is_missing(*kind))
        .collect()
}

/// The pod's sysctls; those of a namespace that is the node's are refused.
fn sysctls(new: &NewSandbox) -> Result<BTreeMap<String, String>, Failure> {
    let config = &new.config;
    for name in config.sysctls.keys() {
        let node = if name.starts_with("net.") {
            config.network == Mode::Node
        } else {
            config.ipc == Mode::Node
        };
        if node {
            return Err(Failure::invalid(format!(
                "the pod's sysctl {name} would change the node: the pod uses the node's namespace"
            )));
        }
    }
    let mut sysctls = config.sysctls.clone();
    if config.network == Mode::Pod {
        for (name, value) in NETWORK_SYSCTLS {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            // A kernel may be built without it, and a user namespace has no such groups: root pings
            // there by CAP_NET_RAW.
            if path.exists() && !(config.user == Mode::Pod && name == PING_GROUPS) {
                sysctls.entry(name.to_owned()).or_insert(value.to_owned());
            }
        }
    }
    Ok(sysctls)
}

/// As a spec has them.
pub(super) fn mappings(ids: &[Ids]) -> Vec<LinuxIdMapping> {
    let mapping = |ids: &Ids| {
        LinuxIdMappingBuilder::default()
            .container_id(ids.inside)
            .host_id(ids.on_the_node)
            .size(ids.count)
            .build()
    };
    // Nothing that has to be said is left out.
    ids.iter().flat_map(mapping).collect()
}

fn describe(pod: &Pod, new: &NewSandbox) {
    let config = &new.config;
    let mut sandbox = lock(&pod.sandbox);
    sandbox.hostname = Some(config.hostname.clone()).filter(|name| !name.is_empty());
    sandbox.cgroup = spec::pod_cgroup(&config.cgroup_parent);
    let cgroup = sandbox.cgroup.clone();
    drop(sandbox);
    pod.record(|record| {
        record.sandbox_api = true;
        record.name = config.name.clone();
        record.kubernetes_namespace = config.namespace.clone();
        record.uid = config.uid.clone();
        record.cgroup_parent = cgroup;
    });
}

/// The network namespace is CRI's: the shim joins it and keeps nothing of it (contract 13).
fn join_network(pod: &Pod, new: &NewSandbox) {
    if new.network.as_os_str().is_empty() {
        return;
    }
    pod.record(|record| {
        record.namespaces.push(Namespace {
            kind: Kind::Network,
            scope: Scope::Pod,
            path: new.network.clone(),
            pinned: false,
            holder: None,
            shm: None,
            ids: None,
        });
    });
}

fn write_files(pod: &Pod, config: &SandboxConfig) -> Result<(), Failure> {
    let dir = pod.store.dir().join(sandbox_files::DIR);
    let write = || {
        let files = SandboxFiles::of(config)?;
        // On record first: what is mounted before a crash of this shim must be found.
        pod.record(|record| record.mounts.push(dir.clone()));
        files.mount_at(&dir)?;
        files.write(&dir)
    };
    let files = write().map_err(|error| {
        let dir = dir.display();
        Failure::internal(format!("cannot write the pod's files to {dir}: {error}"))
    })?;
    lock(&pod.sandbox).files = files;
    Ok(())
}

/// Gives back what the pod keeps for its containers: holders, pins, mounts. May be done again.
pub(super) async fn undo(pod: &Arc<Pod>) -> Result<(), Failure> {
    pod.end_links().await;
    let record = lock(&pod.record).clone();
    pod.forget_namespaces(&record.namespaces).await;
    let left = lock(&pod.record).namespaces.clone();
    if let Some(namespace) = left.first() {
        return Err(Failure::internal(format!(
            "cannot unpin the {} namespace at {}; see the log",
            namespace.kind,
            namespace.path.display()
        )));
    }
    for mount in record.mounts {
        unmount(&mount).await?;
        pod.record(|record| record.mounts.retain(|path| *path != mount));
    }
    Ok(())
}

async fn unmount(path: &Path) -> Result<(), Failure> {
    let (mount, dir) = (path.to_owned(), path.to_owned());
    in_background(move || unmount_all(&mount))
        .await
        .and_then(|()| remove_dir(&dir))
        .map_err(|error| Failure::internal(format!("cannot give back {}: {error}", path.display())))
}

impl Pod {
    /// The network namespace for the sandbox's own namespaces to be made from.
    fn network(&self) -> Vec<(String, PathBuf)> {
        let path = self.shared(Kind::Network, &Scope::Pod);
        path.map(|path| (Kind::Network.proc_name().to_owned(), path))
            .into_iter()
            .collect()
    }

    /// Makes the cgroup namespace at the pod's cgroup, if the configuration wants one, before any
    /// container: cgroup v2 lets no process into a cgroup whose children have controllers.
    pub(super) async fn make_early(self: &Arc<Self>) -> Result<(), Failure> {
        let wanted = (Kind::Cgroup, Scope::Pod);
        if self.config()?.sandbox_kinds().contains(&wanted) {
            self.make_shared(&[wanted]).await?;
        }
        Ok(())
    }

    /// Ends the holders of these namespaces, unpins them and takes them off the record. What
    /// cannot be unpinned stays on it.
    pub(super) async fn forget_namespaces(&self, namespaces: &[Namespace]) {
        for namespace in namespaces {
            if namespace.kind == Kind::Pid && namespace.pinned {
                self.end_holder(namespace).await;
                self.remove_holders_cgroup(namespace).await;
            }
            if namespace.pinned
                && let Err(error) = unpin(&namespace.path).await
            {
                log::warn!("cannot unpin {}: {error}", namespace.path.display());
                continue;
            }
            self.give_back_ids(namespace.ids);
            let is =
                |found: &Namespace| found.kind == namespace.kind && found.scope == namespace.scope;
            self.record(|record| record.namespaces.retain(|found| !is(found)));
        }
    }

    /// Ends the holder, also one that was made just before it could be put on record.
    async fn end_holder(&self, namespace: &Namespace) {
        match self.holder_of(namespace) {
            Some(holder) => kill(holder),
            None => {
                let pin = namespace.path.clone();
                let ended = in_background(move || {
                    for pid in in_pid_namespace(&pin) {
                        // One that has ended by now is what was wanted.
                        let _ = Pidfd::open(pid).and_then(|process| process.signal(SIGKILL));
                    }
                    Ok(())
                });
                if let Err(error) = ended.await {
                    log::warn!("a holder may live on: {error}");
                }
            }
        }
    }

    async fn remove_holders_cgroup(&self, namespace: &Namespace) {
        let holder = self.holder(&namespace.scope, &namespace.path);
        let Some(path) = holder.cgroups_path() else {
            return;
        };
        let removed =
            blocking(move || Cgroup::named(holder.driver, Some(&path), "holder")?.remove());
        if let Err(error) = removed.await {
            log::warn!("the holder's cgroup stays: {error}");
        }
    }

    /// As the record has it now: the namespace may be from before its holder was made.
    fn holder_of(&self, namespace: &Namespace) -> Option<Process> {
        lock(&self.record)
            .namespaces
            .iter()
            .find(|found| found.kind == namespace.kind && found.scope == namespace.scope)
            .and_then(|found| found.holder)
    }

    /// The numbers of the pod's cgroup (contract 20).
    pub(crate) async fn sandbox_stats(&self) -> Result<Stats, Failure> {
        let (path, driver) = self.pod_cgroup();
        if path.is_empty() {
            return Err(Failure::precondition(
                "the pod has no cgroup of its own: its configuration names no cgroup_parent",
            ));
        }
        let id = self.id.clone();
        blocking(move || Cgroup::named(driver, Some(&path), &id)?.stats()).await
    }

    /// Asks for a sandbox.
    pub(crate) async fn create_sandbox(
        self: &Arc<Self>,
        new: NewSandbox,
    ) -> Result<super::state::Reply, Failure> {
        let adopt = || *lock(&self.new_sandbox) = Some(new);
        self.ask_and(super::state::Request::CreateSandbox, adopt)
            .await
    }

    /// What the sandbox's containers share, as an OCI runtime spec: the paths of its namespaces, its
    /// sysctls, and its files as mounts.
    ///
    /// Of a sandbox without a process, containerd cannot tell the namespaces by a pid: releases to
    /// come take their paths from here (containerd pull requests 14123 and 14135). Those before
    /// write /proc/0/ns/..., which means the same here (contract 14).
    pub(crate) fn sandbox_spec(&self) -> Value {
        let sandbox = lock(&self.sandbox).clone();
        let record = lock(&self.record);
        let shared = record
            .namespaces
            .iter()
            .filter(|namespace| namespace.scope == Scope::Pod);
        let shm = shared
            .clone()
            .filter_map(|namespace| Some((PathBuf::from("/dev/shm"), namespace.shm.clone()?)));
        let mounts: Vec<_> = sandbox
            .files
            .into_iter()
            .chain(shm)
            .map(|(destination, source)| {
                json!({
                    "destination": destination,
                    "type": "bind",
                    "source": source,
                    "options": ["rbind", "rprivate", "rw"],
                })
            })
            .collect();
        let namespaces: Vec<_> = shared
            .map(|namespace| json!({"type": namespace.kind.to_string(), "path": namespace.path}))
            .collect();
        json!({
            "ociVersion": OCI_VERSION,
            "hostname": sandbox.hostname.unwrap_or_default(),
            "mounts": mounts,
            "linux": {"namespaces": namespaces, "sysctl": sandbox.sysctls},
        })
    }

    /// When the pod was made, in milliseconds since 1970.
    pub(crate) fn created_ms(&self) -> u64 {
        lock(&self.record).created_ms
    }
}

fn kill(holder: Process) {
    // Another process may have come to have its pid.
    if start_time(holder.pid).is_ok_and(|start| start == holder.start_time)
        && let Ok(pidfd) = Pidfd::open(holder.pid)
    {
        let _ = pidfd.signal(SIGKILL);
    }
}

async fn unpin(path: &Path) -> io::Result<()> {
    let (mount, file) = (path.to_owned(), path.to_owned());
    in_background(move || {
        unmount_all(&mount)?;
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_that_would_be_the_nodes_is_refused() {
        let with = |network, hostname: &str| {
            check(&SandboxConfig {
                network,
                hostname: hostname.to_owned(),
                user: Mode::Node,
                ..SandboxConfig::default()
            })
        };
        assert!(with(Mode::Pod, "web").is_ok());
        assert!(with(Mode::Node, "").is_ok());
        let refused = with(Mode::Node, "web").unwrap_err();
        assert!(refused.message.contains("web"), "{refused}");
    }
}
