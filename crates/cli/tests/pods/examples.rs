//! The example pod does what its comments say.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, finish};

crate::under_each_shim!(the_app_and_its_sidecar);

fn the_app_and_its_sidecar(node: &Node) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let busybox = node.scratch().join("target/busybox");
    let made = Command::new(examples.join("busybox"))
        .arg(&busybox)
        .status()
        .unwrap();
    assert!(made.success());
    let manifest = node.scratch().join("examples/pod.yaml");
    fs::create_dir(manifest.parent().unwrap()).unwrap();
    fs::copy(examples.join("pod.yaml"), &manifest).unwrap();

    let mut child = node.start_manifest(&manifest, &[]);
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in output {
        let line = line.unwrap();
        let last = line.contains("processes (my own)");
        said.extend(line.strip_prefix("sidecar | ").map(ToOwned::to_owned));
        if last {
            kill(
                Pid::from_raw(child.id().try_into().unwrap()),
                Signal::SIGINT,
            )
            .unwrap();
        }
    }
    assert!(finish(child).status.success());
    assert_eq!(said[0], "hostname (shared):  web");
    assert_eq!(said[1], "localhost (shared): this page is the app's");
    assert_eq!(said[2], "/dev/shm (shared):  written by the app");
    assert_eq!(said[3], "files (my own):     /srv/index.html is not here");
    assert!(said[4].starts_with("processes (my own): "), "{said:?}");
    assert_eq!(said[5], "stopping");
    node.assert_nothing_left();
}
