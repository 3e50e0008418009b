//! Relays: made between network namespaces, confined, gone with their control socket.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use husk_relay::protocol::{LONGEST, Order, Told, order};
use husk_sandbox::error::{JobError, JobErrorKind};
use husk_sandbox::job::{Create, Job, Listen, NetworkNamespace, Port, Relay};
use husk_sandbox::process::{Ended, Pidfd};
use nix::sys::socket::{MsgFlags, recv};
use serde_json::json;
use support::{Container, Lab, run, wait};

fn main() {
    run(&[
        ("a_link_leads_from_one_container_to_another", leads),
        ("there_is_nothing_in_it_to_be_had", nothing_to_be_had),
        ("it_ends_with_its_control_socket", ends_with_its_socket),
        ("a_relay_that_is_there_takes_more_links", takes_more),
        ("a_port_that_is_taken_is_an_error_and_leaves_nothing", taken),
        ("the_nodes_network_is_refused", node_refused),
        (
            "a_namespace_that_is_another_by_now_is_refused",
            another_refused,
        ),
    ]);
}

/// A container with a network of its own.
fn container(lab: &Lab, script: &str) -> Container {
    let (job, stdout) = lab.create_job(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let job = Create {
        loopback: true,
        ..job
    };
    let mut container = lab.created(job, stdout).unwrap();
    container.start().unwrap();
    container
}

fn network(whose: &str, path: &str) -> NetworkNamespace {
    NetworkNamespace {
        whose: whose.to_owned(),
        inode: fs::metadata(path).unwrap().ino(),
        path: path.into(),
    }
}

fn network_of(container: &Container) -> NetworkNamespace {
    network(
        "a container",
        &format!("/proc/{}/ns/net", container.init.pid),
    )
}

fn port(link: u32, port: u16, to_port: u16) -> Port {
    Port {
        link,
        port,
        exposed: false,
        datagrams: false,
        to_port,
    }
}

fn job(from: &NetworkNamespace, to: &NetworkNamespace, ports: Vec<Port>) -> Relay {
    Relay {
        id: "test".to_owned(),
        network: to.clone(),
        listen: vec![Listen {
            network: from.clone(),
            ports,
        }],
        control: None,
        cgroup: None,
        driver: husk_sandbox::cgroup::Driver::Cgroupfs,
    }
}

fn made(lab: &Lab, job: Relay) -> (Pidfd, OwnedFd) {
    let done = lab
        .perform(Job::Relay(job))
        .unwrap_or_else(|error| panic!("{error}"));
    let control = done.control.unwrap();
    order(&control, &Order::Obey(std::process::id().cast_signed())).unwrap();
    (done.process.unwrap(), control)
}

fn refused(lab: &Lab, job: Relay) -> JobError {
    lab.perform(Job::Relay(job)).unwrap_err()
}

fn kill<const N: usize>(containers: [Container; N]) {
    for container in containers {
        container.kill();
    }
}

/// Ends a relay by closing its socket.
fn end((relay, control): (Pidfd, OwnedFd)) {
    drop(control);
    assert_eq!(wait(&relay), Ended::Exited(0));
}

const SERVER: &str = "exec nc -ll -p 8000 -e echo hello";

fn leads(lab: &Lab) {
    let server = container(lab, SERVER);
    let client = container(lab, "sleep 60");
    let relay = made(
        lab,
        job(
            &network_of(&client),
            &network_of(&server),
            vec![port(1, 8080, 8000)],
        ),
    );
    for address in ["127.0.0.1", "::1"] {
        let script =
            format!("sleep 0.2; nc {address} 8080 </dev/null; nc {address} 8000 </dev/null");
        let (ended, output) = lab.exec_shell(&client, &script);
        assert!(output.starts_with("hello\n"), "{output}");
        assert_ne!(ended, Ended::Exited(0), "port 8000 is the server's alone");
    }
    end(relay);
    kill([server, client]);
}

fn nothing_to_be_had(lab: &Lab) {
    let (from, to) = (container(lab, "sleep 60"), container(lab, "sleep 60"));
    let (relay, control) = made(
        lab,
        job(&network_of(&from), &network_of(&to), vec![port(1, 53, 53)]),
    );
    // Whatever it is asked, so that it has been through its loop.
    order(&control, &Order::Count).unwrap();
    let mut packet = vec![0; LONGEST];
    let count = recv(
        std::os::fd::AsRawFd::as_raw_fd(&control),
        &mut packet,
        MsgFlags::empty(),
    );
    let told = Told::read(&packet[..count.unwrap()]);
    assert!(
        matches!(told, Some(Told::Counts { last: true, .. })),
        "{told:?}"
    );

    let proc = Path::new("/proc").join(relay.pid.to_string());
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("Threads:"), "1");
    assert_eq!(field("Name:"), "husk-relay");
    assert_eq!(
        fs::metadata(&proc).unwrap().uid(),
        0,
        "not dumpable: root's"
    );
    let root: Vec<_> = fs::read_dir(proc.join("root")).unwrap().collect();
    assert_eq!(root.len(), 0, "{root:?}");
    let mounts = fs::read_to_string(proc.join("mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let descriptors: Vec<_> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    // The control socket, epoll, and two sockets of the one link.
    assert_eq!(descriptors.len(), 4, "{descriptors:?}");
    let its = fs::metadata(proc.join("ns/net")).unwrap().ino();
    assert_eq!(its, network_of(&to).inode);
    end((relay, control));
    kill([from, to]);
}

fn ends_with_its_socket(lab: &Lab) {
    let (from, to) = (container(lab, "sleep 60"), container(lab, "sleep 60"));
    let relay = made(
        lab,
        job(&network_of(&from), &network_of(&to), vec![port(1, 80, 80)]),
    );
    end(relay);
    // And its port with it.
    let relay = made(
        lab,
        job(&network_of(&from), &network_of(&to), vec![port(1, 80, 80)]),
    );
    end(relay);
    kill([from, to]);
}

fn takes_more(lab: &Lab) {
    let server = container(lab, SERVER);
    let one = container(lab, "sleep 60");
    let two = container(lab, "sleep 60");
    let (to, one_is, two_is) = (network_of(&server), network_of(&one), network_of(&two));
    let (relay, control) = made(lab, job(&one_is, &to, vec![port(1, 80, 8000)]));
    let ports = (2..=500).map(|link| port(link, 1000 + u16::try_from(link).unwrap(), 8000));
    let more = Relay {
        control: Some(control.try_clone().unwrap()),
        ..job(&two_is, &to, ports.collect())
    };
    let done = lab.perform(Job::Relay(more)).unwrap();
    assert!(done.process.is_none() && done.control.is_none());
    for (container, port) in [(&one, 80), (&two, 1002), (&two, 1500)] {
        let (_, output) = lab.exec_shell(
            container,
            &format!("sleep 0.2; nc 127.0.0.1 {port} </dev/null"),
        );
        assert_eq!(output, "hello\n", "port {port}");
    }
    end((relay, control));
    kill([server, one, two]);
}

fn taken(lab: &Lab) {
    let (from, to) = (container(lab, SERVER), container(lab, "sleep 60"));
    lab.exec_shell(
        &from,
        "for n in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 8000 </dev/null && break; sleep 0.1; done; sleep 0.2",
    );
    let error = refused(
        lab,
        job(
            &network_of(&from),
            &network_of(&to),
            vec![port(1, 79, 1), port(2, 8000, 1)],
        ),
    );
    assert!(
        error.message.starts_with(
            "cannot listen on tcp port 8000 of 127.0.0.1 in the network of a container"
        ),
        "{error}"
    );
    assert!(
        error.message.contains("a program there has the port"),
        "{error}"
    );
    let relay = made(
        lab,
        job(&network_of(&from), &network_of(&to), vec![port(1, 79, 1)]),
    );
    end(relay);
    kill([from, to]);
}

fn node_refused(lab: &Lab) {
    let node = network("the pod", "/proc/self/ns/net");
    let other = container(lab, "sleep 60");
    for (from, to) in [(&node, &network_of(&other)), (&network_of(&other), &node)] {
        let error = refused(lab, job(from, to, vec![port(1, 80, 80)]));
        assert_eq!(error.kind, JobErrorKind::Invalid);
        assert!(
            error.message.contains("the pod is on the node's network"),
            "{error}"
        );
    }
    kill([other]);
}

fn another_refused(lab: &Lab) {
    let (from, to) = (container(lab, "sleep 60"), container(lab, "sleep 60"));
    let mut gone = network_of(&to);
    gone.inode = network_of(&from).inode;
    let error = refused(lab, job(&network_of(&from), &gone, vec![port(1, 80, 80)]));
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    kill([from, to]);
}
