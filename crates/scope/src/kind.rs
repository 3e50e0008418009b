//! The kinds of Linux namespace.
use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::LinuxNamespaceType;
use serde::{Deserialize, Serialize};

/// A kind of Linux namespace, see namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Network devices, addresses, routes, ports, abstract unix sockets.
    Network,
    /// Process ids.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name and NIS domain name.
    Uts,
    /// User and group ids, capabilities.
    User,
    /// Mount points.
    Mount,
    /// The cgroup that looks like the root.
    Cgroup,
    /// Offsets of the monotonic and boot-time clocks.
    Time,
}

impl Kind {
    /// Every kind, in the order in which tables show them.
    pub const ALL: [Self; 8] = [
        Self::Network,
        Self::Pid,
        Self::Ipc,
        Self::Uts,
        Self::User,
        Self::Mount,
        Self::Cgroup,
        Self::Time,
    ];

    /// The name used in configuration, plans and errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The name of this kind's file in `/proc/PID/ns`.
    #[must_use]
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Mount => "mnt",
            other => other.name(),
        }
    }

    /// The OCI runtime spec's word for this kind.
    #[must_use]
    pub const fn oci(self) -> LinuxNamespaceType {
        match self {
            Self::Network => LinuxNamespaceType::Network,
            Self::Pid => LinuxNamespaceType::Pid,
            Self::Ipc => LinuxNamespaceType::Ipc,
            Self::Uts => LinuxNamespaceType::Uts,
            Self::User => LinuxNamespaceType::User,
            Self::Mount => LinuxNamespaceType::Mount,
            Self::Cgroup => LinuxNamespaceType::Cgroup,
            Self::Time => LinuxNamespaceType::Time,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == s)
            .ok_or_else(|| format!("`{s}` is not a kind of namespace"))
    }
}
