//! What of a spec is not done here, and is refused by name: nothing that a spec asks for is ignored.
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::zygote::JobError;

/// # Errors
/// `Invalid`: what is not done.
pub(crate) fn refuse(spec: &Spec) -> Result<(), JobError> {
    match spec.linux().as_ref().and_then(of_linux) {
        None => Ok(()),
        Some(what) => Err(JobError::invalid(format!("{what} is not supported"))),
    }
}

fn of_linux(linux: &Linux) -> Option<&'static str> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let of = |kind| namespaces.iter().find(|namespace| namespace.typ() == kind);
    if of(LinuxNamespaceType::User).is_some_and(|user| user.path().is_some()) {
        return Some("a user namespace that is joined by its path (linux.namespaces)");
    }
    // Its root could be entered by no pivot_root(2): only chroot(2), which keeps nobody in, is left.
    if of(LinuxNamespaceType::Mount).is_none_or(|mount| mount.path().is_some()) {
        return Some("a container without a mount namespace of its own (linux.namespaces)");
    }
    None
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
        let refused = refuse(&serde_json::from_value(spec).unwrap());
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
        let joined = json!([{"type": "mount"}, {"type": "user", "path": "/x"}]);
        let error = refusal(|spec| spec["linux"]["namespaces"] = joined).unwrap();
        assert!(error.contains("user namespace"), "{error}");
    }
}
