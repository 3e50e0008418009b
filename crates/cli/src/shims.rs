//! Pods by the records of husk's shims: those that containerd made are known only so.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Error, anyhow};
use husk_engine::pod;
use husk_scope::record::{FILE, Pod, STATE_DIR};

/// Every pod on record. What cannot be read is being made or removed.
pub(crate) fn pods() -> Vec<Pod> {
    pods_in(Path::new(STATE_DIR))
}

/// The same, where the records of a node are.
pub(crate) fn pods_in(state: &Path) -> Vec<Pod> {
    children(state)
        .flat_map(|namespace| children(&namespace))
        .filter_map(|pod| fs::read(pod.join(FILE)).ok())
        .filter_map(|text| serde_json::from_slice(&text).ok())
        .collect()
}

fn children(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// The pod of this name, or whose id begins so.
///
/// # Errors
/// None, or more than one.
pub(crate) fn find(wanted: &str) -> Result<Pod, pod::Error> {
    let mut found = pods();
    found.retain(|pod| pod.name == wanted || pod.id.starts_with(wanted));
    match found.as_mut_slice() {
        [] => Err(pod::Error::NoSuchPod(wanted.to_owned())),
        [only] => Ok(std::mem::take(only)),
        several => Err(pod::Error::Ambiguous {
            wanted: wanted.to_owned(),
            names: several.iter().map(|pod| pod.id.clone()).collect(),
        }),
    }
}

/// The error for who wants to do to such a pod what only its maker can do.
pub(crate) fn not_ours(error: pod::Error, wanted: &str, instead: &str) -> Error {
    match (&error, find(wanted)) {
        (pod::Error::NoSuchPod(_), Ok(pod)) => anyhow!(
            "pod {} was made by containerd, in its namespace {}: {instead}",
            pod.id,
            pod.namespace
        ),
        _ => error.into(),
    }
}
