//! `delete`: clears away what a dead shim left (contract 43 to 45).
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use containerd_shim::{DeleteResponse, Flags, StartOpts};
use containerd_shim_protos::api::{DeleteRequest, KillRequest, ShutdownRequest, WaitRequest};
use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim_async::{Client, TaskClient};
use containerd_shim_protos::topics;
use husk_sandbox::process::start_time;
use husk_sandbox::rootfs::unmount_all;
use husk_scope::record;
use nix::unistd::getpid;
use ttrpc::Code;

use crate::cleanup::{Cleanup, ends_within, lives};
use crate::publisher::Publisher;
use crate::store::{self, Store, StoreError};
use crate::{group, socket};

/// containerd kills `delete` after 5 s: what is not done by now is given up, so that the answer
/// still reaches it.
const LIMIT: Duration = Duration::from_millis(3500);

/// How long a live shim may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// How long containerd may take to hear of the containers that ended with the pod.
const ANNOUNCEMENT: Duration = Duration::from_secs(1);

const SIGKILL: u32 = 9;

/// The exit status of a container that lost its shim: killed by SIGKILL (contract 36).
const KILLED: u32 = 128 + 9;

/// What `delete` is about.
struct Subject {
    namespace: String,
    id: String,
    bundle: PathBuf,
    /// containerd's address, part of the socket's name.
    address: String,
}

/// The pod that a container or sandbox belongs to, as its shim left it.
struct Found {
    store: Store,
    record: record::Pod,
}

/// Clears away and answers.
///
/// # Errors
/// Bad flags, or stdout is closed. What could not be cleared away is a warning on stderr.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    store::check_id(&flags.namespace).context("the flag -namespace")?;
    store::check_id(&flags.id).context("the flag -id")?;
    let bundle = if flags.bundle.is_empty() {
        std::env::current_dir().context("neither -bundle nor a working directory")?
    } else {
        PathBuf::from(&flags.bundle)
    };
    let subject = Subject {
        namespace: flags.namespace.clone(),
        id: flags.id.clone(),
        bundle,
        address: flags.address.clone(),
    };

    let mut cleanup = Cleanup::default();
    let found = subject.find(&mut cleanup);
    let response = subject.response(found.as_ref());
    if found
        .as_ref()
        .is_some_and(|found| subject.is_reused(&found.record, began()))
    {
        return answer(&response, &cleanup.warnings);
    }
    let others = match found.as_ref().map(|found| subject.ask_shim(found)) {
        Some(Answer::Deleted) => {
            subject.unmount_rootfs(&mut cleanup);
            return answer(&response, &cleanup.warnings);
        }
        Some(Answer::None) | None => subject.others(found.as_ref()),
    };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        subject.clear(found, &mut cleanup);
        // Nobody listens any more if the limit has passed.
        let _ = sender.send(cleanup);
    });
    let mut warnings = match receiver.recv_timeout(LIMIT) {
        Ok(cleanup) => cleanup.warnings,
        Err(_) => vec![format!(
            "clearing away {} takes longer than {LIMIT:?}: run `delete` again",
            flags.id
        )],
    };
    if let Err(error) = announce(flags, &others) {
        warnings.push(format!("cannot tell containerd what has ended: {error:#}"));
    }
    answer(&response, &warnings)
}

/// What came of asking a shim.
enum Answer {
    /// It has deleted the container, and the pod lives on.
    Deleted,
    /// It has ended, or is as good as dead.
    None,
}

/// Has a shim kill and delete a container, and end if that was all.
async fn delete_by(address: &str, id: &str) -> ttrpc::Result<()> {
    let client = TaskClient::new(Client::connect(address).await?);
    let call = || ttrpc::context::with_duration(ANSWER);
    let request = DeleteRequest {
        id: id.to_owned(),
        ..DeleteRequest::default()
    };
    if is_refused(&client.delete(call(), &request).await)? {
        let kill = KillRequest {
            id: id.to_owned(),
            signal: SIGKILL,
            all: true,
            ..KillRequest::default()
        };
        // One that has ended meanwhile is what is wanted.
        let _ = client.kill(call(), &kill).await;
        let wait = WaitRequest {
            id: id.to_owned(),
            ..WaitRequest::default()
        };
        client.wait(call(), &wait).await?;
        is_refused(&client.delete(call(), &request).await)?;
    }
    // Ignored while anything else lives in the pod (contract 24); else the shim says on record that
    // it ends before it answers.
    client
        .shutdown(call(), &ShutdownRequest::default())
        .await
        .map(drop)
}

/// Whether the shim will not delete it because it runs. One that it does not know is deleted.
fn is_refused<T>(answer: &ttrpc::Result<T>) -> ttrpc::Result<bool> {
    match answer {
        Ok(_) => Ok(false),
        Err(ttrpc::Error::RpcStatus(status)) => match status.code() {
            Code::NOT_FOUND => Ok(false),
            Code::FAILED_PRECONDITION => Ok(true),
            _ => Err(ttrpc::Error::RpcStatus(status.clone())),
        },
        Err(error) => Err(ttrpc::Error::Others(error.to_string())),
    }
}

/// Tells containerd that the pod's other containers have ended. It asks about the one that started
/// the shim only, and would believe for ever that the others run (contract 44).
fn announce(flags: &Flags, containers: &[record::Container]) -> Result<()> {
    if containers.is_empty() {
        return Ok(());
    }
    let address =
        std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{}.ttrpc", flags.address));
    let path = address.strip_prefix("unix://").unwrap_or(&address);
    if !socket::is_served(Path::new(path)) {
        // Without a containerd, such as after `husk run`, there is nobody to believe anything.
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(async {
        let publisher = Publisher::new(&address, &flags.namespace);
        for container in containers {
            let exit = TaskExit {
                container_id: container.id.clone(),
                id: container.id.clone(),
                pid: pid(container),
                exit_status: KILLED,
                exited_at: MessageField::some(SystemTime::now().into()),
                ..TaskExit::default()
            };
            publisher.publish(topics::TASK_EXIT_EVENT_TOPIC, &exit);
        }
        if !publisher.flush(ANNOUNCEMENT).await {
            bail!("{address} does not answer within {ANNOUNCEMENT:?}");
        }
        Ok(())
    })
}

fn pid(container: &record::Container) -> u32 {
    let init = container.init.and_then(|init| u32::try_from(init.pid).ok());
    init.unwrap_or_default()
}

/// Clears away a pod whose shim has died, for a new one in its place.
///
/// # Errors
/// The shim lives after all, or something could not be cleared away.
pub(crate) fn abandoned_pod(store: &Store) -> Result<()> {
    let Some(record) = store.load()? else {
        return Ok(());
    };
    if let Some(shim) = record.shim.filter(|shim| lives(*shim)) {
        bail!(
            "the shim of pod {}, pid {}, lives but does not answer at {}: delete the pod first",
            record.id,
            shim.pid,
            record.socket.display()
        );
    }
    let mut cleanup = Cleanup::default();
    cleanup.pod(store, &record);
    if cleanup.warnings.is_empty() {
        Ok(())
    } else {
        bail!(
            "an earlier shim of pod {} died and left what cannot be cleared away: {}",
            record.id,
            cleanup.warnings.join("; ")
        )
    }
}

impl Subject {
    /// Finds the pod: the id is its own, or its container's.
    fn find(&self, cleanup: &mut Cleanup) -> Option<Found> {
        let found = self.find_by_id().and_then(|found| match found {
            Some(found) => Ok(Some(found)),
            None => self.find_by_container(cleanup),
        });
        found.unwrap_or_else(|error| {
            cleanup.warnings.push(error.to_string());
            None
        })
    }

    fn find_by_id(&self) -> Result<Option<Found>, StoreError> {
        let store = Store::new(&self.namespace, &self.id)?;
        Ok(store.load()?.map(|record| Found { store, record }))
    }

    /// The bundle's spec names the pod; without the spec, the pod's record names the container.
    fn find_by_container(&self, cleanup: &mut Cleanup) -> Result<Option<Found>, StoreError> {
        let named = group::of_bundle(&self.bundle).unwrap_or_else(|error| {
            cleanup.warnings.push(format!("{error:#}"));
            None
        });
        let store = match named {
            Some(pod) => Some(Store::new(&self.namespace, &pod)?),
            None => Store::of_container(&self.namespace, &self.id)?,
        };
        let Some(store) = store else {
            return Ok(None);
        };
        Ok(store.load()?.map(|record| Found { store, record }))
    }

    /// The answer: how the init ended if its exit is on record, else that it was killed.
    fn response(&self, found: Option<&Found>) -> DeleteResponse {
        let container = found.and_then(|found| {
            let mut containers = found.record.containers.iter();
            containers.find(|container| container.id == self.id)
        });
        let exit = container.and_then(|container| container.exit);
        let at = exit.map_or_else(SystemTime::now, |exit| {
            SystemTime::UNIX_EPOCH + Duration::from_millis(exit.at_ms)
        });
        DeleteResponse {
            pid: container.map(pid).unwrap_or_default(),
            exit_status: exit.map_or(KILLED, |exit| exit.code),
            exited_at: MessageField::some(at.into()),
            ..DeleteResponse::default()
        }
    }

    /// Has the shim delete the container, if it lives and answers.
    ///
    /// containerd runs `delete` whenever the connection of the container that started the shim
    /// closes, which for one container of several is when that one has been deleted: the pod is the
    /// shim's, which alone knows what else is in it or about to be. A sandbox of the Sandbox API is
    /// not asked for: when `delete` comes for it, containerd has forgotten the pod (contract 44).
    fn ask_shim(&self, Found { store, record }: &Found) -> Answer {
        let is_sandbox = record.sandbox_api && record.id == self.id;
        let Some(shim) = record.shim.filter(|shim| !is_sandbox && lives(*shim)) else {
            return Answer::None;
        };
        let asked = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")
            .and_then(|runtime| {
                let address = socket::address(&record.socket);
                runtime.block_on(async {
                    let asked = delete_by(&address, &self.id);
                    Ok(tokio::time::timeout(ANSWER, asked).await??)
                })
            });
        // A shim that ends has said so on record before it answers.
        let lives_on = || matches!(store.load(), Ok(Some(record)) if !record.ending);
        if asked.is_ok() && lives_on() {
            return Answer::Deleted;
        }
        // What it leaves should it be killed meanwhile, and the whole pod if it hangs, are cleared
        // away as those of a dead shim.
        let _ = ends_within(
            shim,
            if asked.is_ok() {
                ANSWER
            } else {
                Duration::ZERO
            },
        );
        Answer::None
    }

    /// The containers that end with this one, because it is the pod, and that have not ended yet.
    fn others(&self, found: Option<&Found>) -> Vec<record::Container> {
        let record = found.map(|found| &found.record);
        let containers = record
            .filter(|record| record.id == self.id)
            .into_iter()
            .flat_map(|record| &record.containers);
        containers
            .filter(|container| container.id != self.id && container.exit.is_none())
            .cloned()
            .collect()
    }

    fn clear(&self, found: Option<Found>, cleanup: &mut Cleanup) {
        match found {
            Some(Found { store, record }) if record.id == self.id => {
                clear_pod(&store, &record, cleanup);
            }
            Some(Found { store, record }) => self.clear_container(&store, &record, cleanup),
            None => self.clear_socket(cleanup),
        }
        self.unmount_rootfs(cleanup);
    }

    fn unmount_rootfs(&self, cleanup: &mut Cleanup) {
        let rootfs = self.bundle.join("rootfs");
        cleanup.attempt(unmount_all(&rootfs), || {
            format!("unmount {}", rootfs.display())
        });
    }

    /// Whether the id means something newer than this `delete`.
    ///
    /// containerd runs `delete` whenever a connection closes, also after an ordinary end, and does
    /// not wait for it: by now Docker may have started the container again.
    fn is_reused(&self, record: &record::Pod, began: u64) -> bool {
        let newer = |process: record::Process| process.start_time > began;
        let Some(shim) = record.shim else {
            // `start` is between binding the socket and recording the shim.
            return socket::is_served(&record.socket);
        };
        if !lives(shim) {
            return false;
        }
        let mut containers = record.containers.iter();
        let container = containers.find(|container| container.id == self.id);
        let container_is_newer =
            || container.is_some_and(|container| container.init.is_none_or(newer));
        newer(shim) || record.id != self.id && container_is_newer()
    }

    /// Clears away one container of a pod. Only a live shim may change its record.
    fn clear_container(&self, store: &Store, record: &record::Pod, cleanup: &mut Cleanup) {
        cleanup.container(record, &self.id);
        if record.shim.is_some_and(lives) {
            return;
        }
        let rewritten = store.lock().and_then(|lock| {
            let Some(mut record) = lock.as_ref().map(|_| store.load()).transpose()?.flatten()
            else {
                return Ok(None);
            };
            record
                .containers
                .retain(|container| container.id != self.id);
            store.save(&record)?;
            Ok(Some(record))
        });
        match rewritten {
            Ok(Some(rest)) if rest.containers.is_empty() && !rest.sandbox_api => {
                clear_pod(store, &rest, cleanup);
            }
            Ok(_) => {}
            Err(error) => cleanup.warnings.push(error.to_string()),
        }
    }

    /// Without a record there may still be the socket of a shim that died before it wrote one.
    fn clear_socket(&self, cleanup: &mut Cleanup) {
        let opts = StartOpts {
            address: self.address.clone(),
            namespace: self.namespace.clone(),
            ..StartOpts::default()
        };
        let removed = socket::path(&opts, &self.id).and_then(|path| socket::remove_dead(&path));
        cleanup.attempt(removed, || "remove the socket".to_owned());
    }
}

/// When this process began; if that cannot be told, later than anything.
fn began() -> u64 {
    start_time(getpid().as_raw()).unwrap_or(u64::MAX)
}

/// Clears away a whole pod, its socket last (contract 46).
fn clear_pod(store: &Store, record: &record::Pod, cleanup: &mut Cleanup) {
    cleanup.pod(store, record);
    if !record.socket.as_os_str().is_empty() {
        cleanup.attempt(socket::remove_dead(&record.socket), || {
            "remove the socket".to_owned()
        });
    }
}

/// Writes the response, raw, to stdout, and the warnings to stderr.
fn answer(response: &DeleteResponse, warnings: &[String]) -> Result<()> {
    let mut stderr = std::io::stderr();
    for warning in warnings {
        // If stderr is closed there is nobody to tell.
        let _ = writeln!(stderr, "{warning}");
    }
    let mut stdout = std::io::stdout();
    stdout
        .write_all(&response.write_to_bytes()?)
        .and_then(|()| stdout.flush())
        .context("write the response")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use husk_scope::{Ceiling, Plan, Scope, Scopes};

    use super::*;

    fn subject(id: &str) -> Subject {
        Subject {
            namespace: "ns".to_owned(),
            id: id.to_owned(),
            bundle: PathBuf::from("/nonexistent"),
            address: String::new(),
        }
    }

    /// This process, which certainly lives.
    fn own() -> record::Process {
        let pid = getpid().as_raw();
        record::Process {
            pid,
            start_time: start_time(pid).unwrap(),
        }
    }

    fn container(init: Option<record::Process>) -> record::Container {
        record::Container {
            id: "app".to_owned(),
            name: "app".to_owned(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            dir: PathBuf::new(),
            status: record::Status::Running,
            init,
            execs: std::collections::BTreeMap::new(),
            cgroups: std::collections::BTreeMap::new(),
            cgroups_path: String::new(),
            plan: Plan::new(&Scopes::all(&Scope::Container), &[], &Ceiling::default()).unwrap(),
            ids: None,
            exit: None,
        }
    }

    fn pod(shim: Option<record::Process>, containers: Vec<record::Container>) -> record::Pod {
        record::Pod {
            id: "pod".to_owned(),
            shim,
            containers,
            ..record::Pod::default()
        }
    }

    #[test]
    fn a_shim_that_is_younger_than_the_delete_is_not_meant() {
        let shim = own();
        let record = pod(Some(shim), Vec::new());
        assert!(subject("pod").is_reused(&record, shim.start_time - 1));
        assert!(
            !subject("pod").is_reused(&record, shim.start_time),
            "it hangs"
        );
        let dead = record::Process {
            start_time: shim.start_time - 1,
            ..shim
        };
        assert!(!subject("pod").is_reused(&pod(Some(dead), Vec::new()), 0));
    }

    #[test]
    fn a_container_that_is_younger_than_the_delete_is_not_meant() {
        let shim = own();
        let began = shim.start_time;
        let young = record::Process {
            start_time: began + 1,
            ..shim
        };
        let reused =
            |init| subject("app").is_reused(&pod(Some(shim), vec![container(init)]), began);
        assert!(reused(Some(young)));
        assert!(reused(None), "it is being made");
        assert!(!reused(Some(shim)));
        assert!(!subject("other").is_reused(&pod(Some(shim), vec![container(None)]), began));
    }

    #[test]
    fn a_pod_that_is_being_started_is_not_meant() {
        let directory = tempfile::tempdir().unwrap();
        let mut record = pod(None, Vec::new());
        record.socket = directory.path().join("s");
        assert!(!subject("pod").is_reused(&record, 0), "that start has died");
        let _listener = UnixListener::bind(&record.socket).unwrap();
        assert!(subject("pod").is_reused(&record, 0));
    }
}
