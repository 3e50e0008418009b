//! Who makes cgroups on this node, and where a `linux.cgroupsPath` of the OCI spec leads.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::paths;

/// Who makes cgroups on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The shim, with mkdir.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

impl Driver {
    /// The driver that a `linux.cgroupsPath` was written for.
    ///
    /// `slice:prefix:name` is the form that containerd's CRI uses when the pod's parent cgroup is
    /// a slice, and that Docker uses with its systemd driver; anything else is a path. (A path
    /// that is absolute is always a path, whatever colons it has.)
    #[must_use]
    pub fn of(cgroups_path: &str) -> Self {
        match Unit::parse(cgroups_path) {
            Some(_) => Self::Systemd,
            None => Self::Cgroupfs,
        }
    }
}

/// A systemd unit that is a container's cgroup, or, as a slice, a pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// The slice it is in, such as `kubepods-besteffort.slice`.
    pub(super) slice: String,
    /// Its name, such as `cri-containerd-ID.scope`.
    pub(super) name: String,
}

/// The cgroups path for something of the pod's in the pod's cgroup, such as its holder.
///
/// Both are as a spec names them: a path, or `slice:prefix:name`. With cgroup v2 a pod's process
/// cannot be in the pod's own cgroup: that would keep the containers' from having limits.
#[must_use]
pub fn below(pod: &str, name: &str) -> String {
    match Unit::parse(pod) {
        Some(unit) => format!("{}:husk:{name}", unit.name),
        None => format!("{}/{name}", pod.trim_end_matches('/')),
    }
}

impl Unit {
    /// Parses `slice:prefix:name`; an empty slice is `system.slice`.
    pub(super) fn parse(cgroups_path: &str) -> Option<Self> {
        if cgroups_path.starts_with('/') {
            return None;
        }
        let mut parts = cgroups_path.split(':');
        let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
        let right = slice.is_empty() || slice.ends_with(".slice");
        if parts.next().is_some() || !right || name.is_empty() {
            return None;
        }
        let slice = if slice.is_empty() {
            "system.slice"
        } else {
            slice
        };
        let name = match prefix {
            _ if name.ends_with(".slice") => name.to_owned(),
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Some(Self {
            slice: slice.to_owned(),
            name,
        })
    }

    /// The unit for a container whose spec names no cgroup.
    fn default_for(id: &str) -> Self {
        Self {
            slice: "system.slice".into(),
            name: format!("husk-{id}.scope"),
        }
    }

    /// The unit's cgroup below the cgroup of the system manager.
    pub(super) fn path(&self) -> Result<PathBuf> {
        Ok(slice_path(&self.slice)?.join(&self.name))
    }
}

/// The cgroup of a slice: `a-b.slice` is in `a.slice`; see systemd.slice(5).
fn slice_path(slice: &str) -> Result<PathBuf> {
    let invalid = || {
        Error::Invalid(format!(
            "{slice:?} is no slice: expected a name such as kubepods-burstable.slice"
        ))
    };
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    if stem.contains('/') || stem.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let ends = stem
        .match_indices('-')
        .map(|(at, _)| at)
        .chain([stem.len()]);
    Ok(ends
        .filter_map(|end| stem.get(..end))
        .map(|name| format!("{name}.slice"))
        .collect())
}

/// Where a container's cgroup is to be, and who makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path from the root of every hierarchy.
    Path(PathBuf),
    /// A unit of systemd.
    Unit(Unit),
}

impl Place {
    /// Reads `linux.cgroupsPath`.
    ///
    /// A path that is not absolute starts at the root too, which the spec leaves to the runtime:
    /// so it does not depend on where the shim happens to run. Without one, the cgroup is
    /// `/husk/ID`, or the scope `husk-ID` of `system.slice`.
    pub(super) fn of(driver: Driver, cgroups_path: Option<&str>, id: &str) -> Result<Self> {
        let given = cgroups_path.filter(|path| !path.is_empty());
        match (driver, given) {
            (Driver::Systemd, None) => Ok(Self::Unit(Unit::default_for(id))),
            (Driver::Systemd, Some(path)) => Unit::parse(path).map(Self::Unit).ok_or_else(|| {
                Error::Invalid(format!(
                    "cgroupsPath {path:?} of {id} is no systemd unit: with the systemd driver it \
                     must read slice:prefix:name, such as system.slice:husk:{id}; for a path, use \
                     the cgroupfs driver (SystemdCgroup = false)"
                ))
            }),
            (Driver::Cgroupfs, None) => Ok(Self::Path(Path::new("/husk").join(id))),
            (Driver::Cgroupfs, Some(path)) => match paths::normal(Path::new(path)) {
                Some(path) if path != Path::new("/") => Ok(Self::Path(path)),
                _ => Err(Error::Invalid(format!(
                    "cgroupsPath {path:?} of {id} is no cgroup of its own: expected a path below \
                     the root, without .."
                ))),
            },
        }
    }
}

/// Why a systemd unit cannot be a container's cgroup here.
pub(super) fn systemd_on_v1() -> Error {
    Error::Unsupported(
        "the systemd cgroup driver needs cgroup v2, and this node has v1: set SystemdCgroup = \
         false for this runtime and cgroupDriver: cgroupfs for the kubelet, or boot with \
         systemd.unified_cgroup_hierarchy=1"
            .into(),
    )
}

/// The cgroup of the system manager, in which its slices are: that of pid 1 is `init.scope` in it.
pub(super) fn manager_cgroup() -> Result<PathBuf> {
    let path = Path::new("/proc/1/cgroup");
    let text = std::fs::read(path).map_err(Error::file("read", path))?;
    let init = paths::parse_membership(&text)
        .remove("")
        .unwrap_or_default();
    let root = if init.ends_with("init.scope") {
        init.parent()
    } else {
        None
    };
    Ok(root.unwrap_or(Path::new("/")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_path_names_the_driver() {
        for systemd in [
            "kubepods-pod1.slice:cri-containerd:abc",
            "system.slice:docker:abc",
            ":husk:a",
        ] {
            assert_eq!(Driver::of(systemd), Driver::Systemd, "{systemd}");
        }
        for path in [
            "/kubepods/pod1/abc",
            "/a.slice:b:c",
            "default/x",
            "a:b:c",
            "",
            "a.slice:b:c:d",
        ] {
            assert_eq!(Driver::of(path), Driver::Cgroupfs, "{path}");
        }
    }

    #[test]
    fn a_slice_lies_in_the_slices_its_name_says() {
        let path = |slice| slice_path(slice).unwrap();
        assert_eq!(path("-.slice"), Path::new(""));
        assert_eq!(path("system.slice"), Path::new("system.slice"));
        assert_eq!(
            path("kubepods-burstable-pod1_2.slice"),
            Path::new("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice")
        );
        for bad in [
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            ".slice",
            "a",
            "a/b.slice",
        ] {
            assert!(slice_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn units_have_the_names_that_runc_gives_them() {
        let name = |path| Unit::parse(path).unwrap().name;
        assert_eq!(
            name("s.slice:cri-containerd:abc"),
            "cri-containerd-abc.scope"
        );
        assert_eq!(name("s.slice::abc"), "abc.scope");
        assert_eq!(name("s.slice::s-own.slice"), "s-own.slice");
    }

    #[test]
    fn a_pod_s_processes_are_below_its_cgroup() {
        assert_eq!(below("/kubepods/pod1", "holder"), "/kubepods/pod1/holder");
        let slice = below("kubepods.slice::kubepods-pod1.slice", "holder");
        assert_eq!(slice, "kubepods-pod1.slice:husk:holder");
    }

    #[test]
    fn a_container_without_a_path_has_a_place() {
        assert_eq!(
            Place::of(Driver::Cgroupfs, None, "c1").unwrap(),
            Place::Path("/husk/c1".into())
        );
        let Place::Unit(unit) = Place::of(Driver::Systemd, Some(""), "c1").unwrap() else {
            panic!("no unit");
        };
        assert_eq!(
            unit.path().unwrap(),
            Path::new("system.slice/husk-c1.scope")
        );
    }

    #[test]
    fn a_relative_path_starts_at_the_root() {
        assert_eq!(
            Place::of(Driver::Cgroupfs, Some("default/c1"), "c1").unwrap(),
            Place::Path("/default/c1".into())
        );
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for path in ["/", "..", "/a/../../b", "./"] {
            assert!(
                Place::of(Driver::Cgroupfs, Some(path), "c1").is_err(),
                "{path}"
            );
        }
        let error = Place::of(Driver::Systemd, Some("/a/b"), "c1").unwrap_err();
        assert!(
            error.to_string().contains("SystemdCgroup = false"),
            "{error}"
        );
    }
}
