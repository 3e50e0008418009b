//! What StartSandbox tells of a sandbox: by it containerd finds what the containers share.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use common::{Node, wait_until};
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::sandbox_sync::SandboxClient;
use containerd_shim_protos::ttrpc::{Client, context};
use serde_json::Value;

/// A process with a network namespace of its own, as CRI makes one for a pod.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let made = Self(
            Command::new("unshare")
                .args(["--net", "sleep", "1000"])
                .spawn()
                .unwrap(),
        );
        wait_until(|| identity(&made.path()) != identity("/proc/self/ns/net"));
        made
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn identity(namespace: &str) -> String {
    // That of a bind mount is told by what is opened, not by a link.
    use std::os::unix::fs::MetadataExt;
    fs::metadata(namespace).map_or_else(
        |error| error.to_string(),
        |found| format!("{}:{}", found.dev(), found.ino()),
    )
}

#[test]
fn a_sandbox_without_a_process_is_told_by_the_paths_of_what_it_shares() {
    let node = Node::new();
    let network = Network::new();
    let bundle = node.bundle("pod");
    let socket = bundle.started();
    let client = Client::connect(&format!("unix://{}", socket.display())).unwrap();
    let sandbox = SandboxClient::new(client);
    let call = || context::with_timeout(10_000_000_000);
    let create = api::CreateSandboxRequest {
        sandbox_id: "pod".into(),
        netns_path: network.path(),
        ..Default::default()
    };
    sandbox.create_sandbox(call(), &create).unwrap();
    let start = api::StartSandboxRequest::default();
    let started = sandbox.start_sandbox(call(), &start).unwrap();

    let pid_is_the_pods = started.pid != 0;
    let spec = started.spec.unwrap();
    assert_eq!(
        spec.type_url,
        "types.containerd.io/opencontainers/runtime-spec/1/Spec"
    );
    let spec: Value = serde_json::from_slice(&spec.value).unwrap();
    let namespaces: BTreeMap<_, _> = spec["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["type"].as_str().unwrap(), it["path"].as_str().unwrap()))
        .collect();
    for (kind, own) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let path = namespaces[kind];
        let ours = identity(&format!("/proc/self/ns/{own}"));
        assert_ne!(identity(path), ours, "{kind}");
        assert!(Path::new(path).exists(), "{kind}: {path}");
    }
    assert_eq!(namespaces["network"], network.path());
    assert_eq!(namespaces.contains_key("pid"), pid_is_the_pods);
    assert!(spec["linux"]["sysctl"].is_object());
    for destination in [
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/dev/shm",
    ] {
        let mounts = spec["mounts"].as_array().unwrap().iter();
        let mut found = mounts.filter(|mount| mount["destination"] == destination);
        let source = found.next().unwrap()["source"].as_str().unwrap();
        assert!(Path::new(source).exists(), "{destination}: {source}");
    }
    // Nothing is made in a stopped sandbox: the process that makes processes ends with it.
    let zygote = node.live_record("pod").zygote.unwrap();
    let stop = api::StopSandboxRequest::default();
    sandbox.stop_sandbox(call(), &stop).unwrap();
    assert!(!common::lives(zygote), "the zygote of a stopped pod");
    let shutdown = api::ShutdownSandboxRequest::default();
    sandbox.shutdown_sandbox(call(), &shutdown).unwrap();
}
