//! The handlers that are measured over CRI.
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use crate::candidate::name_of;

/// A handler of containerd's, under a name of its own in the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handler {
    /// In the results.
    pub(crate) name: String,
    /// What containerd calls it.
    pub(crate) handler: String,
    /// Whether its pods may be on the node's network.
    pub(crate) node_network: bool,
}

impl FromStr for Handler {
    type Err = anyhow::Error;

    /// Reads `NAME=HANDLER[,network=cni]`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = name_of(text, "HANDLER[,network=cni]")?;
        let (handler, option) = rest.split_once(',').unwrap_or((rest, ""));
        ensure!(
            !handler.is_empty(),
            "handler {name} is of no name to containerd"
        );
        let node_network = match option {
            "" => true,
            "network=cni" => false,
            other => bail!("`{other}` of handler {name} is not network=cni"),
        };
        Ok(Self {
            name: name.to_owned(),
            handler: handler.to_owned(),
            node_network,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_has_a_name_of_its_own() {
        let handler: Handler = "husk=husk-api,network=cni".parse().unwrap();
        assert_eq!(
            (handler.name.as_str(), handler.handler.as_str()),
            ("husk", "husk-api")
        );
        assert!(!handler.node_network);
        assert!("a=b".parse::<Handler>().unwrap().node_network);
        for wrong in ["husk", "a=", "a=b,network=node", "a/b=c"] {
            assert!(wrong.parse::<Handler>().is_err(), "{wrong}");
        }
    }
}
