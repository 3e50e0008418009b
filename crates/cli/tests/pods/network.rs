//! `husk run --network`: what leads out of a pod, and into it.
//!
//! Each test has a network of its own for a node: this thread's, and so that of all that it runs.
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use husk_engine::netns;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, PATIENCE, eventually, lab, stderr, stdout};

crate::under_each_shim!(
    a_published_port_leads_to_the_pod,
    a_host_port_leads_to_the_pod,
    nothing_of_the_nodes_loopback_is_in_the_pod,
    pasta_ends_with_its_pod_whoever_was_killed,
    a_pod_goes_on_when_its_pasta_is_killed,
    cni_plugins_lead_to_the_pod_and_are_asked_to_undo_it,
    what_a_failing_cni_plugin_left_is_undone,
    what_cannot_be_is_said_before_anything_is_made,
    without_an_interface_the_node_leads_nowhere,
);

/// Answers whoever asks at port 8080.
const SERVES: &str = "  terminationGracePeriodSeconds: 1\n  containers:\n  - name: a\n    image: ROOTFS\n    \
    command: [sh, -c, 'echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp']\n";

fn ip(words: &str) {
    let status = Command::new("busybox")
        .arg("ip")
        .args(words.split(' '))
        .status();
    assert!(status.unwrap().success(), "ip {words}");
}

/// Makes this thread's network one of its own, with an interface that leads to nobody.
fn a_node_of_its_own() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for words in [
        "link set lo up",
        "link add up0 type veth",
        "addr add 192.0.2.2/24 dev up0",
        "link set up0 up",
        "link set veth0 up",
        "route add default via 192.0.2.1 dev up0",
    ] {
        ip(words);
    }
}

/// What the port of the node answers; nothing if nobody listens there yet.
fn answer(address: &str) -> String {
    let mut said = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let limit = Some(Duration::from_secs(2));
        stream.set_read_timeout(limit).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_string(&mut said);
    }
    said.rsplit("\r\n\r\n")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn answers_hello(address: &str) {
    eventually("the pod answers", || answer(address) == "hello\n");
}

/// Processes of pasta that lead out of pods of this node.
fn pastas(node: &Node) -> Vec<i32> {
    let is_pasta = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"pasta\0"))
    };
    node.processes().into_iter().filter(is_pasta).collect()
}

fn a_published_port_leads_to_the_pod(node: &Node) {
    a_node_of_its_own();
    let published = ["--publish", "127.0.0.1:80:8080", "-p", "53:5353/udp"];
    let id = node.detach_with(SERVES, &published);
    answers_hello("127.0.0.1:80");
    assert_eq!(answer("192.0.2.2:80"), "", "another address of the node");

    let network = node.record(&id)["netns"].as_str().unwrap().to_owned();
    let received = thread::spawn(move || {
        netns::enter(fs::File::open(network).unwrap()).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:5353").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(b"pong", from).unwrap();
        buffer[..length].to_vec()
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let limit = Some(Duration::from_millis(200));
    socket.set_read_timeout(limit).unwrap();
    eventually("datagrams go there and back", || {
        let mut buffer = [0; 16];
        let _ = socket.send_to(b"ping", "127.0.0.1:53");
        socket
            .recv(&mut buffer)
            .is_ok_and(|length| &buffer[..length] == b"pong")
    });
    assert_eq!(received.join().unwrap(), b"ping");

    node.stdout(&["rm", "-f", &id]);
    assert_eq!(answer("127.0.0.1:80"), "");
    node.assert_nothing_left();
}

fn a_host_port_leads_to_the_pod(node: &Node) {
    a_node_of_its_own();
    let spec = format!(
        "{SERVES}    ports:\n    - {{containerPort: 8080, hostPort: 80, hostIP: 192.0.2.2}}\n    \
         - {{containerPort: 8080, hostPort: 81}}\n"
    );
    let id = node.detach_with(&spec, &["--network", "pasta"]);
    answers_hello("192.0.2.2:80");
    assert_eq!(answer("127.0.0.1:80"), "", "another address of the node");
    answers_hello("127.0.0.1:81");
    answers_hello("192.0.2.2:81");
    node.stdout(&["rm", "-f", &id]);
    node.assert_nothing_left();
}

/// The gateway's address would lead there with other settings of pasta, and ports by themselves.
fn nothing_of_the_nodes_loopback_is_in_the_pod(node: &Node) {
    a_node_of_its_own();
    let listener = std::net::TcpListener::bind("127.0.0.1:8081").unwrap();
    listener.set_nonblocking(true).unwrap();
    let output = node.run_with(
        "  restartPolicy: Never\n  containers:\n  - name: a\n    image: ROOTFS\n    command: [sh, -c, \
         'for address in 127.0.0.1 192.0.2.2 192.0.2.1; do nc -w 2 $address 8081 </dev/null && echo \
         reached $address; done; ip -o addr show up; true']\n",
        &["--network", "pasta"],
    );
    let said = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!said.contains("reached"), "{said}");
    assert!(said.contains("192.0.2.2/24"), "the node's address: {said}");
    assert!(listener.accept().is_err(), "somebody came");
    node.assert_nothing_left();
}

fn pasta_ends_with_its_pod_whoever_was_killed(node: &Node) {
    a_node_of_its_own();
    let id = node.detach_with(SERVES, &["-p", "80:8080"]);
    answers_hello("127.0.0.1:80");
    assert_eq!(pastas(node).len(), 1);
    let supervisor = node.record(&id)["supervisor"]["pid"].as_i64().unwrap();
    kill(
        Pid::from_raw(supervisor.try_into().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    node.stdout(&["rm", "-f", &id]);
    assert_eq!(pastas(node), Vec::<i32>::new());
    node.assert_nothing_left();
}

fn a_pod_goes_on_when_its_pasta_is_killed(node: &Node) {
    a_node_of_its_own();
    let id = node.detach_with(SERVES, &["-p", "80:8080"]);
    answers_hello("127.0.0.1:80");
    for pid in pastas(node) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    eventually("nobody listens", || {
        TcpStream::connect("127.0.0.1:80").is_err()
    });
    let said = node.stdout(&[
        "exec",
        &id,
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        "http://127.0.0.1:8080/",
    ]);
    assert_eq!(said, "hello\n");
    node.stdout(&["rm", "-f", &id]);
    node.assert_nothing_left();
}

/// Directories with a list of these plugins, and with the programs of the lab's and one that fails.
fn cni(node: &Node, plugins: &str) -> (PathBuf, PathBuf) {
    let (lists, programs) = (node.scratch().join("lists"), node.scratch().join("cni"));
    fs::create_dir(&lists).unwrap();
    fs::create_dir(&programs).unwrap();
    for name in ["bridge", "host-local"] {
        fs::copy(lab().join("cni").join(name), programs.join(name)).unwrap();
    }
    let log = node.scratch().join("asked");
    let script = |program: &str, status: &str| {
        let text = format!(
            "#!/bin/sh\n{{ echo \"$CNI_COMMAND $CNI_IFNAME $CNI_CONTAINERID\"; cat; echo; }} >> {}\n\
             [ $CNI_COMMAND = DEL ] || {{ echo '{{\"code\": 7, \"msg\": \"no more addresses\"}}'; exit \
             {status}; }}\n",
            log.display()
        );
        fs::write(programs.join(program), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(programs.join(program), mode).unwrap();
    };
    script("fails", "1");
    script("ports", "0");
    let list = format!(r#"{{"cniVersion": "1.0.0", "name": "test", "plugins": [{plugins}]}}"#);
    fs::write(lists.join("10-test.conflist"), list).unwrap();
    (lists, programs)
}

fn bridge(node: &Node) -> String {
    let addresses = node.scratch().join("addresses");
    format!(
        r#"{{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {{"type": "host-local",
        "dataDir": {addresses:?}, "subnet": "198.51.100.0/24"}}}}"#
    )
}

/// The addresses that host-local has given away.
fn addresses(node: &Node) -> usize {
    let given = fs::read_dir(node.scratch().join("addresses/test"));
    let names = given.into_iter().flatten().flatten();
    let is_address =
        |name: &std::ffi::OsStr| name.to_str().is_some_and(|it| it.starts_with("198."));
    names.filter(|it| is_address(&it.file_name())).count()
}

fn with_cni<'a>(lists: &'a Path, programs: &'a Path) -> [&'a str; 6] {
    [
        "--network",
        "cni",
        "--cni-lists",
        lists.to_str().unwrap(),
        "--cni-programs",
        programs.to_str().unwrap(),
    ]
}

fn cni_plugins_lead_to_the_pod_and_are_asked_to_undo_it(node: &Node) {
    a_node_of_its_own();
    let ports = r#"{"type": "ports", "capabilities": {"portMappings": true}}"#;
    let (lists, programs) = cni(node, &format!("{}, {ports}", bridge(node)));
    let mut args = with_cni(&lists, &programs).to_vec();
    args.extend(["-p", "127.0.0.1:80:8080"]);
    let id = node.detach_with(SERVES, &args);
    answers_hello("198.51.100.2:8080");
    assert_eq!(addresses(node), 1);
    // The list may change while the pod runs.
    fs::remove_dir_all(&lists).unwrap();
    node.stdout(&["rm", "-f", &id]);
    assert_eq!(addresses(node), 0);
    let asked = fs::read_to_string(node.scratch().join("asked")).unwrap();
    let lines: Vec<_> = asked.lines().collect();
    assert_eq!(lines[0], format!("ADD eth0 {id}"));
    assert_eq!(lines[2], format!("DEL eth0 {id}"));
    for request in [lines[1], lines[3]] {
        let request: serde_json::Value = serde_json::from_str(request).unwrap();
        let mappings = &request["runtimeConfig"]["portMappings"];
        assert_eq!(mappings[0]["hostPort"], 80, "{request}");
        assert_eq!(mappings[0]["hostIP"], "127.0.0.1", "{request}");
        assert_eq!(request["name"], "test");
    }
    let previous: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(
        previous["prevResult"]["ips"][0]["address"],
        "198.51.100.2/24"
    );
    node.assert_nothing_left();
}

fn what_a_failing_cni_plugin_left_is_undone(node: &Node) {
    a_node_of_its_own();
    let (lists, programs) = cni(node, &format!(r#"{}, {{"type": "fails"}}"#, bridge(node)));
    let output = node.run_with(SERVES, &with_cni(&lists, &programs));
    let said = stderr(&output);
    assert!(!output.status.success());
    assert!(
        said.contains("the CNI plugin fails cannot add pod"),
        "{said}"
    );
    assert!(said.contains("no more addresses"), "{said}");
    assert_eq!(addresses(node), 0);
    node.assert_nothing_left();
}

fn what_cannot_be_is_said_before_anything_is_made(node: &Node) {
    let host = format!("  hostNetwork: true\n{SERVES}");
    let nowhere = node.scratch().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for (spec, args, why) in [
        (
            SERVES,
            &["--network", "bridge"][..],
            "none, host, pasta or cni",
        ),
        (SERVES, &["-p", "80"], "such as 8080:80"),
        (
            SERVES,
            &["--network", "none", "-p", "80:80"],
            "leads nowhere with --network none",
        ),
        (
            SERVES,
            &["--network", "host", "-p", "80:80"],
            "the ports of this one are the node's",
        ),
        (&host, &["--network", "pasta"], "hostNetwork: true"),
        (
            SERVES,
            &["--network", "pasta", "-p", "80:80", "-p", "80:81"],
            "lead to two ports",
        ),
        (
            SERVES,
            &["--network", "cni", "--cni-lists", nowhere],
            "apt-get install containernetworking-plugins",
        ),
    ] {
        let output = node.run_with(spec, args);
        assert!(!output.status.success(), "{args:?}");
        assert!(
            stderr(&output).contains(why),
            "{args:?}: {}",
            stderr(&output)
        );
        node.assert_nothing_left();
    }
}

fn without_an_interface_the_node_leads_nowhere(node: &Node) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    let said = node.run_with(SERVES, &["--network", "pasta"]);
    assert!(!said.status.success());
    let said = stderr(&said);
    assert!(
        said.contains("pasta cannot lead out of the pod's network"),
        "{said}"
    );
    node.assert_nothing_left();
}
