//! Who a process is and what it may do: ids, groups, capabilities.
use caps::CapSet;
use libcontainer::capabilities::{CapabilityExt, drop_privileges, reset_effective};
use libcontainer::syscall::syscall::create_syscall;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};

use crate::error::{Doing, JobError};

/// Becomes root of the user namespace that was just joined.
pub(crate) fn become_root() -> Result<(), JobError> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)
        .and_then(|()| setresuid(uid, uid, uid))
        .doing(|| "become root of the container's user namespace")
}

/// Takes on the user and groups of a process, and keeps its capabilities meanwhile.
pub(super) fn become_user(process: &Process) -> Result<(), JobError> {
    let user = process.user();
    set_groups(user.additional_gids().as_deref().unwrap_or_default())?;
    prctl::set_keepcaps(true).doing(|| "keep capabilities")?;
    let gid = Gid::from_raw(user.gid());
    setresgid(gid, gid, gid).doing(|| format!("become group {gid}"))?;
    let uid = Uid::from_raw(user.uid());
    setresuid(uid, uid, uid).doing(|| format!("become user {uid}"))?;
    prctl::set_keepcaps(false).doing(|| "stop keeping capabilities")?;
    reset_effective(&*create_syscall())
        .map_err(|error| JobError::failed(format!("cannot raise capabilities: {error}")))
}

fn set_groups(gids: &[u32]) -> Result<(), JobError> {
    let gids: Vec<Gid> = gids.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&gids) {
        // A user namespace that denies it. The zygote has no groups, and nor has this process.
        Err(Errno::EPERM) if gids.is_empty() => Ok(()),
        Err(Errno::EPERM) => Err(JobError::invalid(
            "process.user.additionalGids cannot be set: the user namespace denies setgroups(2)",
        )),
        done => done.doing(|| format!("set the supplementary groups {gids:?}")),
    }
}

/// The capabilities that this process may hand on.
pub(crate) fn own_capabilities() -> Result<Capabilities, JobError> {
    let own = caps::read(None, CapSet::Permitted)
        .map_err(|error| JobError::failed(format!("cannot read capabilities: {error}")))?;
    Ok(own.into_iter().map(Capability::from_cap).collect())
}

/// Leaves the capabilities that the spec names; a set that it does not name is empty. What this
/// process does not have it cannot grant: whoever gave the spec to this crate has told of it.
pub(super) fn drop_capabilities(process: &Process) -> Result<(), JobError> {
    let named = process.capabilities().clone().unwrap_or_default();
    let asked = process.capabilities().is_some();
    let set = |set: &Option<Capabilities>| {
        Some(if asked {
            set.clone().unwrap_or_default()
        } else {
            Capabilities::default()
        })
    };
    let own = own_capabilities()?;
    let within = |named: &Option<Capabilities>, bound: &Capabilities| {
        set(named).map(|named| named.intersection(bound).copied().collect::<Capabilities>())
    };
    let permitted = within(named.permitted(), &own);
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(set(named.bounding()));
    sets.set_effective(within(
        named.effective(),
        permitted.as_ref().unwrap_or(&own),
    ));
    sets.set_permitted(permitted);
    sets.set_inheritable(within(named.inheritable(), &own));
    sets.set_ambient(set(named.ambient()));
    drop_privileges(&sets, &*create_syscall())
        .map_err(|error| JobError::failed(format!("cannot drop capabilities: {error}")))
}
