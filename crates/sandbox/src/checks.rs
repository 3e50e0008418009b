//! What a container's spec asks for that makes no sense, or that husk does not do: refused by the
//! field's name before anything is made, never left out without a word.
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccompAction, Spec};

use crate::zygote::JobError;
use crate::{bundle, lsm, program, seccomp};

/// # Errors
/// `Invalid`, naming the field.
pub(crate) fn check(spec: &Spec) -> Result<(), JobError> {
    let linux = bundle::linux(spec)?;
    check_names(spec, linux)?;
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
    linux.seccomp().as_ref().map_or(Ok(()), |profile| {
        let default = profile.default_action();
        if seccomp::notifies(profile) && default == LinuxSeccompAction::ScmpActNotify {
            return Err(JobError::invalid(
                "linux.seccomp.defaultAction is SCMP_ACT_NOTIFY: a listener is for calls that are named",
            ));
        }
        Ok(())
    })
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

fn unsupported(field: &str) -> JobError {
    JobError::invalid(format!("{field} is not supported by husk: leave it out"))
}
