//! CVE-2025-31133: a file is masked with the container's /dev/null, which may be something else; what a
//! container prepares there must not turn the runtime's mounts against the node.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use husk_tests::node_file::NodeFile;
use k8s_cri::v1::Mount;

/// Runs a container whose /dev is this folder, masks a path, and tries to write through it.
#[track_caller]
fn attack(containerd: &Containerd, dev: &std::path::Path) -> Option<String> {
    let cri = containerd.cri();
    let pod = cri.pod(Mode::Podsandbox).run();
    let mount = Mount {
        container_path: "/dev".into(),
        host_path: dev.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let script = "echo overwritten > /proc/meminfo; cat /proc/meminfo; sleep 1000000";
    let container = pod
        .container("attacker", &["sh", "-c", script])
        .with(|config| config.mounts = vec![mount])
        .security(|security| security.masked_paths = vec!["/proc/meminfo".into()]);
    // To refuse such a container is fine; to run it, without harm, too.
    let created = container.try_create().ok()?;
    created.try_start().ok()?;
    Some(
        created
            .exec(&["sh", "-c", "echo overwritten > /proc/meminfo"])
            .stderr,
    )
}

#[test]
fn a_dev_null_that_is_a_link_masks_nothing_else() {
    let containerd = Containerd::of_the_suite();
    let target = NodeFile::new(&containerd);
    let dev = containerd.lab().run.join(unique("dev"));
    fs::create_dir_all(&dev).unwrap();
    symlink(&target.path, dev.join("null")).unwrap();
    attack(&containerd, &dev);
    target.assert_untouched();
}

#[test]
fn a_dev_null_that_is_a_file_is_not_taken_for_the_device() {
    let containerd = Containerd::of_the_suite();
    let dev = containerd.lab().run.join(unique("dev"));
    fs::create_dir_all(&dev).unwrap();
    fs::write(dev.join("null"), "the node's\n").unwrap();
    attack(&containerd, &dev);
    assert_eq!(
        fs::read_to_string(dev.join("null")).unwrap(),
        "the node's\n"
    );
}

#[test]
fn a_dev_null_that_is_another_device_masks_nothing() {
    let containerd = Containerd::of_the_suite();
    let dev = containerd.lab().run.join(unique("dev"));
    fs::create_dir_all(&dev).unwrap();
    // What is written to this one comes back from nowhere, but it is not what was asked for.
    let zero = nix::sys::stat::makedev(1, 5);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(
        &dev.join("null"),
        nix::sys::stat::SFlag::S_IFCHR,
        mode,
        zero,
    )
    .unwrap();
    assert_eq!(attack(&containerd, &dev), None, "it is refused");
}
