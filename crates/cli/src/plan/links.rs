//! The links that would be: what they come to when each container arrives.
use husk_engine::pod::Preview;
use husk_scope::links::{self, Link, LinkError, Peer, Present};
use husk_scope::{Ceiling, Scope};
use serde::Serialize;

/// A link that a container would have.
#[derive(Debug, Serialize)]
pub(super) struct PlannedLink {
    #[serde(flatten)]
    pub(super) link: Link,
    /// Why nobody would be reached through it; null where somebody may be.
    pub(super) waits: Option<String>,
}

/// The containers of the pod, as they come and go.
pub(super) struct Links {
    /// All of them in their order, and whether each ends before the next one comes.
    names: Vec<(String, bool)>,
    /// Those that are there.
    there: Vec<There>,
}

struct There {
    name: String,
    network: Scope,
    links: Vec<Link>,
    passes: bool,
}

impl Links {
    pub(super) fn new(containers: &[Preview]) -> Self {
        let names = containers.iter();
        Self {
            names: names
                .map(|preview| (preview.name.clone(), preview.passes))
                .collect(),
            there: Vec::new(),
        }
    }

    /// A container comes, whose network is this one; `pod` is the scope of the pod's own network.
    ///
    /// # Errors
    /// Its links cannot be beside those of the containers that are there. It is not there then.
    pub(super) fn add(
        &mut self,
        name: &str,
        network: &Scope,
        links: Vec<Link>,
        pod: &Scope,
        ceiling: &Ceiling,
    ) -> Result<Vec<PlannedLink>, LinkError> {
        self.there.retain(|there| !there.passes);
        self.there.push(There {
            name: name.to_owned(),
            network: network.clone(),
            passes: self.passes(name).unwrap_or(false),
            links: links.clone(),
        });
        let present: Vec<_> = self
            .there
            .iter()
            .map(|there| Present {
                name: &there.name,
                network: &there.network,
                links: &there.links,
            })
            .collect();
        if let Err(error) = links::plan(&present, pod, ceiling) {
            self.there.pop();
            return Err(error);
        }
        let links = links.into_iter().map(|link| PlannedLink {
            waits: self.waits(name, &link.peer),
            link,
        });
        Ok(links.collect())
    }

    /// Whether a container ends before the next one comes; none where the pod has none of this name.
    fn passes(&self, name: &str) -> Option<bool> {
        let mut names = self.names.iter();
        let (_, passes) = names.find(|(found, _)| found == name)?;
        Some(*passes)
    }

    /// Why a link of this container would reach nobody.
    fn waits(&self, own: &str, peer: &Peer) -> Option<String> {
        let Peer::Container(peer) = peer else {
            return None;
        };
        let at = |name: &str| self.names.iter().position(|(found, _)| found == name);
        let (Some(own_at), Some(peer_at)) = (at(own), at(peer)) else {
            return Some(format!(
                "the pod has no container {peer}: the link waits for one"
            ));
        };
        let first = if peer_at < own_at { peer } else { own };
        self.passes(first)?.then(|| {
            format!("container {first} has ended when the other comes: the link is never made")
        })
    }
}
