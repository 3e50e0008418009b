//! What reads a container's spec before anything is made, for a fuzzer: there is no such module in
//! a build that is not for one.
use oci_spec::runtime::{Process, Spec};

use crate::id_map::IdMap;
use crate::rootfs::options::Options;
use crate::workload::Workload;
use crate::{bundle, cgroup, checks, lenient, seccomp, sysctl};

/// Everything that a spec says and this crate takes apart, in the order of a creation, without
/// making anything.
pub fn spec(text: &[u8]) {
    let Ok((spec, _)) = lenient::read::<Spec>(text) else {
        return;
    };
    if checks::check(&spec).is_err() {
        return;
    }
    let _ = bundle::process(&spec);
    for mount in spec.mounts().iter().flatten() {
        let _ = Options::parse(mount.options().as_deref().unwrap_or_default());
    }
    let Some(linux) = spec.linux() else {
        return;
    };
    let _ = IdMap::new(
        linux.uid_mappings().as_ref(),
        linux.gid_mappings().as_ref(),
        "the container",
    );
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        let _ = sysctl::belongs_to(name);
    }
    if let Some(resources) = linux.resources() {
        cgroup::translate(bundle::cgroups_path(&spec), resources);
    }
    if let Some(profile) = linux.seccomp() {
        let _ = seccomp::compile_anew(profile);
    }
}

/// What an exec says of its process.
pub fn process(text: &[u8]) {
    if let Ok((process, _)) = lenient::read::<Process>(text)
        && bundle::check_process(&process).is_ok()
    {
        let _ = Workload::new(&process);
    }
}
