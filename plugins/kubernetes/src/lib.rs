//! Gives containers the namespaces that Kubernetes gives them: the network, the IPC and the host name
//! of the pod, and process ids of their own.
//!
//! What Kubernetes already asks for stays as it is. A container that someone else made, with `ctr`
//! or Docker, is brought to the same.
use husk_plugin::{
    Answer, Assignment, Configurable, Kind, Policy, Scope, assign, container, pod, scope_of,
};
use serde::Deserialize;

/// The kinds that the containers of a pod share.
const SHARED: [Kind; 3] = [Kind::Network, Kind::Ipc, Kind::Uts];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// Whether the containers see each other's processes, as with `shareProcessNamespace`.
    #[serde(default)]
    share_process_namespace: bool,
}

struct Kubernetes;

impl Policy for Kubernetes {
    fn scope_sandbox() -> Answer {
        shared(&pod::requested_scopes())
    }

    fn scope_container() -> Answer {
        shared(&container::requested_scopes())
    }
}

/// POD for what a container would have to itself; whoever asks for another container's namespace
/// (`kubectl debug --target`) or the node's (`hostNetwork`) keeps it.
fn shared(requested: &[Assignment]) -> Answer {
    let settings: Settings = husk_plugin::settings()?;
    let pid = settings.share_process_namespace.then_some(Kind::Pid);
    Ok(SHARED
        .into_iter()
        .chain(pid)
        .filter(|kind| scope_of(requested, *kind) == Some(&Scope::Container))
        .map(|kind| assign(kind, Scope::Pod))
        .collect())
}

impl Configurable for Kubernetes {
    fn validate_settings(settings: String) -> Result<(), String> {
        husk_plugin::parse_settings::<Settings>(&settings).map(drop)
    }
}

husk_plugin::policy!(Kubernetes);
husk_plugin::configurable!(Kubernetes);
