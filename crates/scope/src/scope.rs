//! Whose namespace it is.
use std::fmt;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use crate::Kind;

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

/// One scope for every kind of namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scopes([Scope; 8]);

impl Scopes {
    /// Every kind with the same scope.
    #[must_use]
    pub fn all(scope: &Scope) -> Self {
        Self(std::array::from_fn(|_| scope.clone()))
    }

    /// The scopes with their kinds, in the order of [`Kind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Scope)> {
        Kind::ALL.into_iter().zip(&self.0)
    }
}

impl Index<Kind> for Scopes {
    type Output = Scope;

    fn index(&self, kind: Kind) -> &Scope {
        let [network, pid, ipc, uts, user, mount, cgroup, time] = &self.0;
        match kind {
            Kind::Network => network,
            Kind::Pid => pid,
            Kind::Ipc => ipc,
            Kind::Uts => uts,
            Kind::User => user,
            Kind::Mount => mount,
            Kind::Cgroup => cgroup,
            Kind::Time => time,
        }
    }
}

impl IndexMut<Kind> for Scopes {
    fn index_mut(&mut self, kind: Kind) -> &mut Scope {
        let [network, pid, ipc, uts, user, mount, cgroup, time] = &mut self.0;
        match kind {
            Kind::Network => network,
            Kind::Pid => pid,
            Kind::Ipc => ipc,
            Kind::Uts => uts,
            Kind::User => user,
            Kind::Mount => mount,
            Kind::Cgroup => cgroup,
            Kind::Time => time,
        }
    }
}
