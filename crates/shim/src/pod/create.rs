//! Makes a container's init, and lets it execute.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use husk_plugin_host::{decide, subject};
use husk_sandbox::cgroup::Cgroup;
use husk_sandbox::error::JobError;
use husk_sandbox::hooks::{self, Hooks};
use husk_sandbox::job::{Create, Done, Inherited, Job, Stdio};
use husk_sandbox::process::{Pidfd, start_time};
use husk_scope::links::Link;
use husk_scope::record::{Container as Recorded, Status};
use husk_scope::{Assignment, Kind, Plan, RequestError, Scope, Scopes, requested};
use log::warn;
use oci_spec::runtime::{Mount, MountBuilder, Spec};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::container::{Container, Known, Made as MadeProcess, Process};
use super::policy::{Facts, LINK_CONTAINER, SCOPE_CONTAINER, SCOPE_SANDBOX};
use super::spec::{Bundle, HUSK_POD};
use super::state::{Made, ProcessId};
use super::view::View;
use super::{Pod, clean, names, watch};
use crate::failure::Failure;
use crate::io::{Ends, Logger};
use crate::sandbox_files;
use crate::store::write_atomic;
use crate::sync::lock;

/// What containers that name the same pod by annotation share, as in Kubernetes.
const SHARED_BY_ANNOTATION: [Kind; 3] = [Kind::Network, Kind::Ipc, Kind::Uts];

/// Makes a container. After a failure nothing of it is left.
pub(super) async fn make(pod: &Arc<Pod>, id: &str) -> Result<Made, Failure> {
    let container = pod.existing(id)?;
    let made = try_make(pod, &container).await;
    if made.is_err() {
        clean::failed_create(pod, &container).await;
    }
    made
}

async fn try_make(pod: &Arc<Pod>, container: &Arc<Container>) -> Result<Made, Failure> {
    let mut bundle = Bundle::load(&container.bundle)?;
    pod.learn(&bundle, &container.id);
    let requested = asked(pod, container, &bundle)?;
    let sandbox = admit_sandbox(pod, container, &bundle, &requested).await?;
    // The configuration's scopes and the plugins' are for containers: the pause container is the
    // sandbox.
    let (plan, links) = if bundle.is_sandbox() {
        let plan = plan_of_pause(pod, container, &requested, sandbox.as_ref())?;
        (plan, Vec::new())
    } else {
        let seen = pod.seen_by_plugins(container, &bundle, &requested).await?;
        let plan = plan(pod, container, &bundle, &requested, seen.as_ref()).await?;
        let links = links(pod, container, &bundle, seen.as_ref()).await?;
        if let Some(seen) = seen {
            pod.edited_by_plugins(container, &mut bundle, seen).await?;
        }
        (plan, links)
    };
    let known = known(pod, container, &bundle, plan, links)?;
    record(pod, container, &bundle, &known);
    if bundle.is_sandbox() {
        pod.make_early().await?;
        let cgroup = sandbox.as_ref().map(|plan| &plan.get(Kind::Cgroup).scope);
        if cgroup == Some(&Scope::Pod) {
            // The pause container's own would show its own cgroup, not the pod's.
            pod.make_shared(&[(Kind::Cgroup, Scope::Pod)]).await?;
        }
    }
    pod.make_missing(&known.plan).await?;
    if let Err(failure) = pod.admit_links(&known) {
        let name = Some(known.name.clone());
        return Err(pod.refused(LINK_CONTAINER, name, None, failure).await);
    }
    edit(pod, container, &mut bundle, &known)?;
    let loopback = known.plan.get(Kind::Network).scope == Scope::Container;
    let shares_pids = !known.plan.owns_pid_namespace();
    let hooks = |kind| Hooks::of(&bundle.spec, kind, &container.id, &container.bundle);
    let known = Known {
        shm: bundle.shm(),
        poststart: hooks(hooks::Kind::Poststart),
        poststop: hooks(hooks::Kind::Poststop),
        ..known
    };
    let (stdio, ends) = open_io(pod, container, &container.init).await?;
    let job = Create {
        id: container.id.clone(),
        bundle: container.bundle.clone(),
        dir: container.dir.clone(),
        rootfs: known.rootfs.clone(),
        mounts: container.mounts.clone(),
        maps_rootfs: known.plan.get(Kind::User).is_changed(),
        stdio,
        driver: known.driver,
        loopback,
    };
    let named = known.named_cgroup.clone();
    // Kept from here on, so that a failure is undone with it.
    let _ = container.known.set(known);
    let done = pod.jobs.run(Job::Create(job)).await?;
    let pid = adopt(container, done, ends, named)?;
    // Before it is started: its ports are there when its program looks for them.
    pod.make_links_of(container).await?;
    arm_oom_watch(pod, container);
    watch_init(pod, container);
    Ok(Made { pid, shares_pids })
}

/// Whose namespaces the container asks for.
fn asked(pod: &Pod, container: &Container, bundle: &Bundle) -> Result<Scopes, Failure> {
    pod.config()?;
    let view = View {
        pod,
        is_first: bundle.is_sandbox() || container.id == pod.id,
        ids: None,
    };
    requested(&bundle.spec, &view).map_err(|error| match error {
        RequestError::Unknown { .. } => Failure::not_found(explained(container, &error)),
        _ => Failure::invalid(explained(container, &error)),
    })
}

/// Without the Sandbox API the pod's first container is the sandbox, or brings it along. The answer
/// is the sandbox's plan, for the pause container that is it.
async fn admit_sandbox(
    pod: &Pod,
    container: &Container,
    bundle: &Bundle,
    requested: &Scopes,
) -> Result<Option<Plan>, Failure> {
    if lock(&pod.record).sandbox_api || !(bundle.is_sandbox() || container.id == pod.id) {
        return Ok(None);
    }
    let mut scopes = Scopes::all(&Scope::Pod);
    for (kind, scope) in requested.iter().filter(|(_, scope)| **scope == Scope::Node) {
        scopes[kind] = scope.clone();
    }
    scopes[Kind::Mount] = Scope::Container;
    let annotations = bundle.spec.annotations().iter().flatten();
    let facts = Facts {
        requested: scopes,
        labels: BTreeMap::new(),
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    };
    if bundle.is_sandbox() {
        return pod.plan_sandbox(facts).await.map(Some);
    }
    let scopes = facts.requested.clone();
    let assigned = pod.ask_about_sandbox(facts).await?;
    match assigned.iter().find(|it| it.scope != scopes[it.kind]) {
        Some(Assignment { kind, scope, by }) => {
            let failure = Failure::invalid(format!(
                "{by} wants {kind} to be {scope} for the sandbox of pod {}, which its first \
                 container brings along as it is: let the plugin scope the container, or run the \
                 pod over CRI",
                pod.id
            ));
            Err(pod.refused(SCOPE_SANDBOX, None, None, failure).await)
        }
        None => Ok(None),
    }
}

/// What the sandbox's plan means for the pause container: what the sandbox has, is its own.
fn assigned_to_pause(sandbox: &Plan) -> Vec<Assignment> {
    sandbox
        .iter()
        .filter(|(kind, planned)| planned.is_changed() && *kind != Kind::Cgroup)
        .map(|(kind, planned)| Assignment {
            kind,
            scope: match planned.scope {
                Scope::Pod => Scope::Container,
                _ => planned.scope.clone(),
            },
            by: planned.by.clone(),
        })
        .collect()
}

/// Whose namespaces the pause container gets.
fn plan_of_pause(
    pod: &Pod,
    container: &Container,
    requested: &Scopes,
    sandbox: Option<&Plan>,
) -> Result<Plan, Failure> {
    let config = pod.config()?;
    let assigned = sandbox.map(assigned_to_pause).unwrap_or_default();
    Plan::new(requested, &assigned, &config.ceiling)
        .map(|plan| plan.with_offsets(config.offsets))
        .map_err(|error| Failure::invalid(explained(container, &error)))
}

/// Decides whose namespaces the container gets; `seen` is what the plugins are asked about.
async fn plan(
    pod: &Pod,
    container: &Container,
    bundle: &Bundle,
    requested: &Scopes,
    seen: Option<&subject::Container>,
) -> Result<Plan, Failure> {
    let config = pod.config()?;
    let name = bundle.name(&container.id);
    let by_plugins = match seen {
        Some(seen) => pod.assigned_by_plugins(seen).await?,
        None => Vec::new(),
    };
    let otherwise = assigned_by_annotation(bundle, requested);
    match decide::container_plan(config, &name, requested, by_plugins, otherwise) {
        Ok(plan) => Ok(plan),
        Err(error) => {
            let failure = Failure::invalid(explained(container, &error));
            Err(pod
                .refused(SCOPE_CONTAINER, Some(name), seen, failure)
                .await)
        }
    }
}

/// Decides which links the container has.
async fn links(
    pod: &Pod,
    container: &Container,
    bundle: &Bundle,
    seen: Option<&subject::Container>,
) -> Result<Vec<Link>, Failure> {
    let by_plugins = match seen {
        Some(seen) => pod.linked_by_plugins(seen).await?,
        None => Vec::new(),
    };
    let name = bundle.name(&container.id);
    match decide::container_links(pod.config()?, &name, by_plugins) {
        Ok(links) => Ok(links),
        Err(error) => {
            let failure = Failure::invalid(error.to_string());
            Err(pod.refused(LINK_CONTAINER, Some(name), seen, failure).await)
        }
    }
}

/// Containers that name a pod share what Kubernetes' pods share, where the container asked for one
/// of its own.
fn assigned_by_annotation(bundle: &Bundle, requested: &Scopes) -> Vec<Assignment> {
    if bundle.annotation(HUSK_POD).is_none() || bundle.is_kubernetes() {
        return Vec::new();
    }
    SHARED_BY_ANNOTATION
        .into_iter()
        .filter(|kind| requested[*kind] == Scope::Container)
        .map(|kind| Assignment {
            kind,
            scope: Scope::Pod,
            by: format!("annotation {HUSK_POD}"),
        })
        .collect()
}

fn known(
    pod: &Pod,
    container: &Container,
    bundle: &Bundle,
    plan: Plan,
    links: Vec<Link>,
) -> Result<Known, Failure> {
    let cgroups_path = bundle.cgroups_path();
    let driver = pod.driver(&cgroups_path);
    let user = plan.get(Kind::User);
    let has_own_users = user.is_changed() && user.scope == Scope::Container;
    Ok(Known {
        name: bundle.name(&container.id),
        links,
        ids: has_own_users.then(|| pod.take_ids()).transpose()?,
        plan,
        rootfs: bundle.rootfs(!container.mounts.is_empty()),
        named_cgroup: Cgroup::named(driver, Some(&cgroups_path), &container.id).ok(),
        driver,
        cgroups_path,
        inherited: Inherited::of(&container.id, bundle.dir(), &bundle.spec),
        shm: None,
        poststart: None,
        poststop: None,
    })
}

/// Puts the container on record, before anything of it exists.
fn record(pod: &Pod, container: &Container, bundle: &Bundle, known: &Known) {
    let annotation = |name| bundle.annotation(name).unwrap_or_default().to_owned();
    let cgroup_parent = pod.pod_cgroup().0;
    pod.record(|record| {
        if record.name.is_empty() {
            record.name = match annotation("io.kubernetes.cri.sandbox-name") {
                name if name.is_empty() => annotation(HUSK_POD),
                name => name,
            };
            record.kubernetes_namespace = annotation("io.kubernetes.cri.sandbox-namespace");
            record.uid = annotation("io.kubernetes.cri.sandbox-uid");
        }
        if record.cgroup_parent.is_empty() {
            record.cgroup_parent = cgroup_parent;
        }
        record.containers.push(Recorded {
            id: container.id.clone(),
            name: known.name.clone(),
            bundle: container.bundle.clone(),
            rootfs: known.rootfs.clone(),
            dir: container.dir.clone(),
            status: Status::Creating,
            init: None,
            execs: BTreeMap::new(),
            cgroups: known
                .named_cgroup
                .as_ref()
                .map(Cgroup::paths)
                .unwrap_or_default(),
            cgroups_path: known.cgroups_path.clone(),
            plan: known.plan.clone(),
            ids: known.ids,
            exit: None,
        });
    });
}

/// Makes the spec do what the plan says, and writes it where the zygote reads it.
fn edit(
    pod: &Pod,
    container: &Container,
    bundle: &mut Bundle,
    known: &Known,
) -> Result<(), Failure> {
    let view = View {
        pod,
        is_first: false,
        ids: known.ids,
    };
    let spec = Arc::make_mut(&mut bundle.spec);
    known.plan.edit(spec, &view).map_err(|error| match error {
        husk_scope::EditError::NoNamespace { .. } => {
            Failure::not_found(explained(container, &error))
        }
        _ => Failure::invalid(explained(container, &error)),
    })?;
    inject(spec, &lock(&pod.sandbox).files);
    if let Some(process) = spec.process_mut() {
        // The request says what containerd opens, whatever the spec says.
        process.set_terminal(Some(container.init.io.stdio().terminal));
    }
    let root = spec.root_mut().as_mut();
    let root = root.ok_or_else(|| {
        Failure::invalid(format!("container {}: the spec has no root", container.id))
    })?;
    root.set_path(known.rootfs.clone());
    make_dir(&container.dir)
        .and_then(|()| {
            let owners = [pod.id.as_str(), container.id.as_str(), sandbox_files::DIR];
            names::give(&container.dir, spec, &known.plan, &known.links, &owners)
        })
        .and_then(|()| write(&container.dir, spec))
        .map_err(|error| {
            let dir = container.dir.display();
            Failure::internal(format!("cannot write the spec to {dir}: {error}"))
        })
}

/// Mounts the pod's files where the spec mounts nothing (contract 15).
fn inject(spec: &mut Spec, files: &[(PathBuf, PathBuf)]) {
    let read_only = spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly().unwrap_or(false));
    let mode = if read_only { "ro" } else { "rw" };
    for (destination, source) in files {
        let mounts = spec.mounts_mut().get_or_insert_default();
        let taken = |mount: &Mount| mount.destination() == destination;
        if mounts.iter().any(taken) {
            continue;
        }
        let mount = MountBuilder::default()
            .destination(destination)
            .typ("bind")
            .source(source)
            .options(["rbind", "rprivate", mode].map(str::to_owned))
            .build();
        mounts.extend(mount);
    }
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(dir)
}

fn write(dir: &Path, spec: &Spec) -> std::io::Result<()> {
    let text = serde_json::to_vec(spec)?;
    write_atomic(&dir.join("config.json"), &text)
}

/// Opens the process's stdio, with its logging binary if it has one.
pub(super) async fn open_io(
    pod: &Pod,
    container: &Container,
    process: &Process,
) -> Result<(Stdio, Ends), Failure> {
    let start_logger = async |binary: &_| {
        Logger::start(binary, &pod.children, &container.id, &pod.namespace).await
    };
    process.io.open(start_logger).await
}

/// Keeps what the zygote made, and begins to copy its output.
fn adopt(
    container: &Container,
    done: Done,
    ends: Ends,
    named: Option<Cgroup>,
) -> Result<u32, Failure> {
    let id = ProcessId::init(&container.id);
    let pid = done.process.as_ref().map_or(0, |process| process.pid);
    let cgroup = Cgroup::of(pid).ok().or(named);
    if cgroup.is_none() {
        warn!("{id} has no cgroup that husk can see: no limits, numbers or clean kill");
    }
    let made = keep(&id, &container.init, done.process, cgroup)?;
    *lock(&container.started) = done.started;
    container.init.io.start(ends, done.console)?;
    Ok(made.pidfd.pid.unsigned_abs())
}

/// Keeps a process that was made.
pub(super) fn keep<'a>(
    id: &ProcessId,
    process: &'a Process,
    made: Option<Pidfd>,
    cgroup: Option<Cgroup>,
) -> Result<&'a MadeProcess, Failure> {
    let pidfd = made.ok_or_else(|| Failure::internal(format!("the zygote made no {id}")))?;
    // An unreaped process keeps its entry in /proc, and its pid.
    let start_time = start_time(pidfd.pid).unwrap_or_default();
    Ok(process.made.get_or_init(|| MadeProcess {
        pidfd: Arc::new(pidfd),
        start_time,
        cgroup,
    }))
}

/// Before Start, so that no kill goes unseen (contract 38).
fn arm_oom_watch(pod: &Arc<Pod>, container: &Arc<Container>) {
    let armed = container
        .cgroup()
        .and_then(|cgroup| cgroup.watch_oom().map_err(Failure::from));
    match armed {
        Ok(watch) => watch::out_of_memory(pod, container, watch),
        Err(error) => warn!("memory kills go unseen: {error}"),
    }
}

fn watch_init(pod: &Arc<Pod>, container: &Arc<Container>) {
    if let Some(pidfd) = container.init.pidfd() {
        let id = ProcessId::init(&container.id);
        watch::exit(pod, container, id, Arc::clone(pidfd));
    }
}

/// Lets init execute, and waits until it has.
pub(super) async fn start(pod: &Pod, id: &str) -> Result<(), Failure> {
    let container = pod.existing(id)?;
    let started = lock(&container.started).take();
    husk_sandbox::start(&container.dir).map_err(|error| {
        Failure::internal(format!(
            "cannot start container {id}: its init is gone: {error}"
        ))
    })?;
    let Some(started) = started else {
        return Ok(());
    };
    let reason = read_all(started).await.map_err(|error| {
        Failure::internal(format!(
            "cannot learn whether container {id} started: {error}"
        ))
    })?;
    refusal(id, &reason)?;
    run_poststart(pod, &container).await
}

/// Runs the hooks that come between the start and its answer: where one fails, the start has failed,
/// and init is killed.
async fn run_poststart(pod: &Pod, container: &Container) -> Result<(), Failure> {
    let Some(hooks) = container.known()?.poststart.clone() else {
        return Ok(());
    };
    let pid = container.pid().unwrap_or_default();
    let job = Job::Hooks(hooks.with_pid(pid));
    pod.jobs.run(job).await.map(|_| ())
}

async fn read_all(end: std::os::fd::OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    pipe::Receiver::from_owned_fd(end)?
        .read_to_end(&mut text)
        .await?;
    Ok(text)
}

/// Nothing was written: it executes. Else a [`JobError`], or at least words.
fn refusal(id: &str, reason: &[u8]) -> Result<(), Failure> {
    if reason.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<JobError>(reason) {
        Ok(error) => Err(Failure::from(error)),
        Err(_) => Err(Failure::internal(format!(
            "cannot start container {id}: {}",
            String::from_utf8_lossy(reason)
        ))),
    }
}

fn explained(container: &Container, error: &dyn std::error::Error) -> String {
    format!(
        "container {}: {}",
        container.id,
        crate::failure::with_causes(error)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(config: &str) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        Bundle::load(dir.path()).unwrap()
    }

    fn files() -> Vec<(PathBuf, PathBuf)> {
        ["hostname", "hosts"]
            .map(|name| (Path::new("/etc").join(name), Path::new("/pod").join(name)))
            .to_vec()
    }

    /// The kubelet mounts its own /etc/hosts: that one stays (contract 15).
    #[test]
    fn the_pods_files_are_mounted_where_nothing_else_is() {
        let mut bundle = bundle(
            r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": true},
                "mounts": [{"destination": "/etc/hosts", "source": "/kubelet/hosts"}]}"#,
        );
        inject(Arc::make_mut(&mut bundle.spec), &files());
        let mounts = bundle.spec.mounts().clone().unwrap();
        let seen: Vec<_> = mounts
            .iter()
            .map(|mount| {
                let source = mount.source().clone().unwrap_or_default();
                (mount.destination().clone(), source)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("/etc/hosts".into(), "/kubelet/hosts".into()),
                ("/etc/hostname".into(), "/pod/hostname".into()),
            ]
        );
        let options = mounts[1].options().clone().unwrap();
        assert!(options.contains(&"ro".to_owned()), "{options:?}");
    }

    fn assigned(annotations: &str) -> Vec<(Kind, Scope)> {
        let bundle = bundle(&format!(
            r#"{{"ociVersion": "1.0.2", "annotations": {annotations}}}"#
        ));
        let mut requested = Scopes::all(&Scope::Container);
        requested[Kind::Uts] = Scope::Node;
        let assigned = assigned_by_annotation(&bundle, &requested);
        let pairs = assigned.into_iter();
        pairs.map(|found| (found.kind, found.scope)).collect()
    }

    #[test]
    fn containers_that_name_a_pod_share_what_they_have_to_themselves() {
        let annotation = r#"{"io.husk.pod": "web"}"#;
        assert_eq!(
            assigned(annotation),
            [(Kind::Network, Scope::Pod), (Kind::Ipc, Scope::Pod)],
            "the node's UTS namespace was asked for and stays"
        );
        assert_eq!(assigned("{}"), []);
        let kubernetes =
            r#"{"io.husk.pod": "web", "io.kubernetes.cri.container-type": "container"}"#;
        assert_eq!(assigned(kubernetes), []);
    }

    #[test]
    fn a_process_says_why_it_could_not_execute() {
        assert_eq!(refusal("c", b""), Ok(()));
        let error =
            refusal("c", br#"{"kind": "NotFound", "message": "no such file"}"#).unwrap_err();
        assert_eq!(error, Failure::not_found("no such file"));
        let error = refusal("c", b"what is this").unwrap_err();
        assert!(error.message.contains("what is this"), "{error}");
    }
}
