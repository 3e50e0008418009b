//! `[[containers.NAME.links]]`: the ports that lead out of a container's network, or into it.
use std::collections::HashSet;

use super::BY;
use super::reader::{ConfigError, Value};
use crate::Ceiling;
use crate::links::{Direction, Link, MOST, POD, PROTOCOLS, Peer, Protocol, Reach};

/// The keys of `[[containers.NAME.links]]`.
pub(super) const LINK_KEYS: [&str; 5] = ["to", "from", "port", "local", "protocol"];

/// Reads the links of the container of this name.
pub(super) fn links(
    value: Value<'_>,
    container: &str,
    ceiling: &Ceiling,
) -> Result<Vec<Link>, ConfigError> {
    let wanted = "an array of tables, each headed [[containers.NAME.links]]";
    let mut links = Vec::new();
    // Where connections come in: in the container's own network, or in its peer's.
    let mut ports = HashSet::new();
    for value in value.array(wanted)? {
        if ceiling.links() == Reach::None {
            return Err(value.senseless(format!(
                "container {container} cannot have links: [ceiling] says links = \"none\""
            )));
        }
        let link = link(value, container)?;
        if !ports.insert(link.entrance()) {
            return Err(value.senseless(format!(
                "container {container} has two links with one port: {link}"
            )));
        }
        if links.len() == MOST {
            return Err(
                value.senseless(format!("container {container} has more than {MOST} links"))
            );
        }
        links.push(link);
    }
    Ok(links)
}

fn link(value: Value<'_>, container: &str) -> Result<Link, ConfigError> {
    let table = value.table(format!("containers.{container}.links"))?;
    table.only(&LINK_KEYS)?;
    let (direction, peer) = match (table.get("to"), table.get("from")) {
        (Some(to), None) => (Direction::To, peer(to, container)?),
        (None, Some(from)) => (Direction::From, peer(from, container)?),
        (None, None) => return Err(value.lacks("to` or `from")),
        (Some(_), Some(from)) => {
            return Err(from.senseless(
                "a link leads one way: use `to` or `from`, or a link for each of them",
            ));
        }
    };
    let port = table
        .get("port")
        .ok_or_else(|| value.lacks("port"))?
        .port()?;
    Ok(Link {
        direction,
        peer,
        port,
        local: table.get("local").map_or(Ok(port), Value::port)?,
        protocol: table.get("protocol").map_or(Ok(Protocol::Tcp), |value| {
            value.one_of("a protocol", &PROTOCOLS)
        })?,
        by: BY.to_owned(),
    })
}

fn peer(value: Value<'_>, container: &str) -> Result<Peer, ConfigError> {
    match value.string("the name of a container, or \"pod\"")? {
        "" => Err(value.senseless("a link needs the name of a container, or \"pod\"")),
        POD => Ok(Peer::Pod),
        name if name == container => Err(value.senseless(format!(
            "container {container} cannot have a link with itself"
        ))),
        name => Ok(Peer::Container(name.to_owned())),
    }
}
