//! A handler's configuration, given by `--config`, decides whose namespaces containers use.
use std::fs;

use crate::node::{Node, Shim, finish, lines_of, stderr};

const LINKS: &str = "  restartPolicy: Never\n  containers:\n\
    \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'cd /proc/self/ns; readlink net; readlink \
    ipc; sleep 1']}\n\
    \x20 - {name: b, image: ROOTFS, command: [sh, -c, 'cd /proc/self/ns; readlink net; readlink \
    ipc; sleep 1']}\n";

#[test]
fn a_container_can_have_a_network_of_its_own() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(&config, "[containers.a.scopes]\nnetwork = \"container\"\n").unwrap();
    let output = finish(node.start(LINKS, &["--config", config.to_str().unwrap()]));
    let [a, b] = ["a", "b"].map(|name| lines_of(&output, name));
    assert_eq!((a.len(), b.len()), (2, 2), "{}", stderr(&output));
    assert_ne!(a[0], b[0], "network");
    assert_eq!(a[1], b[1], "ipc");
    node.assert_nothing_left();
}

#[test]
fn a_bad_configuration_refuses_the_pod() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(&config, "[containers.a.scopes]\nnetwrk = \"container\"\n").unwrap();
    let output = finish(node.start(LINKS, &["--config", config.to_str().unwrap()]));
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(
        said.contains("config.toml") && said.contains("network"),
        "{said}"
    );
    node.assert_nothing_left();
}

/// Containers start in the manifest's order, so one may join the namespace of another before it.
#[test]
fn a_container_can_join_the_processes_of_one_before_it() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(&config, "[containers.b.scopes]\npid = \"target:a\"\n").unwrap();
    let pod = "  restartPolicy: Never\n  containers:\n\
        \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'exec sleep 1']}\n\
        \x20 - {name: b, image: ROOTFS, command: [sh, -c, 'tr \"\\0\" \" \" < /proc/1/cmdline; echo']}\n";
    for _ in 0..5 {
        let output = finish(node.start(pod, &["--config", config.to_str().unwrap()]));
        let seen = lines_of(&output, "b");
        assert_eq!(seen.len(), 1, "{}", stderr(&output));
        assert!(
            seen[0].starts_with("sleep 1") || seen[0].starts_with("sh -c"),
            "{seen:?}"
        );
    }
    node.assert_nothing_left();
}
