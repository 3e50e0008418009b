//! Named containers get a network of their own, and single ports that lead out of it and into it; the
//! rest share the pod's.
use husk_plugin::{
    Answer, Configurable, Kind, Link, Linked, Links, Peer, Policy, Protocol, Scope, assign,
    container, deny, link_from, link_to, pod, scope_of,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The names of the containers that get their own.
    containers: Vec<String>,
    /// Who reaches whom.
    #[serde(default)]
    links: Vec<LinkOf>,
}

/// A link, in the words of a handler's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkOf {
    /// The container that has it.
    container: String,
    to: Option<String>,
    from: Option<String>,
    port: u16,
    local: Option<u16>,
    #[serde(default)]
    protocol: Carried,
}

/// What a link carries.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Carried {
    #[default]
    Tcp,
    Udp,
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
            // Said also where it is asked for: what nobody assigns, a pod made with Docker shares.
            _ if isolated => vec![assign(Kind::Network, Scope::Container)],
            Some(Scope::Container) => vec![assign(Kind::Network, Scope::Pod)],
            _ => vec![],
        })
    }
}

impl Links for Isolate {
    fn link_container() -> Linked {
        let settings: Settings = husk_plugin::settings()?;
        let name = container::name();
        let own = settings.links.iter().filter(|link| link.container == name);
        own.map(|link| link.decided().map_err(deny)).collect()
    }
}

impl Configurable for Isolate {
    fn validate_settings(settings: String) -> Result<(), String> {
        let settings: Settings = husk_plugin::parse_settings(&settings)?;
        settings
            .links
            .iter()
            .try_for_each(|link| settings.check(link))
    }
}

impl Settings {
    /// A link makes sense if one of its ends is apart.
    fn check(&self, link: &LinkOf) -> Result<(), String> {
        let container = &link.container;
        let is_apart = |name: &String| self.containers.contains(name);
        let peer = match link.decided()?.peer {
            Peer::Container(name) if name == *container => {
                return Err(format!("links: container {container} needs none to itself"));
            }
            Peer::Container(name) if is_apart(&name) => return Ok(()),
            Peer::Container(name) => name,
            Peer::Pod => "the pod".to_owned(),
        };
        if is_apart(container) {
            return Ok(());
        }
        Err(format!(
            "links: neither {container} nor {peer} is among `containers`: they share a network, where \
             port {} needs no link",
            link.port
        ))
    }
}

impl LinkOf {
    /// The link, or what is wrong with it.
    fn decided(&self) -> Result<Link, String> {
        let Self {
            container, port, ..
        } = self;
        if *port == 0 || self.local == Some(0) {
            return Err(format!("links: a port of container {container} is 0"));
        }
        let link = match (self.to.as_deref(), self.from.as_deref()) {
            (Some(to), None) => link_to(to, *port),
            (None, Some(from)) => link_from(from, *port),
            _ => {
                return Err(format!(
                    "links: one of container {container} needs `to` or `from`, and not both"
                ));
            }
        };
        Ok(Link {
            local: self.local,
            protocol: match self.protocol {
                Carried::Tcp => Protocol::Tcp,
                Carried::Udp => Protocol::Udp,
            },
            ..link
        })
    }
}

husk_plugin::policy!(Isolate);
husk_plugin::links!(Isolate);
husk_plugin::configurable!(Isolate);
