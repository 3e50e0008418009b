//! Makes the pods of one candidate, as containerd makes them, and clears away what they leave.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use husk_engine::account::Account;
use husk_engine::manifest::{self, Pod as Manifest};
use husk_engine::shim::{Shim, Start};
use husk_engine::spec;

use crate::bed::Bed;
use crate::candidate::Candidate;
use crate::pod::{Pod, STAY};

/// Whose pod it is, and what it is made with.
pub(crate) struct Maker<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) candidate: Candidate,
    pub(crate) account: Account,
    /// Whether the shim has the Sandbox API.
    pub(crate) api: bool,
    /// The pods that have not ended, with what cleans them up.
    open: RefCell<BTreeMap<String, Open>>,
}

/// A pod that has not ended.
struct Open {
    start: Start,
    /// The shim's socket, which not every shim's `delete` removes.
    socket: Option<PathBuf>,
}

/// A pod that is not yet made.
pub(crate) struct Prepared {
    id: String,
    start: Start,
}

impl<'a> Maker<'a> {
    /// For pods of a candidate's.
    pub(crate) fn new(bed: &'a Bed, candidate: Candidate, account: Account) -> Self {
        Self {
            bed,
            candidate,
            account,
            api: true,
            open: RefCell::default(),
        }
    }

    /// Finds out whether the shim has the Sandbox API.
    pub(crate) async fn probe(&mut self) -> Result<()> {
        self.api = self.has_sandbox_api().await?;
        Ok(())
    }

    /// Clears away what pods left that did not come to their end.
    pub(crate) async fn clear(self) -> Result<()> {
        self.account.remove().await?;
        for (id, open) in self.open.into_inner() {
            let cleared = open.start.delete().await;
            cleared.with_context(|| format!("clear the pod {id} away"))?;
            if let Some(socket) = open.socket.filter(|socket| socket.exists()) {
                let removed = std::fs::remove_file(&socket);
                removed.with_context(|| format!("remove {}", socket.display()))?;
            }
        }
        Ok(())
    }

    /// A shim without it refuses to start without a config.json, which a sandbox has not got, or
    /// answers that it knows no such call.
    async fn has_sandbox_api(&self) -> Result<bool> {
        let prepared = self.prepare("probe")?;
        let guest = self.account.enter()?;
        let shim = prepared.start.run().await;
        guest.leave()?;
        let api = match shim {
            Err(error) => {
                log::debug!("{} as a sandbox: {error}", self.candidate.name);
                false
            }
            Ok(shim) => {
                let pod = self.pod(prepared.id.clone(), shim);
                match pod.make_sandbox().await {
                    Ok(()) => {
                        pod.end().await?;
                        return Ok(true);
                    }
                    Err(error) if error.is_unimplemented() => {
                        pod.task().shutdown(&prepared.id).await?;
                        false
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.forget(&prepared.id)?;
        Ok(api)
    }

    /// Lets go of a pod that has ended.
    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        self.open.borrow_mut().remove(id);
        self.bed.remove_bundle(id)
    }

    /// Writes what a pod needs to begin.
    pub(crate) fn prepare(&self, name: &str) -> Result<Prepared> {
        let id = format!("{}-{}-{name}", crate::bed::tag(), self.candidate.name);
        let spec = if self.api {
            None
        } else {
            let netns = self.bed.network();
            let (manifest, cgroup) = (manifest(&id)?, self.cgroup(&id));
            Some(spec::pause(
                &manifest,
                &id,
                &cgroup,
                Some(&netns),
                &STAY,
                &[],
            )?)
        };
        let bundle = self.bed.write_bundle(&id, spec.as_ref())?;
        let start = self.candidate.start(&id, bundle, self.bed.events());
        let open = Open {
            start: start.clone(),
            socket: None,
        };
        self.open.borrow_mut().insert(id.clone(), open);
        Ok(Prepared { id, start })
    }

    /// Runs the shim's `start`; also says how long that took.
    pub(crate) async fn start(&self, prepared: &Prepared) -> Result<(Pod<'_>, Duration)> {
        let guest = self.account.enter()?;
        let begun = Instant::now();
        let starting = prepared.start.spawn();
        guest.leave()?;
        let answered = starting?.answer().await?;
        let took = begun.elapsed();
        let shim = answered.connect().await?;
        Ok((self.pod(prepared.id.clone(), shim), took))
    }

    /// A pod with its sandbox, made from nothing.
    pub(crate) async fn make(&self, name: &str) -> Result<Pod<'_>> {
        let (pod, _) = self.start(&self.prepare(name)?).await?;
        pod.make_sandbox().await?;
        Ok(pod)
    }

    fn pod(&self, id: String, shim: Shim) -> Pod<'_> {
        if let Some(open) = self.open.borrow_mut().get_mut(&id) {
            open.socket = Some(socket(&shim));
        }
        Pod::new(self, id, shim)
    }

    pub(crate) fn cgroup(&self, pod: &str) -> String {
        format!("{}/{pod}", self.account.path())
    }
}

/// The pod as its author would write it.
fn manifest(id: &str) -> Result<Manifest> {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n",
        id.to_lowercase().replace(['_', '.'], "-")
    );
    Ok(manifest::parse("the bench's pod", &text, id)?)
}

/// The path of a shim's socket.
pub(crate) fn socket(shim: &Shim) -> PathBuf {
    PathBuf::from(shim.address().trim_start_matches("unix://"))
}
