//! What the builder makes of bind mounts that init could not make itself: id-mapped ones, and in a
//! user namespace all, whose init may not even pass through the directories above them.
//!
//! They are attached nowhere until init has found their place.
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::mount::MsFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};

use super::mounts::{self, describe};
use crate::bundle;
use crate::error::{Doing, JobError};
use crate::id_map::{self, IdMap};
use crate::mount_api::{self, Attributes, Depth};
use crate::rootfs::options::Options;

/// By the place in the spec's list of mounts.
#[derive(Default)]
pub(in crate::init) struct Sources(BTreeMap<usize, OwnedFd>);

impl Sources {
    /// Makes those that have to be made here.
    pub(in crate::init) fn prepare(spec: &Spec, linux: &Linux) -> Result<Self, JobError> {
        let mut sources = Self::default();
        let in_user_namespace = bundle::has_user_namespace(linux);
        for (at, request) in spec.mounts().iter().flatten().enumerate() {
            let mapping = mapping(request, linux)?;
            if mapping.is_none() && !(in_user_namespace && mounts::is_bind(request)) {
                continue;
            }
            let tree = prepare(request, mapping.as_ref())?;
            sources.0.insert(at, tree);
        }
        Ok(sources)
    }

    /// Makes a message queue filesystem of the IPC namespace that this process is in: whoever does not
    /// own that cannot. Once this process has joined what the container joins.
    pub(in crate::init) fn prepare_queues(
        &mut self,
        spec: &Spec,
        linux: &Linux,
    ) -> Result<(), JobError> {
        let mut namespaces = linux.namespaces().iter().flatten();
        let makes_one =
            namespaces.any(|it| it.typ() == LinuxNamespaceType::Ipc && it.path().is_none());
        if makes_one || !bundle::has_user_namespace(linux) {
            return Ok(());
        }
        for (at, request) in spec.mounts().iter().flatten().enumerate() {
            if request.typ().as_deref() == Some(mounts::MQUEUE) {
                let queues = mount_api::new_filesystem(c"mqueue", &[]);
                let queues = queues.doing(|| format!("mount {}", describe(request)))?;
                self.0.insert(at, queues);
            }
        }
        Ok(())
    }

    /// The one for this mount, if there is.
    pub(super) fn take(&mut self, at: usize) -> Option<OwnedFd> {
        self.0.remove(&at)
    }
}

/// How far the mapping of a mount goes, and which it is.
struct Mapping {
    depth: Depth,
    map: IdMap,
}

/// The mapping of a mount, if it has one: its own, or that of the container's user namespace.
fn mapping(request: &Mount, linux: &Linux) -> Result<Option<Mapping>, JobError> {
    let options = request.options().as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option == name);
    let (mut users, mut groups) = (request.uid_mappings(), request.gid_mappings());
    let own = users.is_some() || groups.is_some();
    if !own && !has("idmap") && !has("ridmap") {
        return Ok(None);
    }
    if !mounts::is_bind(request) {
        return Err(JobError::invalid(format!(
            "cannot mount {}: only bind mounts are id-mapped",
            describe(request)
        )));
    }
    if !own {
        (users, groups) = (linux.uid_mappings(), linux.gid_mappings());
    }
    let what = format!("the id-mapped mount {}", describe(request));
    Ok(Some(Mapping {
        depth: if has("ridmap") {
            Depth::All
        } else {
            Depth::One
        },
        map: IdMap::new(users.as_ref(), groups.as_ref(), &what)?,
    }))
}

fn prepare(request: &Mount, mapping: Option<&Mapping>) -> Result<OwnedFd, JobError> {
    let what = || format!("mount {}", describe(request));
    let options = request.options().as_deref().unwrap_or_default();
    let options = Options::parse(options)
        .map_err(|reason| JobError::invalid(format!("cannot {}: {reason}", what())))?;
    let source = mounts::open_source(request).map_err(|refused| refused.about(request))?;
    let tree = mounts::copy(&source, &options).doing(what)?;
    if let Some(mapping) = mapping {
        let namespace = mapping.map.namespace()?;
        let name = format!("the mount {}", describe(request));
        id_map::apply(&namespace, &tree, &source, mapping.depth, &name)?;
    }
    // As init sees the node's mounts: what is mounted there later comes along, nothing goes back.
    let slave = Attributes::propagation(MsFlags::MS_SLAVE);
    mount_api::set(tree.as_fd(), slave, Depth::All).doing(what)?;
    Ok(tree)
}
