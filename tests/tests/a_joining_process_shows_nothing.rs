//! A process that comes into a pid namespace where others are shows them nothing of the node, not
//! even to those who have CAP_SYS_PTRACE: no root, no working directory, no descriptor, and no
//! capability that the container has not.
//!
//! Where there is no C compiler these tests have nothing to look with, and are left out.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use k8s_cri::v1::{Capability, ContainerConfig, Mount, NamespaceMode};
use serde_json::json;

in_both_modes!(
    neighbours_of_a_new_container_see_nothing_of_the_node,
    nor_of_a_hook_that_runs_while_it_is_made
);

/// Where the container has the folder with the program and its report.
const FOLDER: &str = "/look";

/// Compiles the program that looks into a folder; `None` without a compiler.
fn compile(folder: &Path) -> Option<Vec<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/look.c");
    let program = folder.join("look");
    let compiled = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .args([&program, &source])
        .status();
    if !compiled.ok()?.success() {
        eprintln!("left out: cc cannot link a static program");
        return None;
    }
    let root = fs::metadata("/").unwrap();
    let report = format!("{FOLDER}/report");
    let (device, inode) = (root.dev().to_string(), root.ino().to_string());
    Some(vec![format!("{FOLDER}/look"), report, device, inode])
}

/// Has something done while the program looks, again until that was seen, and checks what it says.
fn looked_at(folder: &Path, mut done: impl FnMut()) {
    let report = folder.join("report");
    until("the program looks", || {
        fs::read_to_string(&report).is_ok_and(|text| text.contains("looking"))
    });
    for _ in 0..4 {
        done();
    }
    fs::write(folder.join("report.stop"), "").unwrap();
    let looks = || fs::read_to_string(&report).unwrap_or_default();
    until("the program has ended", || looks().contains(" looks, "));
    let said = looks();
    assert!(!said.contains("found"), "{said}");
    assert!(!said.contains(" 0 at husk"), "nothing was seen: {said}");
}

#[test]
fn an_exec_shows_nothing_of_the_node() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let folder = container.folder();
    let Some(words) = compile(&folder) else {
        return;
    };
    let mount = format!(
        "type=bind,src={},dst={FOLDER},options=rbind:rw",
        folder.display()
    );
    let container = container
        .flag("--cap-add=CAP_SYS_PTRACE")
        .flag("--mount")
        .flag(&mount);
    container.start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    looked_at(&folder, || {
        for _ in 0..10 {
            let _ = container.exec(&["true"]).ok();
        }
    });
}

fn neighbours_of_a_new_container_see_nothing_of_the_node(mode: Mode) {
    neighbours_look(mode, |_| {});
}

/// It has the node's root, and comes from the process that makes the container.
fn nor_of_a_hook_that_runs_while_it_is_made(mode: Mode) {
    let device = Containerd::of_the_suite().cdi_device(&json!({"hooks": [{
        "hookName": "createContainer",
        "path": "/bin/sleep",
        "args": ["sleep", "0.1"],
    }]}));
    neighbours_look(mode, |config| config.cdi_devices = device.wanted());
}

/// Makes containers, with something changed about them, in a pod whose processes a spy looks at.
fn neighbours_look(mode: Mode, changed: impl Fn(&mut ContainerConfig)) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let shared = NamespaceMode::Pod.into();
    let pod = cri
        .pod(mode)
        .namespaces(|options| options.pid = shared)
        .run();
    let folder = PathBuf::from(&pod.config.log_directory).join("look");
    fs::create_dir_all(&folder).unwrap();
    let Some(words) = compile(&folder) else {
        return;
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let _spy = pod
        .container("spy", &words)
        .with(|config| {
            config.mounts.push(Mount {
                container_path: FOLDER.into(),
                host_path: folder.display().to_string(),
                ..Default::default()
            });
        })
        .security(|security| {
            security.capabilities = Some(Capability {
                add_capabilities: vec!["SYS_PTRACE".into()],
                ..Default::default()
            });
        })
        .start();
    let mut number = 0;
    looked_at(&folder, || {
        for _ in 0..3 {
            number += 1;
            let neighbour = pod
                .container(&format!("neighbour-{number}"), &["sleep", "1000000"])
                .with(&changed)
                .start();
            assert_eq!(neighbour.sh("echo hello"), "hello");
            neighbour.stop(0);
            neighbour.remove();
        }
    });
}
