//! The resolv.conf of a container whose network is its own.
//!
//! The pod's names servers that it cannot reach: each look-up would wait for seconds. With a link for
//! port 53 the server is at the other end of that; without one, on a loopback address where nobody
//! listens, which the kernel says at once.
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use husk_scope::links::{Direction, Link, Protocol};
use husk_scope::{Kind, Plan, Scope};
use oci_spec::runtime::{Mount, MountBuilder, Spec};

/// Where resolvers look; see resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where DNS is.
const DNS: u16 = 53;

/// Gives the container a resolv.conf that answers at once, if its network is its own or a group's and
/// was not asked for. One that the pod's author mounts stays: what containerd and Docker write is known
/// by the directory it is in, that of the container, of the sandbox or of the pod's files, `owners`.
pub(super) fn give(
    dir: &Path,
    spec: &mut Spec,
    plan: &Plan,
    links: &[Link],
    owners: &[&str],
) -> io::Result<()> {
    let network = plan.get(Kind::Network);
    let is_apart = matches!(network.scope, Scope::Container | Scope::Group(_));
    let is_asked_for = !network.is_changed() && links.is_empty();
    if !is_apart || is_asked_for {
        return Ok(());
    }
    let mounts = spec.mounts_mut().get_or_insert_default();
    let mounted = mounts
        .iter_mut()
        .find(|mount| mount.destination() == Path::new(RESOLV_CONF));
    let before = match &mounted {
        Some(mount) if !is_the_pods(mount, owners) => return Ok(()),
        Some(mount) => mount.source().as_deref().map(fs::read_to_string),
        None => None,
    };
    // One that cannot be read has nothing to keep.
    let before = before.and_then(Result::ok).unwrap_or_default();
    let path = dir.join("resolv.conf");
    fs::write(&path, text(&before, links))?;
    fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    let mount = bind(&path)?;
    match mounted {
        Some(mounted) => *mounted = mount,
        None => mounts.push(mount),
    }
    Ok(())
}

fn is_the_pods(mount: &Mount, owners: &[&str]) -> bool {
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name);
        name.and_then(|name| name.to_str()).map(str::to_owned)
    };
    name(Some(source)).as_deref() == Some("resolv.conf")
        && name(source.parent()).is_some_and(|owner| owners.contains(&owner.as_str()))
}

fn bind(source: &Path) -> io::Result<Mount> {
    MountBuilder::default()
        .destination(PathBuf::from(RESOLV_CONF))
        .typ("bind")
        .source(source)
        // Nobody else reads it, and what is written to it would be the node's memory.
        .options(["rbind", "rprivate", "ro"].map(str::to_owned))
        .build()
        .map_err(io::Error::other)
}

/// What the file says, given what it said before.
fn text(before: &str, links: &[Link]) -> String {
    let leads = |protocol| {
        links.iter().any(|link| {
            link.direction == Direction::To && link.local == DNS && link.protocol == protocol
        })
    };
    let (udp, tcp) = (leads(Protocol::Udp), leads(Protocol::Tcp));
    let mut text = String::new();
    if !udp && !tcp {
        // musl asks an unconnected socket, and is told nothing: it must not wait. glibc is told.
        text.push_str("nameserver 127.0.0.1\noptions timeout:0 attempts:1\n");
        return text;
    }
    // Names are looked up as in the rest of the pod.
    for line in before.lines() {
        let word = line.split_whitespace().next();
        if matches!(word, Some("search" | "domain" | "options" | "sortlist")) {
            text.push_str(line.trim());
            text.push('\n');
        }
    }
    text.push_str("nameserver 127.0.0.1\n");
    if !udp {
        text.push_str("options use-vc\n");
    }
    // While nobody listens behind the link, the first of these is lost and the next is refused.
    text.push_str("options timeout:1 attempts:3\n");
    text
}

#[cfg(test)]
mod tests {
    use husk_scope::links::Peer;
    use husk_scope::{Assignment, Ceiling, Scopes};

    use super::*;

    fn link(protocol: Protocol) -> Link {
        Link {
            direction: Direction::To,
            peer: Peer::Pod,
            port: 5353,
            local: DNS,
            protocol,
            by: "configuration".to_owned(),
        }
    }

    fn plan(scope: Scope) -> Plan {
        let mut requested = Scopes::all(&Scope::Pod);
        requested[Kind::Mount] = Scope::Container;
        let assigned = Assignment {
            kind: Kind::Network,
            scope,
            by: "configuration".to_owned(),
        };
        Plan::new(&requested, &[assigned], &Ceiling::default()).unwrap()
    }

    /// What is mounted in the end, given what was: a directory's name and the file's text.
    fn given(scope: Scope, links: &[Link], mounted: Option<&str>) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::default();
        let mut mounts = Vec::new();
        if let Some(owner) = mounted {
            let source = dir.path().join(owner).join("resolv.conf");
            fs::create_dir_all(source.parent().unwrap()).unwrap();
            fs::write(
                &source,
                "search a.svc\nnameserver 10.0.0.10\noptions ndots:5\n",
            )
            .unwrap();
            mounts.push(bind(&source).unwrap());
        }
        spec.set_mounts(Some(mounts));
        give(
            dir.path(),
            &mut spec,
            &plan(scope),
            links,
            &["pod1", "files"],
        )
        .unwrap();
        let mounts = spec.mounts().as_ref().unwrap();
        let found: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.destination() == Path::new(RESOLV_CONF))
            .collect();
        assert!(found.len() <= 1);
        match found.first() {
            Some(mount) => {
                let source = mount.source().clone().unwrap();
                let ours = source.parent() == Some(dir.path());
                (fs::read_to_string(source).unwrap(), ours)
            }
            None => (String::new(), false),
        }
    }

    #[test]
    fn without_a_link_it_is_refused_at_once() {
        let expected = "nameserver 127.0.0.1\noptions timeout:0 attempts:1\n";
        for mounted in [None, Some("pod1"), Some("files")] {
            let (text, _) = given(Scope::Container, &[], mounted);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn with_a_link_names_are_those_of_the_pod() {
        let (text, _) = given(Scope::Container, &[link(Protocol::Udp)], Some("pod1"));
        assert_eq!(
            text,
            "search a.svc\noptions ndots:5\nnameserver 127.0.0.1\noptions timeout:1 attempts:3\n"
        );
        let (text, _) = given(Scope::Container, &[link(Protocol::Tcp)], None);
        assert!(text.contains("use-vc"), "{text}");
    }

    #[test]
    fn what_the_pods_author_mounts_stays() {
        let (text, ours) = given(Scope::Container, &[], Some("volume"));
        assert!(text.contains("10.0.0.10") && !ours);
    }

    #[test]
    fn whoever_is_on_the_pods_network_keeps_its_names() {
        let (text, ours) = given(Scope::Pod, &[], Some("pod1"));
        assert!(text.contains("10.0.0.10") && !ours);
    }
}
