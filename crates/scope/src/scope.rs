//! Whose namespace it is.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::PerKind;

/// Whose namespace of one kind a container uses.
///
/// The words are those of CRI's `NamespaceMode`; `Group` is husk's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One of its own.
    Container,
    /// The sandbox's, shared by the whole pod.
    Pod,
    /// The node's.
    Node,
    /// That of the container of this pod with this name.
    Target(String),
    /// One shared by the containers of this pod that name the same group.
    Group(String),
}

/// One scope for every kind of namespace.
pub type Scopes = PerKind<Scope>;

/// How much of the node may meet in a namespace of some scope: what a [`Ceiling`](crate::Ceiling)
/// compares.
///
/// TARGET is as wide as POD: the container it names may itself use the sandbox's namespace, and
/// nothing in the assignment says so. It is no wider, because [`Plan::edit`](crate::Plan::edit)
/// refuses an assigned TARGET that turns out to be the node's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// One container.
    Container,
    /// The containers of the pod that name one group.
    Group,
    /// Every container of the pod.
    Pod,
    /// Everything on the node.
    Node,
}

impl Scope {
    /// How wide this scope is.
    #[must_use]
    pub const fn width(&self) -> Width {
        match self {
            Self::Container => Width::Container,
            Self::Group(_) => Width::Group,
            Self::Pod | Self::Target(_) => Width::Pod,
            Self::Node => Width::Node,
        }
    }

    /// The scope as configurations write it, and [`Scope::from_str`] reads it.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Container => "container".to_owned(),
            Self::Pod => "pod".to_owned(),
            Self::Node => "node".to_owned(),
            Self::Target(name) => format!("target:{name}"),
            Self::Group(name) => format!("group:{name}"),
        }
    }

    /// Whether a namespace of this scope is made by someone else and joined by its path.
    #[must_use]
    pub const fn is_joined(&self) -> bool {
        matches!(self, Self::Pod | Self::Target(_) | Self::Group(_))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => f.write_str("CONTAINER"),
            Self::Pod => f.write_str("POD"),
            Self::Node => f.write_str("NODE"),
            Self::Target(name) => write!(f, "TARGET({name})"),
            Self::Group(name) => write!(f, "GROUP({name})"),
        }
    }
}

/// What a configuration may say where it names a scope; see [`Scope::from_str`].
pub(crate) const SCOPE_WORDS: [&str; 5] = ["container", "pod", "node", "target:NAME", "group:NAME"];

impl FromStr for Scope {
    type Err = String;

    /// Reads a scope as configurations write it: `container`, `pod`, `node`, `target:NAME`,
    /// `group:NAME`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.split_once(':') {
            None if s == "container" => Ok(Self::Container),
            None if s == "pod" => Ok(Self::Pod),
            None if s == "node" => Ok(Self::Node),
            Some(("target", name)) if !name.is_empty() => Ok(Self::Target(name.to_owned())),
            Some(("group", name)) if !name.is_empty() => Ok(Self::Group(name.to_owned())),
            _ => Err(format!("`{s}` is not a scope")),
        }
    }
}

impl Width {
    /// Every width, narrowest first.
    pub const ALL: [Self; 4] = [Self::Container, Self::Group, Self::Pod, Self::Node];

    /// The word that a configuration uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Group => "group",
            Self::Pod => "pod",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "CONTAINER",
            Self::Group => "GROUP",
            Self::Pod => "POD",
            Self::Node => "NODE",
        })
    }
}

impl FromStr for Width {
    type Err = String;

    /// Reads a width as configurations write it: `container`, `group`, `pod`, `node`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|width| width.name() == s)
            .ok_or_else(|| format!("`{s}` is not a ceiling"))
    }
}
