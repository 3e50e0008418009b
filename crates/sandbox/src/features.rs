//! What a spec may ask for, as `-info` tells containerd.
use libcontainer::syscall::linux::MountOption;

/// Mount options applied to a mount and all below it, see mount_setattr(2).
const RECURSIVE: [&str; 18] = [
    "rro",
    "rrw",
    "rnosuid",
    "rsuid",
    "rnodev",
    "rdev",
    "rnoexec",
    "rexec",
    "rnodiratime",
    "rdiratime",
    "rrelatime",
    "rnorelatime",
    "rnoatime",
    "ratime",
    "rstrictatime",
    "rnostrictatime",
    "rnosymfollow",
    "rsymfollow",
];

/// The mount options of the OCI spec that containers may use; options of a filesystem's own
/// are not among them.
#[must_use]
pub fn mount_options() -> Vec<String> {
    let mut options = MountOption::known_options();
    options.extend(RECURSIVE.map(str::to_owned));
    options
}

#[cfg(test)]
mod tests {
    use libcontainer::syscall::linux::MountRecursive;

    use super::*;

    #[test]
    fn every_recursive_option_is_one_libcontainer_knows() {
        for option in RECURSIVE {
            assert!(option.parse::<MountRecursive>().is_ok(), "{option}");
        }
    }
}
