//! One value for every kind of namespace.
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use crate::Kind;

/// One value for every kind of namespace; written with the kinds' names as keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerKind<T> {
    network: T,
    pid: T,
    ipc: T,
    uts: T,
    user: T,
    mount: T,
    cgroup: T,
    time: T,
}

impl<T> PerKind<T> {
    /// Makes each kind's value, or stops at the first error.
    ///
    /// # Errors
    /// What `make` answers.
    pub fn try_from_fn<E>(mut make: impl FnMut(Kind) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self {
            network: make(Kind::Network)?,
            pid: make(Kind::Pid)?,
            ipc: make(Kind::Ipc)?,
            uts: make(Kind::Uts)?,
            user: make(Kind::User)?,
            mount: make(Kind::Mount)?,
            cgroup: make(Kind::Cgroup)?,
            time: make(Kind::Time)?,
        })
    }

    /// The values with their kinds, in the order of [`Kind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &T)> {
        Kind::ALL.into_iter().map(|kind| (kind, &self[kind]))
    }
}

impl<T: Clone> PerKind<T> {
    /// Every kind with the same value.
    #[must_use]
    pub fn all(value: &T) -> Self {
        let value = || value.clone();
        Self {
            network: value(),
            pid: value(),
            ipc: value(),
            uts: value(),
            user: value(),
            mount: value(),
            cgroup: value(),
            time: value(),
        }
    }
}

impl<T> Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        match kind {
            Kind::Network => &self.network,
            Kind::Pid => &self.pid,
            Kind::Ipc => &self.ipc,
            Kind::Uts => &self.uts,
            Kind::User => &self.user,
            Kind::Mount => &self.mount,
            Kind::Cgroup => &self.cgroup,
            Kind::Time => &self.time,
        }
    }
}

impl<T> IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Network => &mut self.network,
            Kind::Pid => &mut self.pid,
            Kind::Ipc => &mut self.ipc,
            Kind::Uts => &mut self.uts,
            Kind::User => &mut self.user,
            Kind::Mount => &mut self.mount,
            Kind::Cgroup => &mut self.cgroup,
            Kind::Time => &mut self.time,
        }
    }
}
