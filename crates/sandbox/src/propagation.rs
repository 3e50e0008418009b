//! Whether mounts made later, on the node or in the container, are seen on the other side; see
//! "Shared subtrees" in mount_namespaces(7).
//!
//! libcontainer passes `rprivate` and its kin to the mount(2) that binds, which ignores them: every
//! mount of a container would be what its root is.
use std::fs::File;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::Spec;

use crate::zygote::{Doing, JobError};

/// Gives each mount of the container whose init is `pid` the propagation that the spec asks for.
pub(crate) fn set(pid: i32, spec: &Spec) -> Result<(), JobError> {
    let wanted: Vec<(&Path, MsFlags)> = spec
        .mounts()
        .iter()
        .flatten()
        .filter_map(|mount| {
            let options = mount.options().iter().flatten();
            let flags = options.filter_map(|option| flags(option)).next_back()?;
            Some((mount.destination().as_path(), flags))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = File::open(&path).doing(|| format!("open {path}"))?;
    // A thread has a root and a mount namespace of its own once it shares no CLONE_FS: this
    // process still needs the node's.
    let done = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS).doing(|| "unshare the root directory")?;
            setns(namespace, CloneFlags::CLONE_NEWNS)
                .doing(|| format!("enter the mount namespace {path}"))?;
            wanted.iter().try_for_each(|(destination, flags)| {
                mount(
                    None::<&str>,
                    *destination,
                    None::<&str>,
                    *flags,
                    None::<&str>,
                )
                .doing(|| format!("set the propagation of {}", destination.display()))
            })
        });
        thread.join()
    });
    done.unwrap_or_else(|_| {
        Err(JobError::failed(
            "the thread that sets propagation panicked",
        ))
    })
}

fn flags(option: &str) -> Option<MsFlags> {
    let recursive = option.strip_prefix('r').map(|rest| (rest, MsFlags::MS_REC));
    let (name, depth) = recursive.unwrap_or((option, MsFlags::empty()));
    let kind = match name {
        "private" => MsFlags::MS_PRIVATE,
        "slave" => MsFlags::MS_SLAVE,
        "shared" => MsFlags::MS_SHARED,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_apart() {
        assert_eq!(flags("rslave"), Some(MsFlags::MS_SLAVE | MsFlags::MS_REC));
        assert_eq!(flags("private"), Some(MsFlags::MS_PRIVATE));
        assert_eq!(flags("ro"), None);
        assert_eq!(flags("rbind"), None);
    }
}
