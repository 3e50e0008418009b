//! What a container's spec asks for that makes no sense, or that husk does not do: refused by the
//! field's name before anything is made, never left out without a word.
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::error::JobError;
use crate::{bundle, hooks, lsm, program, seccomp};

/// # Errors
/// `Invalid`, naming the field.
pub(crate) fn check(spec: &Spec) -> Result<(), JobError> {
    bundle::check_version(spec)?;
    let linux = bundle::linux(spec)?;
    check_names(spec, linux)?;
    check_namespaces(linux)?;
    hooks::check(spec)?;
    if linux.intel_rdt().is_some() {
        return Err(unsupported("linux.intelRdt"));
    }
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Err(unsupported("linux.netDevices"));
    }
    if let Some(process) = spec.process() {
        lsm::check(process)?;
    }
    lsm::mount_label(linux)?;
    program::check_personality(linux.personality().as_ref())?;
    program::check_memory_policy(linux.memory_policy().as_ref())?;
    linux.seccomp().as_ref().map_or(Ok(()), seccomp::check)
}

/// Without a UTS namespace, own or joined, a name would be the node's.
fn check_names(spec: &Spec, linux: &Linux) -> Result<(), JobError> {
    let mut namespaces = linux.namespaces().iter().flatten();
    if namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::Uts) {
        return Ok(());
    }
    for (field, name) in [
        ("hostname", spec.hostname()),
        ("domainname", spec.domainname()),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            return Err(JobError::invalid(format!(
                "{field} is {name:?}, but the UTS namespace is the node's, whose name it would change: \
                 give the container one, or leave the name out"
            )));
        }
    }
    Ok(())
}

fn check_namespaces(linux: &Linux) -> Result<(), JobError> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let of = |kind| namespaces.iter().find(|namespace| namespace.typ() == kind);
    for (at, namespace) in namespaces.iter().enumerate() {
        let kind = namespace.typ();
        if namespaces.iter().take(at).any(|other| other.typ() == kind) {
            return Err(JobError::invalid(format!(
                "linux.namespaces names the {kind} namespace twice, and a process is in one: keep one"
            )));
        }
    }
    // Its root could be entered by no pivot_root(2): only chroot(2), which keeps nobody in, is left.
    if of(LinuxNamespaceType::Mount).is_none_or(|mount| mount.path().is_some()) {
        return Err(unsupported(
            "a container without a mount namespace of its own (linux.namespaces)",
        ));
    }
    Ok(())
}

fn unsupported(what: &str) -> JobError {
    JobError::invalid(format!("{what} is not supported by husk: leave it out"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "/"},
            "hooks": {"createRuntime": [{"path": "/bin/true"}]},
            "mounts": [{"destination": "/x", "source": "/x", "options": ["rbind", "ridmap"]}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "user"}]},
        });
        change(&mut spec);
        let refused = check(&serde_json::from_value(spec).unwrap());
        refused.err().map(|error| error.message)
    }

    #[test]
    fn nearly_all_containers_are_made() {
        assert_eq!(refusal(|_| {}), None);
    }

    #[test]
    fn what_is_not_done_is_named() {
        for namespaces in [json!([]), json!([{"type": "mount", "path": "/x"}])] {
            let error = refusal(|spec| spec["linux"]["namespaces"] = namespaces).unwrap();
            assert!(error.contains("mount namespace"), "{error}");
        }
    }
}
