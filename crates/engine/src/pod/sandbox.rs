//! The sandbox of a pod: by the shim's Sandbox API, or by a pause container.
use std::fs;
use std::path::{Path, PathBuf};

use super::{Engine, Error, PAUSE, Record, files};
use crate::manifest::Pod;
use crate::shim::{NamespaceMode, PodSandboxConfig, RuntimeOptions, Shim, Start, Stdio};
use crate::spec;

/// A sandbox that runs.
pub(super) struct Sandbox {
    pub(super) shim: Shim,
    /// The pid under which its namespaces are named.
    pub(super) pid: u32,
    /// Whether the shim's Sandbox API made it.
    pub(super) api: bool,
}

/// Starts the shim and the sandbox.
///
/// A shim without the Sandbox API is recognised by its answer Unimplemented, or by a `start` that
/// fails without a config.json, which only the pause way writes.
pub(super) async fn start(
    engine: &Engine,
    pod: &Pod,
    record: &Record,
    events: &str,
) -> Result<Sandbox, Error> {
    let bundle = engine.paths.bundle(&record.id, &record.id);
    fs::create_dir_all(bundle.join("rootfs")).map_err(Error::io("make", &bundle))?;
    let start = command(engine, &record.id, bundle.clone(), events);
    match start.run().await {
        Ok(shim) => match by_api(pod, record, &bundle, &shim).await {
            Ok(pid) => {
                return Ok(Sandbox {
                    shim,
                    pid,
                    api: true,
                });
            }
            Err(error) if error.is_unimplemented() => {
                log::debug!(
                    "{} has no Sandbox API: {error}",
                    engine.shim.path().display()
                );
                write_pause(engine, pod, record, &bundle)?;
                return by_pause(shim, record, &bundle, &start).await;
            }
            Err(error) => return Err(failed(shim, record, &start, error).await),
        },
        Err(error) => {
            log::debug!(
                "starting {} for a sandbox: {error}",
                engine.shim.path().display()
            );
        }
    }
    write_pause(engine, pod, record, &bundle)?;
    let shim = start.run().await.map_err(Error::Sandbox)?;
    by_pause(shim, record, &bundle, &start).await
}

/// What starts the engine's shim for `id`.
pub(super) fn command(engine: &Engine, id: &str, bundle: PathBuf, events: &str) -> Start {
    let options = engine
        .config
        .clone()
        .map(|config_path| RuntimeOptions { config_path }.to_any());
    Start {
        binary: engine.shim.clone(),
        id: id.to_owned(),
        bundle,
        events: events.to_owned(),
        options,
        debug: engine.debug,
    }
}

async fn by_api(
    pod: &Pod,
    record: &Record,
    bundle: &Path,
    shim: &Shim,
) -> Result<u32, crate::shim::Error> {
    let config = config(pod, record).to_any();
    shim.sandbox()
        .create(&record.id, bundle, record.netns.as_deref(), config)
        .await?;
    shim.sandbox().start(&record.id).await
}

/// Undoes what a failed start left and gives the error back.
async fn failed(shim: Shim, record: &Record, start: &Start, error: crate::shim::Error) -> Error {
    let undone = shim.sandbox().shutdown(&record.id).await;
    if let Err(undoing) = undone.and(start.delete().await) {
        log::warn!("undoing the sandbox of pod {}: {undoing}", record.name);
    }
    Error::Sandbox(error)
}

fn config(pod: &Pod, record: &Record) -> PodSandboxConfig {
    let dns = files::for_the_shim(&pod.dns);
    let node = |node: bool| {
        if node {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
    };
    PodSandboxConfig {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        hostname: if pod.host_network {
            String::new()
        } else {
            pod.hostname.clone()
        },
        dns_servers: dns.servers,
        dns_searches: dns.searches,
        dns_options: dns.options,
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        cgroup_parent: record.cgroup.clone().unwrap_or_default(),
        network: node(pod.host_network),
        pid: if pod.host_pid || pod.share_process_namespace {
            node(pod.host_pid)
        } else {
            NamespaceMode::Container
        },
        ipc: node(pod.host_ipc),
        sysctls: pod.sysctls.clone(),
    }
}

/// The pause program's file in its container.
const PAUSE_FILE: &str = "/pause";

fn write_pause(engine: &Engine, pod: &Pod, record: &Record, bundle: &Path) -> Result<(), Error> {
    // The program may need the node's loader and libraries.
    let libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let libraries = libraries.into_iter().filter(|path| path.is_dir());
    let mut binds: Vec<_> = libraries.map(|path| (path.clone(), path)).collect();
    binds.push((engine.pause.clone(), PathBuf::from(PAUSE_FILE)));
    let cgroup = record.cgroup.as_deref().unwrap_or_default();
    let netns = record.netns.as_deref();
    let in_spec = |source| Error::Spec {
        container: String::from("pause"),
        source,
    };
    let spec = spec::pause(pod, &record.id, cgroup, netns, &[PAUSE_FILE, PAUSE], &binds)
        .map_err(in_spec)?;
    write_spec(&spec, bundle)
}

/// Writes a bundle's config.json.
pub(super) fn write_spec(spec: &oci_spec::runtime::Spec, bundle: &Path) -> Result<(), Error> {
    let file = bundle.join("config.json");
    let text = serde_json::to_vec(spec).map_err(|error| Error::io("write", &file)(error.into()))?;
    fs::write(&file, text).map_err(Error::io("write", &file))
}

async fn by_pause(
    shim: Shim,
    record: &Record,
    bundle: &Path,
    start: &Start,
) -> Result<Sandbox, Error> {
    let task = shim.task();
    let made = async {
        task.create(&record.id, bundle, Vec::new(), &Stdio::default(), None)
            .await?;
        task.start(&record.id, "").await
    };
    match made.await {
        Ok(pid) => Ok(Sandbox {
            shim,
            pid,
            api: false,
        }),
        Err(error) => {
            let undone = task.shutdown(&record.id).await;
            if let Err(undoing) = undone.and(start.delete().await) {
                log::warn!("undoing the sandbox of pod {}: {undoing}", record.name);
            }
            Err(Error::Sandbox(error))
        }
    }
}
