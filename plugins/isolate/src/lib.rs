//! Named containers get a network of their own; the rest share the pod's.
use husk_plugin::{Answer, Configurable, Kind, Policy, Scope, assign, container, pod, scope_of};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The names of the containers that get their own.
    containers: Vec<String>,
}

struct Isolate;

impl Policy for Isolate {
    fn scope_sandbox() -> Answer {
        // The rest need a network to share; a pod on the node's network has one.
        Ok(match scope_of(&pod::requested_scopes(), Kind::Network) {
            Some(Scope::Pod | Scope::Node) => vec![],
            _ => vec![assign(Kind::Network, Scope::Pod)],
        })
    }

    fn scope_container() -> Answer {
        let settings: Settings = husk_plugin::settings()?;
        let requested = container::requested_scopes();
        let isolated = settings.containers.contains(&container::name());
        Ok(match scope_of(&requested, Kind::Network) {
            Some(Scope::Container) if !isolated => vec![assign(Kind::Network, Scope::Pod)],
            Some(Scope::Container) => vec![],
            _ if isolated => vec![assign(Kind::Network, Scope::Container)],
            _ => vec![],
        })
    }
}

impl Configurable for Isolate {
    fn validate_settings(settings: String) -> Result<(), String> {
        husk_plugin::parse_settings::<Settings>(&settings).map(drop)
    }
}

husk_plugin::policy!(Isolate);
husk_plugin::configurable!(Isolate);
