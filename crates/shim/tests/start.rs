//! What `start` answers, and what it leaves behind when it cannot.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use common::{Node, connects, lives, signal, socket, wait_until};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use nix::sys::signal::Signal;

#[test]
fn the_reply_is_exact_and_the_socket_listens_by_then() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let output = bundle.start();
    let socket = socket(&output);
    assert!(connects(&socket), "the address is good at once");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            r#"{{"version":3,"address":"unix://{}","protocol":"ttrpc"}}"#,
            socket.display()
        )
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(bundle.path.join("address")).unwrap(),
        format!("unix://{}", socket.display())
    );
}

#[test]
fn the_daemon_lets_go_of_its_starter() {
    let node = Node::new();
    let bundle = node.bundle("one");
    bundle.started();
    let record = node.live_record("one");
    let shim = record.shim.unwrap();
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", shim.pid)).unwrap();
    let link = |file: &str| fs::read_link(format!("/proc/{}/{file}", shim.pid)).unwrap();
    for descriptor in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(descriptor).to_str().unwrap(), "/dev/null");
    }
    assert_eq!(link("cwd"), bundle.path);
    let stat = proc("stat");
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[2], shim.pid.to_string(), "leads its process group");
    assert_eq!(fields[3], shim.pid.to_string(), "leads its session");
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let expected = (own + 1).min(1000);
    assert_eq!(proc("oom_score_adj").trim(), expected.to_string());
    assert!(
        proc("status").contains("Threads:\t1\n"),
        "no thread until one is needed"
    );
}

#[test]
fn containerd_up_to_2_2_sends_options_or_nothing() {
    let node = Node::new();
    let options = Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        ..Any::default()
    };
    for (id, stdin) in [
        ("nothing", Vec::new()),
        ("any", options.write_to_bytes().unwrap()),
    ] {
        let bundle = node.bundle(id);
        let output = bundle.start_from(&stdin);
        assert!(output.status.success(), "{output:?}");
        let socket = socket(&output);
        assert!(socket.starts_with("/run/containerd/s"), "{socket:?}");
        assert!(connects(&socket));
        bundle.delete();
        assert!(!socket.exists());
    }
}

#[test]
fn a_container_of_a_known_pod_gets_that_pod_s_address() {
    let node = Node::new();
    let sandbox = node.bundle("sandbox");
    sandbox.config(r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}"#);
    let container = node.bundle("container");
    container.config(r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "sandbox"}}"#);
    let address = sandbox.started();
    let shim = node.live_record("sandbox").shim;
    assert_eq!(container.started(), address);
    assert_eq!(node.live_record("sandbox").shim, shim, "no second shim");
    assert!(node.record("container").is_none());
    assert!(container.path.join("address").exists());
}

#[test]
fn a_dead_shim_s_socket_is_replaced() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let socket = bundle.started();
    let record = node.live_record("one");
    signal(record.shim.unwrap(), Signal::SIGKILL);
    wait_until(|| !lives(record.shim.unwrap()) && !connects(&socket));
    assert!(socket.exists());

    assert_eq!(bundle.started(), socket);
    assert!(connects(&socket));
    let again = node.live_record("one");
    assert_ne!(again.shim, record.shim);
    assert!(lives(again.shim.unwrap()));
    assert!(
        !lives(record.zygote.unwrap()),
        "nothing of the first is left"
    );
}

#[test]
fn a_live_shim_without_its_socket_is_neither_replaced_nor_forgotten() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let socket = bundle.started();
    let record = node.live_record("one");
    fs::remove_file(&socket).unwrap();
    let output = bundle.start();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("delete the pod first"), "{error}");
    assert!(lives(record.shim.unwrap()));
    assert_eq!(node.record("one"), Some(record));
    assert!(!socket.exists());
}

#[test]
fn a_broken_spec_is_an_error_and_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle("one");
    bundle.config("{\"annotations\": ");
    let output = bundle.start();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("config.json is not an OCI runtime spec"),
        "{error}"
    );
    assert!(node.record("one").is_none());
    assert!(!node.path().join("s").exists(), "no socket");
}

#[test]
fn an_id_that_leads_elsewhere_is_refused() {
    let node = Node::new();
    let mut bundle = node.bundle("one");
    bundle.id = "../one".to_owned();
    let output = bundle.start();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("-id"), "{error}");

    let bundle = node.bundle("two");
    bundle.config(r#"{"annotations": {"io.husk.pod": "../../etc"}}"#);
    let output = bundle.start();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("annotation"), "{error}");
}

#[test]
fn parameters_of_another_shim_are_refused() {
    let node = Node::new();
    let other = node.bundle("other");
    let mut bundle = node.bundle("one");
    bundle.id = "one".to_owned();
    let params = containerd_shim::bootstrap::BootstrapParams {
        instance_id: other.id.clone(),
        namespace: node.namespace.clone(),
        containerd_binary: "/bin/containerd".to_owned(),
        ..Default::default()
    };
    let output = bundle.start_from(&params.write_to_bytes().unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_shim_cgroup_that_does_not_exist_is_an_error_and_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let options = containerd_shim::api::Options {
        shim_cgroup: "/husk-test-nobody-made-this".to_owned(),
        ..Default::default()
    };
    let output = bundle.start_with(vec![Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().unwrap(),
        ..Any::default()
    }]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("ShimCgroup"), "{error}");
    assert!(node.record("one").is_none());
    assert_eq!(fs::read_dir(node.path().join("s")).unwrap().count(), 0);
}

#[test]
fn the_daemon_joins_the_shim_cgroup() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let cgroup = OwnCgroup::make(&node.namespace);
    let options = containerd_shim::api::Options {
        shim_cgroup: cgroup.path.clone(),
        ..Default::default()
    };
    let output = bundle.start_with(vec![Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().unwrap(),
        ..Any::default()
    }]);
    assert!(output.status.success(), "{output:?}");
    let record = node.live_record("one");
    for process in [record.shim, record.zygote] {
        let pid = process.unwrap().pid;
        let joined = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(
            joined.lines().any(|line| line.ends_with(&cgroup.path)),
            "{joined}"
        );
    }
    node.delete("one", node.path());
}

/// A cgroup in whichever hierarchy this machine has for memory.
struct OwnCgroup {
    path: String,
    directory: std::path::PathBuf,
}

impl OwnCgroup {
    fn make(name: &str) -> Self {
        let v1 = std::path::Path::new("/sys/fs/cgroup/memory");
        let root = if v1.is_dir() {
            v1
        } else {
            std::path::Path::new("/sys/fs/cgroup")
        };
        let directory = root.join(name);
        fs::create_dir(&directory).unwrap();
        Self {
            path: format!("/{name}"),
            directory,
        }
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // The shim in it has been killed, and is gone in a moment.
        wait_until(|| fs::remove_dir(&self.directory).is_ok());
    }
}

#[test]
fn a_socket_that_another_program_serves_is_not_taken() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let address = bundle.started();
    bundle.delete();
    let other = UnixListener::bind(&address).unwrap();
    assert_eq!(
        bundle.started(),
        address,
        "whoever serves it is the pod's shim"
    );
    assert!(node.record("one").is_none());
    drop(other);
}
