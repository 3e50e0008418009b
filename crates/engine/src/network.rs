//! How a pod reaches others, and is reached: what CRI leaves to CNI.
//!
//! Every pod that is not on the node's network has a network namespace of its own, with loopback
//! ([`netns`](crate::netns)). What leads out of it is another program's: `pasta`, which carries what
//! programs in it do by sockets of its own on the node, or the plugins of CNI.
mod cni;
mod pasta;
mod port;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::port::{Protocol, Published};

/// What a pod's network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing but loopback.
    #[default]
    None,
    /// The node's.
    Host,
    /// What `pasta` carries.
    Pasta,
    /// What the plugins of CNI make.
    Cni(Cni),
}

/// Where the plugins of CNI are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cni {
    /// The list of plugins, with their configurations: what has been added must be deleted by the same.
    pub list: PathBuf,
    /// Where their programs are.
    pub programs: PathBuf,
}

/// What `husk run` was told of the network.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The network by its name; `None` leaves the choice.
    pub network: Option<Kind>,
    /// Ports to publish, beside the manifest's `hostPort`.
    pub published: Vec<Published>,
    /// Where lists of CNI plugins are.
    pub cni_lists: PathBuf,
    /// Where CNI plugins are.
    pub cni_programs: PathBuf,
}

/// The networks there are, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`Network::None`].
    None,
    /// See [`Network::Host`].
    Host,
    /// See [`Network::Pasta`].
    Pasta,
    /// See [`Network::Cni`].
    Cni,
}

/// What was chosen, and what of a manifest it cannot do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The pod's network.
    pub network: Network,
    /// Whether it was asked for: if it cannot be had then, neither can the pod.
    pub asked_for: bool,
    /// What leads from the node to the pod.
    pub published: Vec<Published>,
    /// What is left aside, in words.
    pub left_aside: Vec<String>,
}

/// Why a pod cannot have a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// What was asked for contradicts itself, or the manifest.
    #[error("{0}")]
    Senseless(String),
    /// A program is missing.
    #[error("--network {network} needs {program}: {fix}")]
    Missing {
        /// The network.
        network: &'static str,
        /// What is missing.
        program: String,
        /// How to get it.
        fix: &'static str,
    },
    /// A program failed.
    #[error("{program} cannot {what}: {reason}")]
    Failed {
        /// The program.
        program: String,
        /// What it was to do.
        what: String,
        /// What it said.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The answer.
        source: io::Error,
    },
}

impl NetworkError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl Wanted {
    /// Chooses a pod's network, before anything is made. `host_network` and `host_ports` are what its
    /// manifest says.
    ///
    /// A manifest with `hostNetwork` has the node's. Otherwise, if nothing is asked for, it is pasta's
    /// where pasta is installed, and nothing but loopback where it is not.
    ///
    /// # Errors
    /// What contradicts itself; a program or a list of CNI plugins that is missing.
    pub fn choose(
        &self,
        host_network: bool,
        host_ports: &[Published],
    ) -> Result<Chosen, NetworkError> {
        let senseless = |what: &str| Err(NetworkError::Senseless(what.to_owned()));
        let kind = match self.network {
            Some(Kind::Host) => Kind::Host,
            Some(_) if host_network => {
                return senseless(
                    "the manifest says hostNetwork: true, and --network something else: leave one out",
                );
            }
            Some(kind) => kind,
            None if host_network => Kind::Host,
            None if pasta::find().is_some() => Kind::Pasta,
            None => Kind::None,
        };
        let mut published = host_ports.to_vec();
        let mut left_aside = Vec::new();
        match kind {
            Kind::Host | Kind::None if !self.published.is_empty() => {
                return senseless(match (kind, self.network) {
                    (Kind::Host, _) => {
                        "--publish is for a pod with a network of its own: the ports of this one are the node's"
                    }
                    (_, None) => {
                        "--publish needs something that leads to the pod: install pasta (apt-get install \
                         passt), or say --network cni"
                    }
                    _ => "--publish leads nowhere with --network none: leave one of them out",
                });
            }
            // They are the node's already.
            Kind::Host => published.clear(),
            Kind::None => {
                left_aside = published.iter().map(left_aside_without_network).collect();
                published.clear();
                if self.network.is_none() {
                    left_aside.push(String::from(
                        "the pod's network is nothing but loopback, as pasta is not installed (apt-get \
                         install passt); --network none says that this is meant",
                    ));
                }
            }
            Kind::Pasta | Kind::Cni => published.extend(self.published.iter().cloned()),
        }
        if let Some((one, other)) = port::twice(&published) {
            return Err(NetworkError::Senseless(format!(
                "port {one} of the node is to lead to two ports: {one} and {other}"
            )));
        }
        let network = match kind {
            Kind::None => Network::None,
            Kind::Host => Network::Host,
            Kind::Pasta => {
                pasta::find().ok_or(NetworkError::Missing {
                    network: "pasta",
                    program: "the program pasta".to_owned(),
                    fix: "install passt (apt-get install passt)",
                })?;
                Network::Pasta
            }
            Kind::Cni => Network::Cni(cni::find(&self.cni_lists, &self.cni_programs)?),
        };
        Ok(Chosen {
            network,
            asked_for: self.network.is_some() || !self.published.is_empty(),
            published,
            left_aside,
        })
    }
}

fn left_aside_without_network(port: &Published) -> String {
    format!(
        "hostPort {port} is left aside: the pod's network is nothing but loopback (--network pasta, \
         or cni, leads to it)"
    )
}

/// Leads a pinned network namespace to others. `dir` is the pod's directory of state.
///
/// # Errors
/// What the program that does it said; what it had made is undone.
pub(crate) fn attach(
    chosen: &Chosen,
    id: &str,
    netns: &Path,
    dir: &Path,
) -> Result<(), NetworkError> {
    match &chosen.network {
        Network::None | Network::Host => Ok(()),
        Network::Pasta => pasta::start(netns, dir, &chosen.published),
        Network::Cni(cni) => cni::add(cni, id, netns, dir, &chosen.published),
    }
}

/// Undoes [`attach`], from the pod's record alone; nothing that is gone already is an error.
///
/// # Errors
/// What is left, and why.
pub(crate) fn detach(
    network: &Network,
    id: &str,
    netns: &Path,
    dir: &Path,
) -> Result<(), NetworkError> {
    match network {
        Network::None | Network::Host => Ok(()),
        Network::Pasta => pasta::end(netns, dir),
        Network::Cni(cni) => cni::delete(cni, id, netns, dir),
    }
}

/// The name server by which a pod reaches one of the node that is at this address: pasta leads there
/// from an address of its own where the node's own loopback is meant.
#[must_use]
pub(crate) fn name_server(network: &Network, server: &str) -> String {
    match (network, server.parse::<std::net::IpAddr>()) {
        (Network::Pasta, Ok(address)) if address.is_loopback() => pasta::NAME_SERVER.to_string(),
        _ => server.to_owned(),
    }
}
