//! Ports of the node that lead to a pod.
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As CNI and command lines have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the node that leads to one of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The node's address; every one if `None`, as with other tools.
    pub address: Option<IpAddr>,
    /// The node's port.
    pub node: u16,
    /// The pod's port.
    pub pod: u16,
    /// What is carried.
    pub protocol: Protocol,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.node, self.pod, self.protocol.name())
    }
}

/// `[ADDRESS:]NODE:POD[/PROTOCOL]`; an IPv6 address is in brackets.
impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, protocol) = match text.rsplit_once('/') {
            None | Some((_, "tcp")) => {
                (text.rsplit_once('/').map_or(text, |it| it.0), Protocol::Tcp)
            }
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, other)) => {
                return Err(format!("the protocol `{other}` is not tcp or udp"));
            }
        };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("`{text}` is not a port, from 1 to 65535")),
        };
        let (rest, pod) = rest
            .rsplit_once(':')
            .ok_or("it is [ADDRESS:]NODE_PORT:POD_PORT[/tcp|/udp], such as 8080:80")?;
        let (address, node) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, node)) => {
                let inner = address
                    .strip_prefix('[')
                    .and_then(|address| address.strip_suffix(']'))
                    .unwrap_or(address);
                let parsed = inner
                    .parse()
                    .map_err(|_| format!("`{address}` is not an IP address"))?;
                (Some(parsed), node)
            }
        };
        Ok(Self {
            address,
            node: port(node)?,
            pod: port(pod)?,
            protocol,
        })
    }
}

/// Two that cannot both be.
pub(super) fn twice(ports: &[Published]) -> Option<(&Published, &Published)> {
    let clash = |one: &Published, other: &Published| {
        let same_address = match (one.address, other.address) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        one.node == other.node && one.protocol == other.protocol && same_address
    };
    ports.iter().enumerate().find_map(|(at, one)| {
        let mut later = ports.iter().skip(at + 1);
        later
            .find(|other| clash(one, other))
            .map(|other| (one, other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_shown() {
        for (text, shown) in [
            ("8080:80", "8080:80/tcp"),
            ("8080:80/tcp", "8080:80/tcp"),
            ("127.0.0.1:53:5353/udp", "127.0.0.1:53:5353/udp"),
            ("[::1]:80:8080", "[::1]:80:8080/tcp"),
        ] {
            assert_eq!(text.parse::<Published>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "80",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "80:65536",
            "80:80/sctp",
            "x:80:80",
            "a:b",
            "1:2:3:4",
            "::1:80:80:",
            "80:80/",
        ] {
            assert!(wrong.parse::<Published>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_of_the_node_leads_to_one() {
        let ports = |texts: &[&str]| -> Vec<Published> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert!(twice(&ports(&["80:1", "80:1/udp", "81:1"])).is_none());
        assert!(twice(&ports(&["127.0.0.1:80:1", "127.0.0.2:80:1"])).is_none());
        assert!(twice(&ports(&["80:1", "127.0.0.1:80:2"])).is_some());
    }
}
