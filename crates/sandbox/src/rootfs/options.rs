//! mount(8) options, taken apart for mount(2).
use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;

use crate::id_map::IdMap;
use crate::mount_api::{self, Attributes};

/// What mount(2) wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) flags: MsFlags,
    /// Those that an option such as `rw` or `exec` takes away: what is bound may have them.
    pub(crate) cleared: MsFlags,
    /// Applied by a call of its own.
    pub(crate) propagation: Option<MsFlags>,
    /// For the mount and all below it, applied by a call of its own: `rro` and its kin.
    pub(crate) recursive: Option<Attributes>,
    /// `tmpcopyup`: a tmpfs begins with what it covers.
    pub(crate) copies_up: bool,
    /// containerd's `uidmap` and `gidmap`, for root filesystems.
    pub(crate) id_map: Option<IdMap>,
    /// For the filesystem, joined by commas.
    pub(crate) data: String,
}

/// mount(2) copies one page of data at most, with its terminating zero.
const PAGE: usize = 4096;

impl Default for Options {
    fn default() -> Self {
        Self {
            flags: MsFlags::empty(),
            cleared: MsFlags::empty(),
            propagation: None,
            recursive: None,
            copies_up: false,
            id_map: None,
            data: String::new(),
        }
    }
}

impl Options {
    /// # Errors
    /// The option that cannot be honoured, and why.
    pub(crate) fn parse(options: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let (mut users, mut groups) = (None, None);
        for option in options {
            if let Some((flag, set)) = flag(option) {
                parsed.flags.set(flag, set);
                parsed.cleared.set(flag, !set);
            } else if let Some((set, clear)) = recursive_attribute(option) {
                let attributes = parsed.recursive.get_or_insert_default();
                attributes.set |= set;
                attributes.clear |= clear;
            } else if let Some(propagation) = propagation(option) {
                parsed.propagation = Some(propagation);
            } else if option == "tmpcopyup" {
                parsed.copies_up = true;
            } else if option == "loop" {
                return Err("the option loop is not supported: mount an image file before".into());
            } else if let Some(map) = option.strip_prefix("uidmap=") {
                users = Some(map);
            } else if let Some(map) = option.strip_prefix("gidmap=") {
                groups = Some(map);
            } else if option == "idmap" || option == "ridmap" {
                // Whoever knows the mappings looks for it himself.
            } else if !option.starts_with("X-containerd.") && !option.is_empty() {
                if !parsed.data.is_empty() {
                    parsed.data.push(',');
                }
                parsed.data.push_str(option);
            }
        }
        parsed.id_map = match (users, groups) {
            (None, None) => None,
            (Some(users), Some(groups)) => Some(IdMap::parse(users, groups)?),
            _ => return Err("the options uidmap and gidmap go together: one is missing".into()),
        };
        Ok(parsed)
    }

    /// Whether the kernel would cut the data off.
    pub(crate) fn is_longer_than_a_page(&self) -> bool {
        self.data.len() >= PAGE
    }

    /// The data of an overlay with its many lower directories named relative to one they share,
    /// which must then be the working directory; the data as it is when there is no such one.
    pub(super) fn relative_lower_directories(&self) -> (PathBuf, String) {
        let relative = |layers: &[&Path]| {
            let shared = shared_parent(layers)?;
            let relative = layers
                .iter()
                .map(|layer| layer.strip_prefix(&shared).ok().and_then(Path::to_str));
            let relative = relative.collect::<Option<Vec<_>>>()?.join(":");
            Some((shared, self.with(&[(LOWER, relative)])))
        };
        relative(&self.lower_directories())
            .unwrap_or_else(|| (PathBuf::from("/"), self.data.clone()))
    }

    /// The lower directories of an overlay, the uppermost first.
    pub(super) fn lower_directories(&self) -> Vec<&Path> {
        let lower = self.value(LOWER).into_iter();
        lower
            .flat_map(|lower| lower.split(':'))
            .map(Path::new)
            .collect()
    }

    /// The directory that an overlay writes to and the one that it works in, if it is to be written.
    pub(super) fn upper_directories(&self) -> Option<[&Path; 2]> {
        Some([UPPER, WORK].map(|name| self.value(name).map(Path::new)))
            .and_then(|[upper, work]| Some([upper?, work?]))
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut options = self.data.split(',');
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// The data with other values for some options.
    pub(super) fn with(&self, values: &[(&str, String)]) -> String {
        let changed = self.data.split(',').map(|option| {
            let name = option.split_once('=').map_or(option, |(name, _)| name);
            match values.iter().find(|(changed, _)| *changed == name) {
                Some((name, value)) => format!("{name}={value}"),
                None => option.to_owned(),
            }
        });
        changed.collect::<Vec<_>>().join(",")
    }
}

/// The options of an overlay that name directories.
pub(super) const LOWER: &str = "lowerdir";
pub(super) const UPPER: &str = "upperdir";
pub(super) const WORK: &str = "workdir";

/// The deepest directory that all of `layers`, absolute paths, lie strictly below.
pub(super) fn shared_parent(layers: &[&Path]) -> Option<PathBuf> {
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

/// `MS_NOSYMFOLLOW` of linux/mount.h, of which nix knows nothing.
pub(crate) const MS_NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(0x100);

/// The flag an option sets or clears; see "Linux mount options" in the runtime specification.
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
        "iversion" => (MsFlags::MS_I_VERSION, true),
        "lazytime" => (MsFlags::MS_LAZYTIME, true),
        "loud" => (MsFlags::MS_SILENT, false),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "nodev" => (MsFlags::MS_NODEV, true),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "noiversion" => (MsFlags::MS_I_VERSION, false),
        "nolazytime" => (MsFlags::MS_LAZYTIME, false),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "nosymfollow" => (MS_NOSYMFOLLOW, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "silent" => (MsFlags::MS_SILENT, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "symfollow" => (MS_NOSYMFOLLOW, false),
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

/// The flags that belong to a mount rather than to its filesystem, but for access times.
const OF_A_MOUNT: [(MsFlags, u64); 5] = [
    (MsFlags::MS_RDONLY, mount_api::MOUNT_ATTR_RDONLY),
    (MsFlags::MS_NOSUID, mount_api::MOUNT_ATTR_NOSUID),
    (MsFlags::MS_NODEV, mount_api::MOUNT_ATTR_NODEV),
    (MsFlags::MS_NOEXEC, mount_api::MOUNT_ATTR_NOEXEC),
    (MS_NOSYMFOLLOW, mount_api::MOUNT_ATTR_NOSYMFOLLOW),
];
/// When access times are written: of these one counts, the first.
const OF_ATIME: [(MsFlags, u64); 3] = [
    (MsFlags::MS_STRICTATIME, mount_api::MOUNT_ATTR_STRICTATIME),
    (MsFlags::MS_NOATIME, mount_api::MOUNT_ATTR_NOATIME),
    (MsFlags::MS_RELATIME, mount_api::MOUNT_ATTR_RELATIME),
];

impl Options {
    /// What a bind mount has of its own, as `MOUNT_ATTR_*`.
    ///
    /// As with runc, options that say anything say all: what is bound loses the flags that they do
    /// not name, so that `rw` alone makes what the node mounted `noexec` executable. Without any, it
    /// stays as it is. Access times stay as they are as long as no option is about them. Options
    /// about the filesystem (`sync`, `lazytime` and their kin) change no bind mount: the kernel has
    /// one of each for all mounts of a filesystem.
    pub(crate) fn of_a_bind(&self) -> Attributes {
        let mut attributes = Attributes::default();
        let how = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_REMOUNT;
        if (self.flags.difference(how) | self.cleared).is_empty() {
            return attributes;
        }
        for (flag, attribute) in OF_A_MOUNT {
            if self.flags.contains(flag) {
                attributes.set |= attribute;
            } else {
                attributes.clear |= attribute;
            }
        }
        if self.flags.contains(MsFlags::MS_NODIRATIME) {
            attributes.set |= mount_api::MOUNT_ATTR_NODIRATIME;
        } else if self.cleared.contains(MsFlags::MS_NODIRATIME) {
            attributes.clear |= mount_api::MOUNT_ATTR_NODIRATIME;
        }
        let all = OF_ATIME
            .iter()
            .fold(MsFlags::empty(), |all, (flag, _)| all | *flag);
        let named = OF_ATIME.iter().find(|(flag, _)| self.flags.contains(*flag));
        if named.is_some() || self.cleared.intersects(all) {
            // Those who clear what a mount has want the kernel's default.
            let (_, attribute) =
                named.unwrap_or(&(MsFlags::MS_RELATIME, mount_api::MOUNT_ATTR_RELATIME));
            attributes.set |= attribute;
            attributes.clear |= mount_api::MOUNT_ATTR_ATIME;
        }
        attributes
    }

    /// The same, where flags of what is bound cannot be taken away: it came from another user
    /// namespace (see `MNT_LOCKED` in mount_namespaces(7)). `None` when the options ask for just that.
    pub(crate) fn of_a_locked_bind(&self) -> Option<Attributes> {
        let mut attributes = self.of_a_bind();
        let asked = OF_A_MOUNT
            .iter()
            .any(|(flag, _)| self.cleared.contains(*flag));
        attributes.clear &= mount_api::MOUNT_ATTR_ATIME;
        (!asked).then_some(attributes)
    }
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
        assert!(parse(&["uidmap=0:1:1"]).unwrap_err().contains("gidmap"));
    }

    #[test]
    fn mappings_of_ids_are_no_data() {
        let options = parse(&["uidmap=0:100000:65536", "gidmap=0:7:1", "lowerdir=/a:/b"]).unwrap();
        assert_eq!(
            options.id_map,
            Some(IdMap::parse("0:100000:65536", "0:7:1").unwrap())
        );
        assert_eq!(options.lower_directories(), ["/a", "/b"].map(Path::new));
        assert_eq!(options.upper_directories(), None);
        assert_eq!(options.with(&[(LOWER, "0:1".to_owned())]), "lowerdir=0:1");
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
