//! mount(8) options, taken apart for mount(2).
use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;

use crate::mount_api::{self, Attributes};

/// What mount(2) wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) flags: MsFlags,
    /// Applied by a call of its own.
    pub(crate) propagation: Option<MsFlags>,
    /// For the mount and all below it, applied by a call of its own: `rro` and its kin.
    pub(crate) recursive: Option<Attributes>,
    /// For the filesystem, joined by commas.
    pub(crate) data: String,
}

/// mount(2) copies one page of data at most, with its terminating zero.
const PAGE: usize = 4096;

impl Options {
    /// # Errors
    /// The option that cannot be honoured, and why.
    pub(crate) fn parse(options: &[String]) -> Result<Self, String> {
        let mut parsed = Self {
            flags: MsFlags::empty(),
            propagation: None,
            recursive: None,
            data: String::new(),
        };
        for option in options {
            if let Some((flag, set)) = flag(option) {
                parsed.flags.set(flag, set);
            } else if let Some((set, clear)) = recursive_attribute(option) {
                let attributes = parsed.recursive.get_or_insert_default();
                attributes.set |= set;
                attributes.clear |= clear;
            } else if let Some(propagation) = propagation(option) {
                parsed.propagation = Some(propagation);
            } else if option == "loop" {
                return Err("the option loop is not supported: mount an image file before".into());
            } else if option.starts_with("uidmap=") || option.starts_with("gidmap=") {
                return Err(format!(
                    "the option {option} is not supported: no id-mapped mounts yet"
                ));
            } else if !option.starts_with("X-containerd.") && !option.is_empty() {
                if !parsed.data.is_empty() {
                    parsed.data.push(',');
                }
                parsed.data.push_str(option);
            }
        }
        Ok(parsed)
    }

    /// Whether the kernel would cut the data off.
    pub(crate) fn is_longer_than_a_page(&self) -> bool {
        self.data.len() >= PAGE
    }

    /// The data of an overlay with its many lower directories named relative to one they share,
    /// which must then be the working directory; the data as it is when there is no such one.
    pub(super) fn relative_lower_directories(&self) -> (PathBuf, String) {
        let unchanged = || (PathBuf::from("/"), self.data.clone());
        let lower = self
            .data
            .split(',')
            .find_map(|option| option.strip_prefix("lowerdir="));
        let Some(lower) = lower else {
            return unchanged();
        };
        let layers: Vec<&Path> = lower.split(':').map(Path::new).collect();
        let Some(shared) = shared_parent(&layers) else {
            return unchanged();
        };
        let relative: Option<Vec<&str>> = layers
            .iter()
            .map(|layer| layer.strip_prefix(&shared).ok().and_then(Path::to_str))
            .collect();
        let Some(relative) = relative else {
            return unchanged();
        };
        let data: Vec<String> = self
            .data
            .split(',')
            .map(|option| match option.strip_prefix("lowerdir=") {
                Some(_) => format!("lowerdir={}", relative.join(":")),
                None => option.to_owned(),
            })
            .collect();
        (shared, data.join(","))
    }
}

/// The deepest directory that all of `layers`, absolute paths, lie strictly below.
fn shared_parent(layers: &[&Path]) -> Option<PathBuf> {
    let (first, others) = layers.split_first()?;
    let shared = first.parent()?.ancestors().find(|ancestor| {
        others
            .iter()
            .all(|layer| layer.starts_with(ancestor) && layer != ancestor)
    })?;
    let is_plain = |layer: &Path| {
        layer
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
    };
    (shared.is_absolute() && layers.iter().all(|layer| is_plain(layer))).then(|| shared.to_owned())
}

/// The flag an option sets or clears.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "atime" => (MsFlags::MS_NOATIME, false),
        "bind" => (MsFlags::MS_BIND, true),
        "defaults" => (MsFlags::empty(), true),
        "dev" => (MsFlags::MS_NODEV, false),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "nodev" => (MsFlags::MS_NODEV, true),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "silent" => (MsFlags::MS_SILENT, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        _ => return None,
    })
}

/// What a recursive option sets and clears, as `MOUNT_ATTR_*`; see the runtime specification.
fn recursive_attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "rro" => (mount_api::MOUNT_ATTR_RDONLY, 0),
        "rrw" => (0, mount_api::MOUNT_ATTR_RDONLY),
        "rnosuid" => (mount_api::MOUNT_ATTR_NOSUID, 0),
        "rsuid" => (0, mount_api::MOUNT_ATTR_NOSUID),
        "rnodev" => (mount_api::MOUNT_ATTR_NODEV, 0),
        "rdev" => (0, mount_api::MOUNT_ATTR_NODEV),
        "rnoexec" => (mount_api::MOUNT_ATTR_NOEXEC, 0),
        "rexec" => (0, mount_api::MOUNT_ATTR_NOEXEC),
        "rnodiratime" => (mount_api::MOUNT_ATTR_NODIRATIME, 0),
        "rdiratime" => (0, mount_api::MOUNT_ATTR_NODIRATIME),
        "rnosymfollow" => (mount_api::MOUNT_ATTR_NOSYMFOLLOW, 0),
        "rsymfollow" => (0, mount_api::MOUNT_ATTR_NOSYMFOLLOW),
        // The kernel wants the old one of these cleared as a whole.
        "rnoatime" => (mount_api::MOUNT_ATTR_NOATIME, mount_api::MOUNT_ATTR_ATIME),
        "rstrictatime" => (
            mount_api::MOUNT_ATTR_STRICTATIME,
            mount_api::MOUNT_ATTR_ATIME,
        ),
        "rrelatime" | "ratime" | "rnostrictatime" => {
            (mount_api::MOUNT_ATTR_RELATIME, mount_api::MOUNT_ATTR_ATIME)
        }
        "rnorelatime" => (0, mount_api::MOUNT_ATTR_ATIME),
        _ => return None,
    })
}

/// A mount's own flags as `MOUNT_ATTR_*`: what a bind mount changes of its source's.
pub(crate) fn attributes(flags: MsFlags) -> Attributes {
    const OF_A_MOUNT: [(MsFlags, u64); 5] = [
        (MsFlags::MS_RDONLY, mount_api::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, mount_api::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, mount_api::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, mount_api::MOUNT_ATTR_NOEXEC),
        (MsFlags::MS_NODIRATIME, mount_api::MOUNT_ATTR_NODIRATIME),
    ];
    let mut attributes = Attributes::default();
    for (flag, attribute) in OF_A_MOUNT {
        if flags.contains(flag) {
            attributes.set |= attribute;
        }
    }
    let of_atime = [
        (MsFlags::MS_STRICTATIME, mount_api::MOUNT_ATTR_STRICTATIME),
        (MsFlags::MS_NOATIME, mount_api::MOUNT_ATTR_NOATIME),
        (MsFlags::MS_RELATIME, mount_api::MOUNT_ATTR_RELATIME),
    ];
    if let Some((_, attribute)) = of_atime.iter().find(|(flag, _)| flags.contains(*flag)) {
        attributes.set |= attribute;
        attributes.clear |= mount_api::MOUNT_ATTR_ATIME;
    }
    attributes
}

fn propagation(option: &str) -> Option<MsFlags> {
    let (recursive, kind) = match option.strip_prefix('r') {
        Some(kind) => (MsFlags::MS_REC, kind),
        None => (MsFlags::empty(), option),
    };
    let kind = match kind {
        "private" => MsFlags::MS_PRIVATE,
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options, String> {
        Options::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_propagation_and_data_are_told_apart() {
        let options = parse(&[
            "rbind", "ro", "rw", "nosuid", "rslave", "size=1k", "mode=755",
        ])
        .unwrap();
        assert_eq!(
            options.flags,
            MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_NOSUID
        );
        assert_eq!(
            options.propagation,
            Some(MsFlags::MS_SLAVE | MsFlags::MS_REC)
        );
        assert_eq!(options.data, "size=1k,mode=755");
    }

    #[test]
    fn recursive_options_are_kept_apart() {
        let options = parse(&["rbind", "rro", "rnosuid", "rnoatime"]).unwrap();
        assert_eq!(options.flags, MsFlags::MS_BIND | MsFlags::MS_REC);
        let recursive = options.recursive.unwrap();
        let set = mount_api::MOUNT_ATTR_RDONLY
            | mount_api::MOUNT_ATTR_NOSUID
            | mount_api::MOUNT_ATTR_NOATIME;
        assert_eq!(
            (recursive.set, recursive.clear),
            (set, mount_api::MOUNT_ATTR_ATIME)
        );
        assert_eq!(options.data, "");
        assert_eq!(parse(&["ro"]).unwrap().recursive, None);
    }

    #[test]
    fn what_is_not_supported_is_said() {
        assert!(parse(&["loop"]).unwrap_err().contains("loop"));
        assert!(
            parse(&["uidmap=0:1:1"])
                .unwrap_err()
                .contains("uidmap=0:1:1")
        );
    }

    #[test]
    fn many_layers_become_relative_to_the_directory_they_share() {
        let layers: Vec<String> = (0..200)
            .map(|n| format!("/var/lib/snapshots/{n}/fs"))
            .collect();
        let lower = format!("lowerdir={}", layers.join(":"));
        let options = parse(&["index=off", &lower, "upperdir=/var/lib/snapshots/x/fs"]).unwrap();
        assert!(options.is_longer_than_a_page());
        let (directory, data) = options.relative_lower_directories();
        assert_eq!(directory, Path::new("/var/lib/snapshots"));
        assert!(data.starts_with("index=off,lowerdir=0/fs:1/fs:"), "{data}");
        assert!(
            data.ends_with(":199/fs,upperdir=/var/lib/snapshots/x/fs"),
            "{data}"
        );
    }

    #[test]
    fn layers_that_share_nothing_stay_as_they_are() {
        let options = parse(&["lowerdir=/a/fs:relative"]).unwrap();
        let (directory, data) = options.relative_lower_directories();
        assert_eq!(
            (directory.as_path(), data.as_str()),
            (Path::new("/"), "lowerdir=/a/fs:relative")
        );
    }
}
