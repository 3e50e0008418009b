//! Whose a link is, and how long it is there: containers of one network, debuggers, init containers,
//! sidecars, containers that are made again.
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Mode, Pod};
use husk_tests::network::{connect, listen, talk};
use nix::unistd::Pid;
use serde_json::Value;

use crate::links::{LINK, PROXY, failure, record};

in_both_modes!(
    a_group_keeps_its_link_and_its_connections_when_its_first_member_ends,
    a_debugger_in_its_targets_network_uses_the_targets_links_and_brings_its_own,
    a_debugger_whose_target_is_made_again_brings_its_links_to_nobody,
    the_links_of_an_init_container_end_with_it_and_leave_its_ports,
    a_sidecar_that_is_made_again_is_reached_again,
);

fn is_refused(container: Pid, address: &str) -> bool {
    connect(container, address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The containers that the links on record are of.
fn owners(pod: &Pod<'_>) -> Vec<Value> {
    let relays = record(pod)["relays"].as_array().cloned().unwrap();
    let links = relays
        .iter()
        .flat_map(|relay| relay["links"].as_array().cloned().unwrap());
    links.map(|link| link["container"].clone()).collect()
}

/// Whether both ends of an open connection are still there.
fn echoes(near: &mut TcpStream, far: &mut TcpStream) {
    let mut four = [0; 4];
    near.write_all(b"here").unwrap();
    far.read_exact(&mut four).unwrap();
    far.write_all(&four).unwrap();
    near.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"here");
}

fn a_group_keeps_its_link_and_its_connections_when_its_first_member_ends(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("link-rules", mode).run();
    let proxy = pod.sleeper("proxy");
    let listener = listen(proxy.pid(), PROXY);
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    assert_eq!(owners(&pod), ["one"]);
    let mut near = connect(two.pid(), LINK).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    echoes(&mut near, &mut far);
    one.stop(0);
    until("the link is the other's", || owners(&pod) == ["two"]);
    echoes(&mut near, &mut far);
    talk(connect(two.pid(), LINK).unwrap(), &listener).unwrap();
    one.remove();
    // The first one again, and the last one's end.
    let one = pod
        .container("one", &["sleep", "1000000"])
        .with(|config| config.metadata.as_mut().unwrap().attempt = 1)
        .start();
    talk(connect(one.pid(), LINK).unwrap(), &listener).unwrap();
    two.stop(0);
    until("the link is the first one's", || owners(&pod) == ["one"]);
    echoes(&mut near, &mut far);
    one.stop(0);
    until("the link has ended", || owners(&pod).is_empty());
    assert_eq!(
        near.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

fn a_debugger_in_its_targets_network_uses_the_targets_links_and_brings_its_own(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("link-rules", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    let own = "127.0.0.1:8081";
    let second = listen(proxy.pid(), own);
    assert_eq!(failure(agent.pid(), own), ErrorKind::ConnectionRefused);
    let debugger = pod.sleeper("debugger");
    for container in [&debugger, &agent] {
        talk(connect(container.pid(), LINK).unwrap(), &listener).unwrap();
        talk(connect(container.pid(), own).unwrap(), &second).unwrap();
    }
    // It leaves, and takes its own link along.
    debugger.stop(0);
    until("the debugger's link has ended", || {
        is_refused(agent.pid(), own)
    });
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    debugger.remove();
    // Its target leaves: what is left of that network has no links.
    let debugger = pod
        .container("debugger", &["sleep", "1000000"])
        .with(|config| config.metadata.as_mut().unwrap().attempt = 1)
        .start();
    talk(connect(debugger.pid(), own).unwrap(), &second).unwrap();
    agent.stop(0);
    for address in [LINK, own] {
        until("the links have ended", || {
            is_refused(debugger.pid(), address)
        });
    }
}

fn a_debugger_whose_target_is_made_again_brings_its_links_to_nobody(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("link-rules", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let own = "127.0.0.1:8081";
    let (listener, second) = (listen(proxy.pid(), PROXY), listen(proxy.pid(), own));
    let debugger = pod.sleeper("debugger");
    talk(connect(debugger.pid(), own).unwrap(), &second).unwrap();
    agent.stop(0);
    // It stays in the network of the one that has ended, and is not in that of the next.
    let agent = pod
        .container("agent", &["sleep", "1000000"])
        .with(|config| config.metadata.as_mut().unwrap().attempt = 1)
        .start();
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    assert!(is_refused(agent.pid(), own));
    for address in [LINK, own] {
        until("the links have ended", || {
            is_refused(debugger.pid(), address)
        });
    }
}

fn the_links_of_an_init_container_end_with_it_and_leave_its_ports(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("link-rules", mode).run();
    let proxy = pod.sleeper("proxy");
    let listener = listen(proxy.pid(), PROXY);
    let setup = pod.sleeper("setup");
    talk(connect(setup.pid(), LINK).unwrap(), &listener).unwrap();
    setup.stop(0);
    // The kubelet makes the next one when the first has ended, and removes the first much later.
    let agent = pod.sleeper("agent");
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    let inside = listen(agent.pid(), "127.0.0.1:9000");
    talk(connect(proxy.pid(), "127.0.0.1:9000").unwrap(), &inside).unwrap();
    assert!(owners(&pod).iter().all(|owner| owner == "agent"));
}

fn a_sidecar_that_is_made_again_is_reached_again(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("link-rules", mode).run();
    let agent = pod.sleeper("agent");
    for attempt in 0..3 {
        let proxy = pod
            .container("proxy", &["sleep", "1000000"])
            .with(|config| config.metadata.as_mut().unwrap().attempt = attempt)
            .start();
        let listener = listen(proxy.pid(), PROXY);
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
        proxy.stop(0);
    }
}
