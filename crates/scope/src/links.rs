//! Links: one port of one network namespace that leads to one port of another.
//!
//! A container whose network is its own reaches nothing and is reached by nothing. A [`Link`] of it
//! opens one port, in one direction. [`plan`] says what the links of a pod's containers come to:
//! which ports to listen on in whose network, and which port of whose network each leads to.
//!
//! # The rules
//!
//! * A link has two ends: the container that has it, and its peer, another container or the pod.
//!   What counts is the network that a container is in, be it its own, a group's, the pod's or, with
//!   TARGET, another container's.
//! * A link is there while both containers are; `pod` is always there. So a link to a container that
//!   is not made yet, or has ended, is refused as a port is that nobody listens on; when the container
//!   is made, or made again, the link is, too.
//! * Two ends in one network make no link: the port is there already.
//! * The node's network is never an end.
//! * A port of a network leads to one place. Containers of one network may have the same link, and
//!   configuration and plugins may decide the same one.
//! * Links may form a chain, but no circle.
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Ceiling, Scope};

/// The most links that one container may have: each holds two listening sockets.
pub const MOST: usize = 1024;

/// What a configuration calls the pod where it names a peer.
pub const POD: &str = "pod";

/// A link of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Who may connect to whom.
    pub direction: Direction,
    /// The other end.
    pub peer: Peer,
    /// The port at the other end.
    pub port: u16,
    /// The port in the container's own network.
    pub local: u16,
    /// What is carried.
    pub protocol: Protocol,
    /// Who decided: `configuration`, or `policy NAME`.
    pub by: String,
}

/// Which way connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The container connects to its peer.
    To,
    /// The peer connects to the container.
    From,
}

/// The other end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// The pod's network.
    Pod,
    /// The network of the container of this name.
    Container(String),
}

/// What a link carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// The most that links may reach; set by the handler's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// There are none.
    None,
    /// The networks of one pod.
    #[default]
    Pod,
}

/// Whose network it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The pod's.
    Pod,
    /// That of the container of this name alone.
    Container(String),
    /// That of the group of this name.
    Group(String),
}

/// Where connections of a link come in: a port of its peer's network, or of its container's own.
pub(crate) type Entrance = (Option<Peer>, Protocol, u16);

/// A container that has been made and has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    /// Its name in the pod.
    pub name: &'a str,
    /// Whose network it is in, as planned.
    pub network: &'a Scope,
    /// Its links.
    pub links: &'a [Link],
}

/// A link both of whose ends are there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Joined {
    /// Where connections come from.
    pub from: Network,
    /// The port to listen on.
    pub port: u16,
    /// Listen on every address of that network, not on its loopback addresses alone.
    pub exposed: bool,
    /// What is carried.
    pub protocol: Protocol,
    /// Where connections go.
    pub to: Network,
    /// The port to connect to.
    pub to_port: u16,
}

/// A link both of whose ends are there, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The link.
    pub joined: Joined,
    /// The container that has it; the first one, of several.
    pub container: String,
    /// Who decided.
    pub by: String,
}

/// Why a link cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The handler's configuration allows none.
    #[error(
        "container {container} cannot have {link}: [ceiling] of the handler's configuration says \
         links = \"none\""
    )]
    AboveCeiling {
        /// Whose link it is.
        container: String,
        /// The link in words.
        link: Box<Link>,
    },
    /// Its ends are one network.
    #[error(
        "container {container} cannot have {link}: both are in {network}, where the port is \
         reached without a link"
    )]
    SameNetwork {
        /// Whose link it is.
        container: String,
        /// The link in words.
        link: Box<Link>,
        /// The network.
        network: Network,
    },
    /// An end of it is the node's network.
    #[error(
        "container {container} cannot have {link}: {whose} is on the node's network, and no link \
         leads there or comes from there"
    )]
    Node {
        /// Whose link it is.
        container: String,
        /// The link in words.
        link: Box<Link>,
        /// `the pod`, or `container NAME`.
        whose: String,
    },
    /// Two that decide its links want a port to lead to different places.
    #[error(
        "container {container} cannot have both {other} and {link}: connections come in at one port; \
         give one of them another `{key}`, or leave one out"
    )]
    Conflict {
        /// Whose links they are.
        container: String,
        /// The link that was decided first.
        other: Box<Link>,
        /// The other one.
        link: Box<Link>,
        /// The key that says the port.
        key: &'static str,
    },
    /// The port leads elsewhere already.
    #[error(
        "container {container} cannot have {link}: {protocol} port {port} of {network} is taken by \
         a link of container {other}, decided by {other_by}; give one of them another `{key}`"
    )]
    Taken {
        /// Whose link it is.
        container: String,
        /// The link in words.
        link: Box<Link>,
        /// What is carried.
        protocol: Protocol,
        /// The port that is taken.
        port: u16,
        /// In whose network.
        network: Box<Network>,
        /// Whose link has it.
        other: String,
        /// Who decided that one.
        other_by: String,
        /// The key that says the port.
        key: &'static str,
    },
    /// It would lead to itself.
    #[error(
        "container {container} cannot have {link}: other links lead from there back to where it \
         begins, so that a connection would go round for ever"
    )]
    Circle {
        /// Whose link it is.
        container: String,
        /// The link in words.
        link: Box<Link>,
    },
    /// There are too many.
    #[error(
        "container {container} has {count} links; {MOST} are the most that a container may have"
    )]
    TooMany {
        /// Whose they are.
        container: String,
        /// How many there are.
        count: usize,
    },
}

/// Adds further links to those of a container: what plugins decide to what the configuration says, or
/// what one plugin decides to what another does. A link that is there already stays as it is.
///
/// # Errors
/// Two of them come in at one port and lead to different places, or there are too many.
pub fn add(
    links: &mut Vec<Link>,
    further: impl IntoIterator<Item = Link>,
    container: &str,
) -> Result<(), LinkError> {
    let entrances = links.iter().enumerate();
    let mut entrances: HashMap<Entrance, usize> =
        entrances.map(|(at, link)| (link.entrance(), at)).collect();
    for link in further {
        let entrance = link.entrance();
        match entrances.get(&entrance).and_then(|at| links.get(*at)) {
            Some(other) if other.is_as(&link) => {}
            Some(other) => {
                return Err(LinkError::Conflict {
                    container: container.to_owned(),
                    other: Box::new(other.clone()),
                    key: link.listening_key(),
                    link: Box::new(link),
                });
            }
            None => {
                entrances.insert(entrance, links.len());
                links.push(link);
            }
        }
        if links.len() > MOST {
            return Err(LinkError::TooMany {
                container: container.to_owned(),
                count: links.len(),
            });
        }
    }
    Ok(())
}

/// What the links of these containers come to. Those whose peer is not among `containers` are left
/// out: they come with it.
///
/// `pod` is the scope of the pod's own network: NODE with hostNetwork, else POD.
///
/// # Errors
/// See [`LinkError`]. If the plan without the last of `containers` was possible, it is that one's
/// arrival that is not.
pub fn plan(
    containers: &[Present<'_>],
    pod: &Scope,
    ceiling: &Ceiling,
) -> Result<Vec<Planned>, LinkError> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut taken: HashMap<(Network, Protocol, u16), usize> = HashMap::new();
    for present in containers {
        if present.links.len() > MOST {
            return Err(LinkError::TooMany {
                container: present.name.to_owned(),
                count: present.links.len(),
            });
        }
        for link in present.links {
            if ceiling.links() == Reach::None {
                let (container, link) = (present.name.to_owned(), Box::new(link.clone()));
                return Err(LinkError::AboveCeiling { container, link });
            }
            let Some(joined) = join(present, link, containers, pod)? else {
                continue;
            };
            let key = (joined.from.clone(), joined.protocol, joined.port);
            match taken.get(&key).and_then(|at| planned.get(*at)) {
                Some(other) if other.joined == joined => {}
                Some(other) => {
                    return Err(LinkError::Taken {
                        container: present.name.to_owned(),
                        link: Box::new(link.clone()),
                        protocol: joined.protocol,
                        port: joined.port,
                        network: Box::new(joined.from),
                        other: other.container.clone(),
                        other_by: other.by.clone(),
                        key: link.listening_key(),
                    });
                }
                None => {
                    taken.insert(key, planned.len());
                    planned.push(Planned {
                        joined,
                        container: present.name.to_owned(),
                        by: link.by.clone(),
                    });
                    if goes_round(&planned, &taken) {
                        return Err(LinkError::Circle {
                            container: present.name.to_owned(),
                            link: Box::new(link.clone()),
                        });
                    }
                }
            }
        }
    }
    Ok(planned)
}

/// The link, if its peer is there.
fn join(
    present: &Present<'_>,
    link: &Link,
    containers: &[Present<'_>],
    pod: &Scope,
) -> Result<Option<Joined>, LinkError> {
    let on_the_node = |whose: String| LinkError::Node {
        container: present.name.to_owned(),
        link: Box::new(link.clone()),
        whose,
    };
    let own = match network_of(present.name, containers, pod) {
        Place::In(network) => network,
        Place::Node => return Err(on_the_node(format!("container {}", present.name))),
        Place::Absent => return Ok(None),
    };
    let peer = match &link.peer {
        Peer::Pod if *pod == Scope::Node => return Err(on_the_node("the pod".to_owned())),
        Peer::Pod => Network::Pod,
        Peer::Container(name) => match network_of(name, containers, pod) {
            Place::In(network) => network,
            Place::Node => return Err(on_the_node(format!("container {name}"))),
            Place::Absent => return Ok(None),
        },
    };
    if own == peer {
        return Err(LinkError::SameNetwork {
            container: present.name.to_owned(),
            link: Box::new(link.clone()),
            network: own,
        });
    }
    let protocol = link.protocol;
    Ok(Some(match link.direction {
        Direction::To => Joined {
            from: own,
            port: link.local,
            exposed: false,
            protocol,
            to: peer,
            to_port: link.port,
        },
        Direction::From => Joined {
            // The pod's own addresses are what probes and Services use.
            exposed: link.peer == Peer::Pod,
            from: peer,
            port: link.port,
            protocol,
            to: own,
            to_port: link.local,
        },
    }))
}

/// Where a container is.
enum Place {
    In(Network),
    Node,
    /// It is not among those that are there, or its target is not.
    Absent,
}

fn network_of(name: &str, containers: &[Present<'_>], pod: &Scope) -> Place {
    let mut name = name;
    // A target may have a target; a circle of them cannot have been made.
    for _ in containers {
        // A name may have been used before: the last to come is the one that is meant.
        let found = containers.iter().rev().find(|found| found.name == name);
        let Some(found) = found else {
            return Place::Absent;
        };
        match found.network {
            Scope::Container => return Place::In(Network::Container(name.to_owned())),
            Scope::Group(group) => return Place::In(Network::Group(group.clone())),
            Scope::Pod if *pod != Scope::Node => return Place::In(Network::Pod),
            Scope::Pod | Scope::Node => return Place::Node,
            Scope::Target(target) => name = target,
        }
    }
    Place::Absent
}

/// Whether the last link leads to one that leads, over however many, back to it.
fn goes_round(planned: &[Planned], taken: &HashMap<(Network, Protocol, u16), usize>) -> bool {
    let Some(last) = planned.last() else {
        return false;
    };
    let mut at = &last.joined;
    for _ in planned {
        let next = taken.get(&(at.to.clone(), at.protocol, at.to_port));
        match next.and_then(|next| planned.get(*next)) {
            Some(next) if next.joined == last.joined => return true,
            Some(next) => at = &next.joined,
            None => return false,
        }
    }
    true
}

impl Link {
    /// The key of a configuration that says on which port connections come in.
    const fn listening_key(&self) -> &'static str {
        match self.direction {
            Direction::To => "local",
            Direction::From => "port",
        }
    }

    /// Where connections come in.
    pub(crate) fn entrance(&self) -> Entrance {
        match self.direction {
            Direction::To => (None, self.protocol, self.local),
            Direction::From => (Some(self.peer.clone()), self.protocol, self.port),
        }
    }

    /// Whether it is the same link, whoever decided it.
    fn is_as(&self, other: &Self) -> bool {
        let Self {
            direction,
            peer,
            port,
            local,
            protocol,
            by: _,
        } = self;
        (*direction, peer, *port, *local, *protocol)
            == (
                other.direction,
                &other.peer,
                other.port,
                other.local,
                other.protocol,
            )
    }

    /// What it is, without who decided it.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { peer, port, .. } = self;
        let way = match self.direction {
            Direction::To => "to",
            Direction::From => "from",
        };
        let mut words = format!("{way} {} port {port} of {peer}", self.protocol);
        if self.local != self.port {
            let _ = write!(words, " (local {})", self.local);
        }
        words
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the link {}, decided by {}", self.words(), self.by)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("the pod"),
            Self::Container(name) => write!(f, "container {name}"),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("the pod's network"),
            Self::Container(name) => write!(f, "the network of container {name}"),
            Self::Group(name) => write!(f, "the network of group {name}"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Protocol {
    /// The word that a configuration uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What a configuration may say where it names a protocol.
pub(crate) const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

impl FromStr for Protocol {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(()),
        }
    }
}

/// What a configuration may say of how far links reach.
pub(crate) const REACHES: [&str; 2] = ["none", "pod"];

impl FromStr for Reach {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "none" => Ok(Self::None),
            "pod" => Ok(Self::Pod),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests;
