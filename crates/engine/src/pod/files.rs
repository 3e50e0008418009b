//! The files of a pod that are not an image's: hosts, hostname, resolv.conf.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use crate::manifest::{Dns, HostAlias, Pod};
use crate::network::{self, Network};

const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Writes the files into `dir`; the answer maps their paths in containers to them. /etc/hosts is
/// the engine's as in Kubernetes it is the kubelet's; the others a shim with the Sandbox API makes
/// itself (contract 15).
pub(super) fn write(
    pod: &Pod,
    dir: &Path,
    sandbox_api: bool,
) -> Result<BTreeMap<PathBuf, PathBuf>, Error> {
    let mut contents = vec![(HOSTS, hosts(pod))];
    if !sandbox_api {
        contents.push((HOSTNAME, format!("{}\n", pod.hostname)));
        contents.push((RESOLV_CONF, render(&resolved(&pod.dns))));
    }
    fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    let mut files = BTreeMap::new();
    for (path, content) in contents {
        let file = dir.join(path.trim_start_matches("/etc/"));
        fs::write(&file, content).map_err(Error::io("write", &file))?;
        files.insert(PathBuf::from(path), file);
    }
    Ok(files)
}

fn hosts(pod: &Pod) -> String {
    let mut text = if pod.host_network {
        fs::read_to_string(HOSTS).unwrap_or_default()
    } else {
        format!(
            "127.0.0.1 localhost {}\n::1 localhost ip6-localhost ip6-loopback\n",
            pod.hostname
        )
    };
    for HostAlias { ip, hostnames } in &pod.host_aliases {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{ip} {}", hostnames.join(" "));
    }
    text
}

/// Has a pod ask name servers by the addresses at which its network has them.
pub(super) fn ask_by(dns: &mut Dns, network: &Network) {
    let node = resolved(dns);
    let servers: Vec<_> = node
        .servers
        .iter()
        .map(|server| network::name_server(network, server))
        .collect();
    if servers != node.servers {
        *dns = Dns {
            from_node: false,
            servers,
            ..node
        };
    }
}

/// The pod's DNS with the node's put first, if the node's is to be used and the manifest adds to
/// it; otherwise nothing would be left for the shim to copy.
pub(super) fn for_the_shim(dns: &Dns) -> Dns {
    let adds = !dns.servers.is_empty() || !dns.searches.is_empty() || !dns.options.is_empty();
    if adds { resolved(dns) } else { Dns::default() }
}

fn resolved(dns: &Dns) -> Dns {
    let node = if dns.from_node {
        fs::read_to_string(RESOLV_CONF)
    } else {
        Ok(String::new())
    };
    let mut all = parse(&node.unwrap_or_default());
    all.servers.extend_from_slice(&dns.servers);
    all.searches.extend_from_slice(&dns.searches);
    all.options.extend_from_slice(&dns.options);
    all
}

/// resolv.conf(5).
fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let list = match words.next() {
            Some("nameserver") => &mut dns.servers,
            Some("search") => &mut dns.searches,
            Some("options") => &mut dns.options,
            _ => continue,
        };
        list.extend(words.map(ToOwned::to_owned));
    }
    dns
}

fn render(dns: &Dns) -> String {
    let servers = dns
        .servers
        .iter()
        .map(|server| format!("nameserver {server}\n"));
    let mut text: String = servers.collect();
    for (keyword, words) in [("search", &dns.searches), ("options", &dns.options)] {
        if !words.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{keyword} {}", words.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_and_written() {
        let text = "nameserver 10.0.0.1\nnameserver ::1\nsearch a b\noptions ndots:5\n";
        assert_eq!(render(&parse(&format!("# a comment\n{text}"))), text);
    }
}
