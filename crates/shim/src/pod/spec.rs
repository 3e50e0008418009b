//! What a bundle's spec says about the pod, beside the container itself.
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use husk_sandbox::cgroup::Driver;
use husk_sandbox::lenient;
use log::warn;
use oci_spec::runtime::Spec;

use crate::failure::Failure;

/// `sandbox` for the pause container of podsandbox mode, else `container`.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";

/// Names containers that share a pod without Kubernetes.
pub(super) const HUSK_POD: &str = "io.husk.pod";

/// Annotations that name a container, the first that is there counts.
const NAMES: [&str; 3] = [
    "io.kubernetes.cri.container-name",
    "nerdctl/name",
    "io.husk.container",
];

/// Where a container's /dev/shm is.
const DEV_SHM: &str = "/dev/shm";

/// A container's spec, and where its bundle is.
pub(super) struct Bundle {
    pub(super) spec: Arc<Spec>,
    /// What it was read from.
    pub(super) text: Vec<u8>,
    dir: PathBuf,
}

impl Bundle {
    /// Reads `config.json`.
    pub(super) fn load(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("config.json");
        let text = std::fs::read(&path).map_err(|error| {
            let message = format!("cannot read {}: {error}", path.display());
            match error.kind() {
                std::io::ErrorKind::NotFound => Failure::not_found(message),
                _ => Failure::internal(message),
            }
        })?;
        let (spec, unknown) = lenient::read(&text).map_err(|error| {
            Failure::invalid(format!(
                "{} is not an OCI runtime spec: {error}",
                path.display()
            ))
        })?;
        if !unknown.is_empty() {
            warn!(
                "{} names capabilities that do not exist, left out: {unknown:?}",
                path.display()
            );
        }
        let not_granted = lenient::not_granted(&spec);
        if !not_granted.is_empty() {
            warn!(
                "{} names capabilities that the shim has not got itself, left out: {not_granted:?}",
                path.display()
            );
        }
        Ok(Self {
            spec: Arc::new(spec),
            text,
            dir: dir.to_owned(),
        })
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        let annotations: &HashMap<_, _> = self.spec.annotations().as_ref()?;
        annotations
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether this is the pause container of podsandbox mode: it is the sandbox.
    pub(super) fn is_sandbox(&self) -> bool {
        self.annotation(CONTAINER_TYPE) == Some("sandbox")
    }

    /// Whether Kubernetes made it: its pod's namespaces are as CRI says.
    pub(super) fn is_kubernetes(&self) -> bool {
        self.annotation(CONTAINER_TYPE).is_some()
    }

    /// The container's name in its pod.
    pub(super) fn name(&self, id: &str) -> String {
        let named = NAMES.iter().find_map(|name| self.annotation(name));
        named.unwrap_or(id).to_owned()
    }

    /// The root filesystem, absolute. What the shim mounts, it mounts in the bundle.
    pub(super) fn rootfs(&self, mounted: bool) -> PathBuf {
        let root = self.spec.root().as_ref().map(|root| root.path().clone());
        match root {
            Some(path) if !mounted => self.dir.join(path),
            _ => self.dir.join("rootfs"),
        }
    }

    pub(super) fn cgroups_path(&self) -> String {
        let linux = self.spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().clone());
        path.unwrap_or_default().display().to_string()
    }

    /// What /dev/shm is bound from, if it is.
    pub(super) fn shm(&self) -> Option<PathBuf> {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        mounts
            .iter()
            .find(|mount| mount.destination() == Path::new(DEV_SHM))
            .and_then(|mount| mount.source().clone())
            .filter(|source| source.is_absolute())
    }
}

/// The cgroup above a container's, as a spec would name it; empty if there is none to name.
///
/// Of `slice:prefix:name` it is the slice, which as a unit of its own is in the slice that its name
/// begins with.
pub(super) fn parent_cgroup(cgroups_path: &str) -> String {
    if Driver::of(cgroups_path) == Driver::Systemd {
        let slice = cgroups_path.split(':').next().unwrap_or_default();
        return slice_unit(slice);
    }
    match Path::new(cgroups_path).parent() {
        Some(parent) if parent.components().any(|part| part != Component::RootDir) => {
            parent.display().to_string()
        }
        _ => String::new(),
    }
}

/// A pod's cgroup as CRI names it, a path or a slice, as a spec would name it.
pub(super) fn pod_cgroup(cgroup_parent: &str) -> String {
    let name = Path::new(cgroup_parent).file_name();
    match name.and_then(|name| name.to_str()) {
        Some(slice) if slice.ends_with(".slice") => slice_unit(slice),
        _ => cgroup_parent.to_owned(),
    }
}

/// `a-b.slice` as `slice:prefix:name`.
fn slice_unit(slice: &str) -> String {
    let above = slice
        .strip_suffix(".slice")
        .and_then(|name| name.rsplit_once('-'))
        .map_or_else(
            || "-.slice".to_owned(),
            |(above, _)| format!("{above}.slice"),
        );
    format!("{above}::{slice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_s_cgroup_is_above_its_containers() {
        assert_eq!(parent_cgroup("/kubepods/pod1/c1"), "/kubepods/pod1");
        assert_eq!(parent_cgroup("/c1"), "");
        assert_eq!(parent_cgroup(""), "");
        assert_eq!(
            parent_cgroup("kubepods-pod1.slice:cri-containerd:c1"),
            "kubepods.slice::kubepods-pod1.slice"
        );
        assert_eq!(
            parent_cgroup("system.slice:docker:c1"),
            "-.slice::system.slice"
        );
    }

    #[test]
    fn a_pod_s_slice_is_named_as_a_unit() {
        assert_eq!(pod_cgroup("/kubepods/pod1"), "/kubepods/pod1");
        assert_eq!(
            pod_cgroup("/kubepods.slice/kubepods-pod1.slice"),
            "kubepods.slice::kubepods-pod1.slice"
        );
    }
}
