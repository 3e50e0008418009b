//! Containers of one pod, apart but for the ports that a handler's configuration names.
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use husk_tests::cgroup;
use husk_tests::command::{poll, until};
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Mode, Pod};
use husk_tests::ctr::{Container, unique};
use husk_tests::network::{connect, listen, talk, within};
use husk_tests::process::{is_alive, shims};
use k8s_cri::v1::NamespaceMode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

// Each scenario ends with the drop of its pod, which counts what is left.
in_both_modes!(
    a_container_reaches_the_ports_that_its_links_name,
    it_is_reached_at_the_port_that_its_link_names,
    whatever_is_not_linked_is_not_reached,
    datagrams_are_carried,
    a_link_waits_for_its_container_and_outlives_it,
    a_container_that_is_made_again_has_its_links,
    names_are_looked_up_through_a_link_or_refused_at_once,
    a_link_that_cannot_be_is_an_error_that_says_why,
    the_relay_is_confined_and_charged_to_the_pod,
    a_killed_relay_fails_closed_and_is_made_anew,
    a_relay_dies_with_its_shim,
    a_pod_without_links_has_no_relay,
);

/// Where the proxy of these handlers listens, and where the agent's link to it is.
pub(crate) const PROXY: &str = "127.0.0.1:8080";
pub(crate) const LINK: &str = "127.0.0.1:3128";

pub(crate) fn record(pod: &Pod<'_>) -> serde_json::Value {
    let path = Path::new("/run/husk/k8s.io").join(&pod.id).join("pod.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The pids of the pod's relays.
pub(crate) fn relays(pod: &Pod<'_>) -> Vec<Pid> {
    let record = record(pod);
    let relays = record["relays"].as_array().cloned().unwrap_or_default();
    let pids = relays
        .iter()
        .filter_map(|relay| relay["process"]["pid"].as_i64());
    pids.map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()))
        .collect()
}

/// The kind of error with which a connection fails, at once or when it is used.
pub(crate) fn failure(container: Pid, address: &str) -> ErrorKind {
    match connect(container, address) {
        Err(error) => error.kind(),
        Ok(mut stream) => stream.read(&mut [0]).unwrap_err().kind(),
    }
}

fn a_container_reaches_the_ports_that_its_links_name(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    assert_eq!(agent.sh("ls /sys/class/net"), "lo");
    assert_eq!(
        failure(agent.pid(), LINK),
        ErrorKind::ConnectionReset,
        "nobody listens"
    );
    let listener = listen(proxy.pid(), PROXY);
    for address in [LINK, "[::1]:3128"] {
        talk(connect(agent.pid(), address).unwrap(), &listener).unwrap();
    }
}

fn it_is_reached_at_the_port_that_its_link_names(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(agent.pid(), "127.0.0.1:9000");
    let (status, _) = pod.status().unwrap();
    let address = status.network.unwrap().ip;
    for address in [
        format!("{address}:9000"),
        "127.0.0.1:9000".into(),
        "[::1]:9000".into(),
    ] {
        talk(connect(proxy.pid(), address.as_str()).unwrap(), &listener).unwrap();
    }
    // From the node, as the kubelet's probes come.
    talk(
        connect(nix::unistd::getpid(), format!("{address}:9000")).unwrap(),
        &listener,
    )
    .unwrap();
}

fn whatever_is_not_linked_is_not_reached(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let (status, _) = pod.status().unwrap();
    let address = status.network.unwrap().ip;
    let _there: Vec<_> = ["0.0.0.0:8080", "127.0.0.1:8081", "[::1]:8082"]
        .iter()
        .map(|address| listen(proxy.pid(), *address))
        .collect();
    let _here: Vec<_> = ["0.0.0.0:9001", "[::1]:9002"]
        .iter()
        .map(|address| listen(agent.pid(), *address))
        .collect();
    for local in [
        "127.0.0.1:8080",
        "127.0.0.1:8081",
        "[::1]:8082",
        "[::1]:8080",
    ] {
        assert_eq!(
            failure(agent.pid(), local),
            ErrorKind::ConnectionRefused,
            "{local}"
        );
    }
    for far in [
        format!("{address}:8080"),
        "169.254.169.254:80".into(),
        "[2001:db8::1]:80".into(),
    ] {
        let kind = failure(agent.pid(), &far);
        assert_eq!(kind, ErrorKind::NetworkUnreachable, "{far}");
    }
    for back in ["127.0.0.1:9001", "[::1]:9002", "127.0.0.1:3128"] {
        assert_eq!(
            failure(proxy.pid(), back),
            ErrorKind::ConnectionRefused,
            "{back}"
        );
    }
    let name = SocketAddr::from_abstract_name(unique("abstract")).unwrap();
    let _listener = within(proxy.pid(), || UnixListener::bind_addr(&name)).unwrap();
    within(proxy.pid(), || UnixStream::connect_addr(&name)).unwrap();
    let error = within(agent.pid(), || UnixStream::connect_addr(&name)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn datagrams_are_carried(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let server = within(proxy.pid(), || UdpSocket::bind("127.0.0.1:5353")).unwrap();
    for (own, link) in [("127.0.0.1:0", "127.0.0.1:53"), ("[::1]:0", "[::1]:53")] {
        let client = within(agent.pid(), || UdpSocket::bind(own)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.connect(link).unwrap();
        client.send(b"question").unwrap();
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"question");
        server.send_to(b"answer", from).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"answer");
    }
}

fn a_link_waits_for_its_container_and_outlives_it(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let agent = pod.sleeper("agent");
    assert_eq!(
        failure(agent.pid(), LINK),
        ErrorKind::ConnectionRefused,
        "not there yet"
    );
    for _ in 0..2 {
        let proxy = pod.sleeper("proxy");
        let listener = listen(proxy.pid(), PROXY);
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
        let mut held = connect(agent.pid(), LINK).unwrap();
        proxy.stop(0);
        until("the link has ended", || {
            connect(agent.pid(), LINK)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        assert_eq!(
            held.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        proxy.remove();
    }
}

fn a_container_that_is_made_again_has_its_links(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let proxy = pod.sleeper("proxy");
    let listener = listen(proxy.pid(), PROXY);
    for attempt in 0..3 {
        let agent = pod
            .container("agent", &["sleep", "1000000"])
            .with(|config| config.metadata.as_mut().unwrap().attempt = attempt)
            .start();
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
        let inside = listen(agent.pid(), "127.0.0.1:9000");
        talk(connect(proxy.pid(), "127.0.0.1:9000").unwrap(), &inside).unwrap();
        agent.stop(0);
        // As the kubelet does, which removes it only later.
    }
}

fn names_are_looked_up_through_a_link_or_refused_at_once(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (agent, alone, other) = (
        pod.sleeper("agent"),
        pod.sleeper("alone"),
        pod.sleeper("other"),
    );
    for container in [&agent, &alone] {
        let file = container.sh("cat /etc/resolv.conf");
        assert!(file.contains("nameserver 127.0.0.1"), "{file}");
        let asked = Instant::now();
        assert_ne!(container.exec(&["wget", "-q", "http://a.example/"]).code, 0);
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        assert_ne!(
            container
                .exec(&["sh", "-c", "echo x > /etc/resolv.conf"])
                .code,
            0
        );
    }
    assert!(!other.sh("cat /etc/resolv.conf").contains("attempts:1"));
}

fn a_link_that_cannot_be_is_an_error_that_says_why(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let refusal = |name: &str| match pod.container(name, &["sleep", "1000000"]).try_create() {
        Ok(container) => container.try_start().unwrap_err().message().to_owned(),
        Err(status) => status.message().to_owned(),
    };
    let same = refusal("inside");
    assert!(
        same.contains("container inside cannot have the link to tcp port 1 of the pod"),
        "{same}"
    );
    let agent = pod.sleeper("agent");
    let rival = refusal("rival");
    assert!(
        rival.contains("tcp port 9000 of the pod's network is taken by a link of container agent"),
        "{rival}"
    );
    agent.stop(0);
    agent.remove();
    let other = pod.sleeper("other");
    let _program = listen(other.pid(), "0.0.0.0:9000");
    let taken = refusal("agent");
    assert!(
        taken.contains("cannot listen on tcp port 9000") && taken.contains("the pod"),
        "{taken}"
    );
}

#[test]
fn a_pod_on_the_nodes_network_has_no_links() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri
        .pod_of("links", Mode::Podsandbox)
        .namespaces(|namespaces| namespaces.network = NamespaceMode::Node.into())
        .with(|config| config.hostname.clear())
        .run();
    let refused = match pod.container("agent", &["sleep", "1000000"]).try_create() {
        Ok(container) => container.try_start().unwrap_err(),
        Err(status) => status,
    };
    let message = refused.message();
    assert!(
        message.contains("the pod is on the node's network"),
        "{message}"
    );
}

fn the_relay_is_confined_and_charged_to_the_pod(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (_proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let relays = relays(&pod);
    assert_eq!(relays.len(), 2, "one for each network that links lead to");
    for relay in relays {
        let own = cgroup::of(relay, "memory");
        assert_eq!(own.parent().unwrap(), pod.cgroup("memory"));
        assert_ne!(own, cgroup::of(agent.pid(), "memory"));
        let status = fs::read_to_string(format!("/proc/{relay}/status")).unwrap();
        for line in [
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "Seccomp:\t2",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        // Whoever may look at it learns nothing of the node: proxy passwords, sockets, paths.
        let words = fs::read(format!("/proc/{relay}/cmdline")).unwrap();
        assert!(
            !words.contains(&b'/'),
            "{}",
            String::from_utf8_lossy(&words)
        );
        let environment = fs::read(format!("/proc/{relay}/environ")).unwrap();
        assert!(environment.iter().all(|byte| *byte == 0));
        for descriptor in fs::read_dir(format!("/proc/{relay}/fd")).unwrap() {
            let leads = fs::read_link(descriptor.unwrap().path()).unwrap();
            let leads = leads.to_string_lossy();
            let kinds = ["socket:", "pipe:", "anon_inode:"];
            assert!(kinds.iter().any(|kind| leads.starts_with(kind)), "{leads}");
        }
    }
}

fn a_killed_relay_fails_closed_and_is_made_anew(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    for _ in 0..2 {
        let listener = listen(proxy.pid(), PROXY);
        let held: Vec<_> = (0..20)
            .map(|_| connect(agent.pid(), LINK).unwrap())
            .collect();
        let before = relays(&pod);
        assert_eq!(before.len(), 2);
        for relay in &before {
            kill(*relay, Signal::SIGKILL).unwrap();
        }
        for mut held in held {
            let error = held.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no orderly end");
        }
        drop(listener);
        until("the relays are made anew", || {
            let now = relays(&pod);
            now.len() == 2
                && now
                    .iter()
                    .all(|relay| is_alive(*relay) && !before.contains(relay))
        });
        let listener = listen(proxy.pid(), PROXY);
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    }
    assert_eq!(agent.sh("echo alive"), "alive");
}

fn a_relay_dies_with_its_shim(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (_proxy, _agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let relays = relays(&pod);
    assert_eq!(relays.len(), 2);
    let parent = |pid: Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
        Pid::from_raw(line.unwrap().parse().unwrap())
    };
    let shim = parent(relays[0]);
    assert!(shims(&pod.ids()).contains(&shim));
    kill(shim, Signal::SIGKILL).unwrap();
    let gone = poll(Duration::from_secs(2), || {
        relays.iter().all(|relay| !is_alive(*relay)).then_some(())
    });
    assert!(gone.is_some(), "the relays live on");
}

fn a_pod_without_links_has_no_relay(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (_proxy, _alone) = (pod.sleeper("proxy"), pod.sleeper("alone"));
    assert_eq!(relays(&pod), []);
}

#[test]
fn a_link_that_cannot_be_is_refused_before_anything_runs() {
    let containerd = Containerd::of_the_suite();
    let handler = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/handlers/links.toml");
    let container = containerd.ctr().container();
    let log = container.folder().join("log");
    let hook =
        json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo ran > {}", log.display())]});
    for (name, is_refused) in [("inside", true), ("other", false)] {
        let container = containerd
            .ctr()
            .container()
            .flag(&format!("--runtime-config-path={}", handler.display()))
            .spec(&["true"], |spec| {
                spec["annotations"] = json!({
                    "io.husk.pod": unique("pod"),
                    "io.husk.container": name,
                });
                spec["hooks"]["createRuntime"] = json!([hook]);
            });
        let output = container.run(&[]);
        assert_eq!(output.code != 0, is_refused, "{output:?}");
        assert_eq!(
            output.stderr.contains("without a link"),
            is_refused,
            "{output:?}"
        );
        assert_eq!(log.exists(), !is_refused, "{name}");
    }
}

/// The containers `agent` and `proxy` of one pod of this handler, which exists by their naming it.
pub(crate) fn members<'a>(containerd: &'a Containerd, handler: &str) -> [Container<'a>; 2] {
    let handlers = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/handlers");
    let handler = handlers.join(handler).with_extension("toml");
    let pod = unique("pod");
    ["agent", "proxy"].map(|name| {
        let container = containerd
            .ctr()
            .container()
            .flag("--runtime-config-path")
            .flag(handler.to_str().unwrap())
            .flag("--annotation")
            .flag(&format!("io.husk.pod={pod}"))
            .flag("--annotation")
            .flag(&format!("io.husk.container={name}"));
        container.start(&["sleep", "1000000"]);
        container
    })
}

#[test]
fn containers_that_name_one_pod_have_links_too() {
    let containerd = Containerd::of_the_suite();
    let [agent, proxy] = members(&containerd, "links");
    let listener = listen(proxy.pid(), PROXY);
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    let inside = listen(agent.pid(), "127.0.0.1:9000");
    talk(connect(proxy.pid(), "127.0.0.1:9000").unwrap(), &inside).unwrap();
    assert_eq!(failure(agent.pid(), PROXY), ErrorKind::ConnectionRefused);
    agent.remove();
    assert_eq!(
        failure(proxy.pid(), "127.0.0.1:9000"),
        ErrorKind::ConnectionRefused
    );
}
