//! Edits, as settings write them.
use std::collections::BTreeMap;

use husk_plugin::{Mount, edit};
use serde::Deserialize;

/// One field for each function of `husk:plugin/edit`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Edits {
    env: BTreeMap<String, String>,
    remove_env: Vec<String>,
    add_mounts: Vec<NewMount>,
    remove_mounts: Vec<String>,
    rlimits: BTreeMap<String, (u64, u64)>,
    sysctls: BTreeMap<String, String>,
    drop_capabilities: Vec<String>,
    no_new_privileges: bool,
    seccomp: Option<String>,
    memory: Option<u64>,
    cpu: Option<u64>,
    pids: Option<u64>,
    cgroup: BTreeMap<String, String>,
    oom_score_adj: Option<i32>,
    mask: Vec<String>,
    read_only: Vec<String>,
    annotations: BTreeMap<String, String>,
    delegate_cgroup: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMount {
    source: String,
    destination: String,
    kind: String,
    options: Vec<String>,
}

impl Edits {
    /// Makes them all.
    pub(crate) fn make(&self) {
        self.of_the_process();
        self.of_the_resources();
        for mount in &self.add_mounts {
            edit::add_mount(&Mount {
                source: mount.source.clone(),
                destination: mount.destination.clone(),
                kind: mount.kind.clone(),
                options: mount.options.clone(),
            });
        }
        self.remove_mounts
            .iter()
            .for_each(|path| edit::remove_mount(path));
        self.mask.iter().for_each(|path| edit::mask_path(path));
        self.read_only
            .iter()
            .for_each(|path| edit::make_path_read_only(path));
        for (key, value) in &self.annotations {
            edit::set_annotation(key, value);
        }
    }

    fn of_the_process(&self) {
        for (name, value) in &self.env {
            edit::set_env(name, value);
        }
        self.remove_env
            .iter()
            .for_each(|name| edit::remove_env(name));
        for (name, (soft, hard)) in &self.rlimits {
            edit::set_rlimit(name, *soft, *hard);
        }
        self.drop_capabilities
            .iter()
            .for_each(|name| edit::drop_capability(name));
        if self.no_new_privileges {
            edit::set_no_new_privileges();
        }
        if let Some(profile) = &self.seccomp {
            edit::set_seccomp_profile(profile);
        }
        if let Some(value) = self.oom_score_adj {
            edit::set_oom_score_adj(value);
        }
    }

    fn of_the_resources(&self) {
        for (name, value) in &self.sysctls {
            edit::set_sysctl(name, value);
        }
        if let Some(bytes) = self.memory {
            edit::set_memory_limit(bytes);
        }
        if let Some(thousandths) = self.cpu {
            edit::set_cpu_limit(thousandths);
        }
        if let Some(count) = self.pids {
            edit::set_pids_limit(count);
        }
        for (file, value) in &self.cgroup {
            edit::set_cgroup_value(file, value);
        }
        if self.delegate_cgroup {
            edit::delegate_cgroup();
        }
    }
}
