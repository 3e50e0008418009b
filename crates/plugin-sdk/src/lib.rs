//! Write plugins for husk in Rust.
//!
//! A *policy* decides whose namespaces a container uses, *links* which port of its network leads to which
//! of another; *hooks* take part in a pod's life. All ask about their subject through [`pod`], [`container`], [`process`], [`exit`], [`update`] and [`host`],
//! and hooks change a container through [`edit`]. A whole policy:
//!
//! ```
//! use husk_plugin::{Answer, Kind, Policy, Scope, assign, container};
//!
//! struct Alone;
//!
//! impl Policy for Alone {
//!     fn scope_container() -> Answer {
//!         match container::name().as_str() {
//!             "agent" => Ok(vec![assign(Kind::Network, Scope::Container)]),
//!             _ => Ok(vec![]),
//!         }
//!     }
//! }
//!
//! husk_plugin::policy!(Alone);
//! # fn main() {}
//! ```
//!
//! Build it for `wasm32-unknown-unknown`, crate type `cdylib`, and make the result a component; or let
//! `husk policy build` do both.
//!
//! With the feature `settings`, [`settings()`] reads a plugin's settings into a type of its own.

#[doc(hidden)]
pub mod worlds;

pub use worlds::imports::husk::plugin::types::{
    Assignment, Denial, Mount, NamespaceKind as Kind, Scope,
};
pub use worlds::imports::husk::plugin::{container, edit, exit, host, pod, process, update};
pub use worlds::linking::exports::husk::plugin::linking::{Direction, Link, Peer, Protocol};

/// What a policy answers: scopes for the kinds it cares about, or a refusal.
pub type Answer = Result<Vec<Assignment>, Denial>;

/// What is answered for the links of a container: those it gets, or a refusal.
pub type Linked = Result<Vec<Link>, Denial>;

/// Whether something may happen.
pub type Verdict = Result<(), Denial>;

/// One decision: this kind of namespace gets this scope.
#[must_use]
pub fn assign(kind: Kind, scope: Scope) -> Assignment {
    Assignment { kind, scope }
}

/// A link: in the container, TCP port `port` is that port of its peer. Set `local` and `protocol` for
/// another: `Link { local: Some(3128), ..link_to("proxy", 8080) }`.
#[must_use]
pub fn link_to(peer: impl Into<Peer>, port: u16) -> Link {
    Link {
        direction: Direction::To,
        peer: peer.into(),
        port,
        local: None,
        protocol: Protocol::Tcp,
    }
}

/// A link the other way: at its peer, TCP port `port` is that port of the container.
#[must_use]
pub fn link_from(peer: impl Into<Peer>, port: u16) -> Link {
    Link {
        direction: Direction::From,
        ..link_to(peer, port)
    }
}

/// As a handler's configuration writes it: `pod`, or a container's name.
impl From<&str> for Peer {
    fn from(word: &str) -> Self {
        match word {
            "pod" => Self::Pod,
            name => Self::Container(name.to_owned()),
        }
    }
}

/// A refusal; the reason reaches whoever asked.
#[must_use]
pub fn deny(reason: impl Into<String>) -> Denial {
    Denial {
        reason: reason.into(),
    }
}

/// The scope of this kind among `assignments`, such as those of [`container::requested_scopes`].
#[must_use]
pub fn scope_of(assignments: &[Assignment], kind: Kind) -> Option<&Scope> {
    assignments
        .iter()
        .find(|assignment| assignment.kind == kind)
        .map(|assignment| &assignment.scope)
}

/// This plugin's settings.
///
/// # Errors
/// A refusal that says what is wrong with them.
#[cfg(feature = "settings")]
pub fn settings<T: serde::de::DeserializeOwned>() -> Result<T, Denial> {
    parse_settings(&host::settings()).map_err(|problem| deny(format!("settings: {problem}")))
}

/// Reads settings; what [`Configurable::validate_settings`] needs.
///
/// # Errors
/// What is wrong with them, and where.
#[cfg(feature = "settings")]
pub fn parse_settings<T: serde::de::DeserializeOwned>(settings: &str) -> Result<T, String> {
    serde_json::from_str(settings).map_err(|error| error.to_string())
}

/// Lets a panic say where and why, in the shim's log and in the refusal that it becomes. Called before
/// every function of a plugin.
pub(crate) fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        host::log(host::Level::Error, &panic.to_string());
    }));
}

/// Decides scopes. What a policy does not name stays as requested.
pub trait Policy {
    /// Asked once for a pod, before its sandbox exists.
    ///
    /// # Errors
    /// A refusal of the pod.
    fn scope_sandbox() -> Answer {
        Ok(Vec::new())
    }

    /// Asked for every container, before it exists.
    ///
    /// # Errors
    /// A refusal of the container.
    fn scope_container() -> Answer {
        Ok(Vec::new())
    }
}

/// Decides links, beside those of the handler's configuration.
pub trait Links {
    /// Asked for every container once its scopes are decided, before it exists.
    ///
    /// # Errors
    /// A refusal of the container.
    fn link_container() -> Linked;
}

/// Takes part in a pod's life. Every function admits, or does nothing, unless it is written.
pub trait Hooks {
    /// Before anything of the pod exists.
    ///
    /// # Errors
    /// A refusal of the pod.
    fn sandbox_starting() -> Verdict {
        Ok(())
    }

    /// The sandbox exists; no container does.
    fn sandbox_started() {}

    /// The sandbox's namespaces are gone.
    fn sandbox_stopped() {}

    /// Before the container exists; it may be changed through [`edit`].
    ///
    /// # Errors
    /// A refusal of the container.
    fn container_creating() -> Verdict {
        Ok(())
    }

    /// Its first process runs.
    fn container_started() {}

    /// Its first process has ended; [`exit`] tells how.
    fn container_exited() {}

    /// The kernel killed a process of it for want of memory.
    fn container_oom() {}

    /// Before a further process starts in it; [`process`] tells which.
    ///
    /// # Errors
    /// A refusal of the exec.
    fn exec_starting() -> Verdict {
        Ok(())
    }

    /// Before its limits change; [`update`] tells the new ones.
    ///
    /// # Errors
    /// A refusal of the change.
    fn resources_updating() -> Verdict {
        Ok(())
    }
}

/// Checks settings when a sandbox is made, before anything else is asked.
pub trait Configurable {
    /// Says what is wrong with these settings (JSON), naming the key.
    ///
    /// # Errors
    /// What is wrong.
    fn validate_settings(settings: String) -> Result<(), String>;
}

/// Exports a type that is a [`Policy`].
#[macro_export]
macro_rules! policy {
    ($plugin:ident) => {
        $crate::worlds::scoping::export!($plugin with_types_in $crate::worlds::scoping);
    };
}

/// Exports a type that decides [`Links`].
#[macro_export]
macro_rules! links {
    ($plugin:ident) => {
        $crate::worlds::linking::export!($plugin with_types_in $crate::worlds::linking);
    };
}

/// Exports a type that has [`Hooks`].
#[macro_export]
macro_rules! hooks {
    ($plugin:ident) => {
        $crate::worlds::lifecycle::export!($plugin with_types_in $crate::worlds::lifecycle);
    };
}

/// Exports a type that is [`Configurable`].
#[macro_export]
macro_rules! configurable {
    ($plugin:ident) => {
        $crate::worlds::configurable::export!($plugin with_types_in $crate::worlds::configurable);
    };
}
