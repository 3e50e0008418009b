//! Refuses pods and containers that ask for a namespace of the node, and says why.
use husk_plugin::{
    Answer, Assignment, Configurable, Denial, Kind, Policy, Scope, container, deny, pod, scope_of,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// The Kubernetes namespaces whose pods may.
    #[serde(default)]
    exempt_namespaces: Vec<String>,
}

/// What may not be the node's, and what in a Kubernetes pod asks for it.
const REFUSED: [(Kind, &str, &str); 3] = [
    (Kind::Network, "network", "hostNetwork"),
    (Kind::Pid, "pid", "hostPID"),
    (Kind::Ipc, "ipc", "hostIPC"),
];

struct NoHost;

impl Policy for NoHost {
    fn scope_sandbox() -> Answer {
        refuse(&format!("pod {}", pod::name()), &pod::requested_scopes())
    }

    fn scope_container() -> Answer {
        let who = format!("container {}", container::name());
        refuse(&who, &container::requested_scopes())
    }
}

fn refuse(who: &str, requested: &[Assignment]) -> Answer {
    let settings: Settings = husk_plugin::settings()?;
    if settings.exempt_namespaces.contains(&pod::namespace()) {
        return Ok(vec![]);
    }
    let asked = REFUSED
        .iter()
        .find(|(kind, ..)| scope_of(requested, *kind) == Some(&Scope::Node));
    asked.map_or(Ok(vec![]), |(_, kind, field)| Err(reason(who, kind, field)))
}

fn reason(who: &str, kind: &str, field: &str) -> Denial {
    deny(format!(
        "{who} asks for the node's {kind} namespace, which is not allowed here: leave out {field}"
    ))
}

impl Configurable for NoHost {
    fn validate_settings(settings: String) -> Result<(), String> {
        husk_plugin::parse_settings::<Settings>(&settings).map(drop)
    }
}

husk_plugin::policy!(NoHost);
husk_plugin::configurable!(NoHost);
