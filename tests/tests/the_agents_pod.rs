//! The pod of docs/agent.md under containerd, by the handler that the page shows.
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use husk_tests::network::{connect, listen, talk, within};
use k8s_cri::v1::NamespaceMode;

use crate::links::failure;

in_both_modes!(
    the_agent_reaches_the_proxy_and_nothing_else,
    nobody_executes_what_the_gate_does_not_admit,
    no_such_pod_takes_the_nodes_namespaces
);

fn the_agent_reaches_the_proxy_and_nothing_else(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("agent", mode).run();
    let proxy = pod.sleeper("credentials-proxy");
    let agent = pod.sleeper("agent");
    let (serves, _operator) = (
        listen(proxy.pid(), "127.0.0.1:8080"),
        listen(proxy.pid(), "0.0.0.0:8081"),
    );
    for address in ["127.0.0.1:8080", "[::1]:8080"] {
        talk(connect(agent.pid(), address).unwrap(), &serves).unwrap();
    }
    let served = listen(agent.pid(), "127.0.0.1:9000");
    talk(connect(proxy.pid(), "127.0.0.1:9000").unwrap(), &served).unwrap();

    for (address, expected) in [
        ("127.0.0.1:8081", ErrorKind::ConnectionRefused),
        ("[::1]:8081", ErrorKind::ConnectionRefused),
        ("169.254.169.254:80", ErrorKind::NetworkUnreachable),
        ("203.0.113.7:443", ErrorKind::NetworkUnreachable),
        ("[2001:db8::1]:443", ErrorKind::NetworkUnreachable),
    ] {
        assert_eq!(failure(agent.pid(), address), expected, "{address}");
    }
    let name = SocketAddr::from_abstract_name(unique("operator")).unwrap();
    let _listener = within(proxy.pid(), || UnixListener::bind_addr(&name)).unwrap();
    let error = within(agent.pid(), || UnixStream::connect_addr(&name)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn nobody_executes_what_the_gate_does_not_admit(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("agent", mode).run();
    let agent = pod.sleeper("agent");
    let refused = agent.try_exec(&["sh", "-c", "true"]).unwrap_err();
    let message = refused.message();
    assert!(
        message.contains("no rule allows user 0 to run"),
        "{message}"
    );
    // It runs, and finds no such file in this image.
    let admitted = agent.try_exec(&["cat", "/work/report"]).unwrap();
    assert_eq!(admitted.code, 1, "{admitted:?}");
}

fn no_such_pod_takes_the_nodes_namespaces(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    // containerd 2.1 itself panics at a pod with hostNetwork in the other mode.
    let network = (mode == Mode::Podsandbox).then_some("network");
    for kind in ["pid", "ipc"].into_iter().chain(network) {
        let greedy = cri.pod_of("agent", mode).namespaces(|namespaces| {
            let node = NamespaceMode::Node.into();
            match kind {
                "network" => namespaces.network = node,
                "pid" => namespaces.pid = node,
                _ => namespaces.ipc = node,
            }
        });
        let greedy = greedy.with(|config| config.hostname.clear());
        let refused = greedy.try_run().unwrap_err();
        let message = refused.message();
        assert!(
            message.contains(kind) && message.contains("ceiling POD"),
            "{message}"
        );
    }
}
