//! What binds all processes of a container, its init and those that are executed in it later.
use std::ffi::c_ulong;
use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::{
    LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, MemoryPolicyFlagType,
    MemoryPolicyModeType, Spec,
};

use crate::error::{Doing, JobError};
use crate::job::Inherited;

impl Inherited {
    /// What a spec has of it.
    #[must_use]
    pub fn of(id: &str, bundle: &Path, spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            seccomp: linux.and_then(|linux| linux.seccomp().clone()),
            personality: linux.and_then(|linux| linux.personality().clone()),
            memory_policy: linux.and_then(|linux| linux.memory_policy().clone()),
        }
    }

    /// Sets the personality and the memory policy of this process.
    pub(super) fn set(&self) -> Result<(), JobError> {
        if let Some(personality) = &self.personality {
            set_personality(personality)?;
        }
        match &self.memory_policy {
            Some(policy) => set_memory_policy(policy),
            None => Ok(()),
        }
    }
}

/// # Errors
/// `Invalid`: flags, of which the runtime specification defines none.
pub(crate) fn check_personality(personality: Option<&LinuxPersonality>) -> Result<(), JobError> {
    let flags = personality.and_then(|personality| personality.flags().as_deref());
    if flags.is_some_and(|flags| !flags.is_empty()) {
        return Err(JobError::invalid(
            "linux.personality.flags is not empty: the runtime specification defines none",
        ));
    }
    Ok(())
}

/// personality(2).
fn set_personality(personality: &LinuxPersonality) -> Result<(), JobError> {
    // As in linux/personality.h.
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    // SAFETY: personality(2) takes an integer.
    let answer = unsafe { libc::personality(domain) };
    Errno::result(answer).doing(|| "set linux.personality")?;
    Ok(())
}

/// # Errors
/// `Invalid`: nodes that are no list of numbers.
pub(crate) fn check_memory_policy(policy: Option<&LinuxMemoryPolicy>) -> Result<(), JobError> {
    policy.map_or(Ok(()), |policy| nodes(policy).map(drop))
}

/// set_mempolicy(2).
fn set_memory_policy(policy: &LinuxMemoryPolicy) -> Result<(), JobError> {
    let mut mode = mode(policy.mode());
    for flag in policy.flags().iter().flatten() {
        mode |= self::flag(*flag);
    }
    let nodes = nodes(policy)?;
    let (mask, bits) = match nodes.as_slice() {
        [] => (std::ptr::null(), 0),
        // The kernel takes one bit less than it is told.
        mask => (mask.as_ptr(), mask.len() * BITS + 1),
    };
    // SAFETY: the mask has as many bits as the kernel is told, and outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    Errno::result(answer).map(drop).map_err(|errno| {
        let nodes = policy.nodes().as_deref().unwrap_or_default();
        JobError::invalid(format!(
            "cannot set linux.memoryPolicy to {} of the nodes {nodes:?}: {errno}",
            policy.mode()
        ))
    })
}

const BITS: usize = c_ulong::BITS as usize;
/// As many nodes as any kernel is built for.
const MOST_NODES: usize = 1024;

/// The nodes as a mask, without words for none.
fn nodes(policy: &LinuxMemoryPolicy) -> Result<Vec<c_ulong>, JobError> {
    let list = policy.nodes().as_deref().unwrap_or_default();
    let wrong = || {
        JobError::invalid(format!(
            "linux.memoryPolicy.nodes {list:?} is no list of nodes such as 0-3,7"
        ))
    };
    let mut mask: Vec<c_ulong> = Vec::new();
    for range in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last || last >= MOST_NODES {
            return Err(wrong());
        }
        if mask.len() <= last / BITS {
            mask.resize(last / BITS + 1, 0);
        }
        for node in first..=last {
            if let Some(word) = mask.get_mut(node / BITS) {
                *word |= 1 << (node % BITS);
            }
        }
    }
    Ok(mask)
}

/// The numbers of linux/mempolicy.h.
fn mode(mode: MemoryPolicyModeType) -> libc::c_int {
    match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    }
}

fn flag(flag: MemoryPolicyFlagType) -> libc::c_int {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes_are_read() {
        let mask = |list: &str| {
            let mut policy = LinuxMemoryPolicy::default();
            policy.set_nodes(Some(list.to_owned()));
            nodes(&policy)
        };
        assert_eq!(mask("").unwrap(), [] as [c_ulong; 0]);
        assert_eq!(mask("0-1,3").unwrap(), [0b1011]);
        assert_eq!(mask("64").unwrap(), [0, 1]);
        for wrong in ["x", "2-1", "0,", "1024", "-1"] {
            assert!(mask(wrong).is_err(), "{wrong}");
        }
    }
}
