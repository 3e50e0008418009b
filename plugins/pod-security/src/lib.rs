//! The Pod Security Standards, as far as an OCI spec shows them: the checks that the plugins
//! `baseline-oci` and `restricted-oci` share.
//!
//! Each check follows one control of
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>; README.md tells which
//! controls leave no trace in a spec.
mod controls;
mod settings;

use husk_plugin::{Assignment, Mount, Verdict, container, deny, pod, process};
use serde::de::DeserializeOwned;

pub use settings::Settings;

/// Which of the two standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Against known ways to take over the node.
    Baseline,
    /// Baseline, and what hardened pods keep to.
    Restricted,
}

/// Judges the pod that is about to be made.
///
/// # Errors
/// A refusal that names every control it violates.
pub fn judge_sandbox(level: Level) -> Verdict {
    let settings: Settings = husk_plugin::settings()?;
    let requested = pod::requested_scopes();
    let who = format!("pod {}", pod::name());
    verdict(
        level,
        &settings,
        &who,
        controls::host_namespaces(&requested),
    )
}

/// Judges the container that is about to be made.
///
/// # Errors
/// A refusal that names every control it violates.
pub fn judge_container(level: Level) -> Verdict {
    let settings: Settings = husk_plugin::settings()?;
    let facts = Facts::of_container()?;
    let mut violations = controls::baseline(&facts, &settings);
    if level == Level::Restricted {
        violations.extend(controls::restricted(&facts));
    }
    let who = format!("container {}", container::name());
    verdict(level, &settings, &who, violations)
}

/// Judges the exec that is about to start: it may not have what its container may not.
///
/// # Errors
/// A refusal that names every control it violates.
pub fn judge_exec(level: Level) -> Verdict {
    let settings: Settings = husk_plugin::settings()?;
    let rights = Rights {
        capabilities: process::capabilities(),
        no_new_privileges: process::no_new_privileges(),
        uid: process::uid(),
    };
    let violations = match level {
        Level::Baseline => controls::baseline_rights(&rights),
        Level::Restricted => controls::restricted_rights(&rights),
    };
    let who = format!("an exec in container {}", container::name());
    verdict(level, &settings, &who, violations)
}

fn verdict(level: Level, settings: &Settings, who: &str, violations: Vec<String>) -> Verdict {
    if violations.is_empty() || settings.exempt_namespaces.contains(&pod::namespace()) {
        return Ok(());
    }
    let level = match level {
        Level::Baseline => "Baseline",
        Level::Restricted => "Restricted",
    };
    let violations = violations.join("; ");
    Err(deny(format!(
        "{who} violates the {level} Pod Security Standard: {violations}"
    )))
}

/// What a process may do, be it a container's first or an exec.
pub(crate) struct Rights {
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) uid: u32,
}

/// What the spec says about a container.
pub(crate) struct Facts {
    pub(crate) requested: Vec<Assignment>,
    pub(crate) rights: Rights,
    pub(crate) privileged: bool,
    pub(crate) seccomp: bool,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) sysctls: Vec<String>,
    pub(crate) selinux_label: String,
    pub(crate) apparmor_profile: String,
    pub(crate) sandbox_id: String,
    pub(crate) pod_uid: String,
}

impl Facts {
    fn of_container() -> Result<Self, husk_plugin::Denial> {
        let sysctls: std::collections::BTreeMap<String, String> = from_spec("/linux/sysctl")?;
        Ok(Self {
            requested: container::requested_scopes(),
            rights: Rights {
                capabilities: container::capabilities(),
                no_new_privileges: container::no_new_privileges(),
                uid: container::uid(),
            },
            privileged: container::privileged(),
            seccomp: container::has_seccomp(),
            mounts: container::mounts(),
            masked_paths: from_spec("/linux/maskedPaths")?,
            sysctls: sysctls.into_keys().collect(),
            selinux_label: from_spec("/process/selinuxLabel")?,
            apparmor_profile: from_spec("/process/apparmorProfile")?,
            sandbox_id: pod::id(),
            pod_uid: pod::uid(),
        })
    }
}

/// A value of the spec; the empty one where there is none.
fn from_spec<T: DeserializeOwned + Default>(pointer: &str) -> Result<T, husk_plugin::Denial> {
    let Some(json) = container::spec(pointer) else {
        return Ok(T::default());
    };
    serde_json::from_str::<Option<T>>(&json)
        .map(Option::unwrap_or_default)
        .map_err(|error| deny(format!("reading {pointer} of the OCI spec: {error}")))
}
