//! Mounts that follow a namespace: /dev/shm and the cgroup filesystem.
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::{EditError, Paths};
use crate::Scope;
use crate::plan::Planned;

const SHM: &str = "/dev/shm";

/// Has a bind mount show owners by the ids of the container's user namespace.
const MAPPED: &str = "idmap";

/// Maps the ids of all that is bound: its owners are the node's, as those of the image are. /dev/shm is
/// for all, whoever they are, and shared with containers that have other ids.
pub(super) fn map_ids(spec: &mut Spec) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let mut options = mount.options().clone().unwrap_or_default();
        let is_bind = mount.typ().as_deref() == Some("bind")
            || options
                .iter()
                .any(|option| option == "bind" || option == "rbind");
        let has_own = mount.uid_mappings().is_some()
            || options
                .iter()
                .any(|option| option == MAPPED || option == "ridmap");
        if is_bind && !has_own && !is_shm(mount) {
            options.push(MAPPED.to_owned());
            mount.set_options(Some(options));
        }
    }
}

/// Makes the /dev/shm mount follow the IPC scope: POSIX shared memory lives there, not in the IPC
/// namespace (see shm_overview(7)), and programs expect the two to be shared together. A volume
/// that the pod's author mounted there stays.
pub(super) fn edit_shm(
    planned: &Planned,
    spec: &mut Spec,
    paths: &dyn Paths,
) -> Result<(), EditError> {
    let Some(wanted) = wanted_shm(planned, paths)? else {
        return Ok(());
    };
    let mounts = spec.mounts_mut().get_or_insert_default();
    // Of several mounts the last one is on top.
    let keep = mounts
        .iter()
        .rfind(|mount| is_shm(mount))
        .is_some_and(|mount| {
            follows(mount, &wanted) || is_volume(mount, &planned.requested, paths)
        });
    if keep {
        return Ok(());
    }
    let place = mounts
        .iter()
        .position(is_shm)
        .unwrap_or_else(|| after_parents(mounts));
    mounts.retain(|mount| !is_shm(mount));
    mounts.insert(place, wanted);
    Ok(())
}

/// The mount that goes with the planned scope; `None` where what containerd sent is right.
fn wanted_shm(planned: &Planned, paths: &dyn Paths) -> Result<Option<Mount>, EditError> {
    let scope = &planned.scope;
    if scope.is_joined() {
        return match paths.shm(scope) {
            Some(path) => Ok(Some(bind(path))),
            None if !planned.is_changed() => Ok(None),
            None => Err(EditError::NoShm {
                scope: scope.clone(),
                by: planned.by.clone(),
            }),
        };
    }
    let wanted = match scope {
        Scope::Container => own_shm(),
        _ => bind(PathBuf::from(SHM)),
    };
    Ok(planned.is_changed().then_some(wanted))
}

/// A /dev/shm of one's own: the options and the 64 MiB that containerd and Docker give.
fn own_shm() -> Mount {
    let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    shm("tmpfs", PathBuf::from("shm"), &options)
}

fn bind(source: PathBuf) -> Mount {
    shm("bind", source, &["rbind", "rprivate", "rw"])
}

fn shm(kind: &str, source: PathBuf, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(SHM))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source))
        .set_options(Some(
            options.iter().map(|&option| option.to_owned()).collect(),
        ));
    mount
}

fn is_shm(mount: &Mount) -> bool {
    mount.destination() == Path::new(SHM)
}

fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind")
        || options
            .iter()
            .any(|option| option == "bind" || option == "rbind")
}

/// Whether the mount is already the wanted one; its size and options are the author's.
fn follows(mount: &Mount, wanted: &Mount) -> bool {
    match (is_bind(mount), is_bind(wanted)) {
        (true, true) => mount.source() == wanted.source(),
        (is, wants) => is == wants,
    }
}

/// Whether the pod's author mounted it: a bind mount that is not the /dev/shm of the requested
/// scope. Where that one is unknown the mount is taken for it, so that isolation wins.
fn is_volume(mount: &Mount, requested: &Scope, paths: &dyn Paths) -> bool {
    let Some(source) = mount.source().as_deref().filter(|_| is_bind(mount)) else {
        return false;
    };
    if requested.is_joined() {
        return paths.shm(requested).is_some_and(|path| path != source);
    }
    source != Path::new(SHM)
}

/// Where a mount at /dev/shm comes after every mount it lies in, and before what lies in it.
fn after_parents(mounts: &[Mount]) -> usize {
    let holds_shm = |mount: &Mount| Path::new(SHM).starts_with(mount.destination());
    mounts
        .iter()
        .rposition(holds_shm)
        .map_or(0, |last| last + 1)
}

/// Where another cgroup namespace was assigned, its filesystem is read-only: at the pod's cgroup
/// it would let a container change the limits of its neighbours, and its own.
pub(super) fn edit_cgroup(planned: &Planned, spec: &mut Spec) {
    if !planned.is_changed() {
        return;
    }
    let is_cgroup =
        |mount: &&mut Mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
    let mounts = spec.mounts_mut().iter_mut().flatten();
    for mount in mounts.filter(is_cgroup) {
        let options = mount.options_mut().get_or_insert_default();
        options.retain(|option| option != "rw");
        if !options.iter().any(|option| option == "ro") {
            options.push("ro".to_owned());
        }
    }
}
