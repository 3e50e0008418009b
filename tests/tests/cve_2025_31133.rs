//! CVE-2025-31133 and its kin (2025-52565, 2025-52881): what a container prepares must not turn
//! the runtime's own mounts and writes against the node.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use k8s_cri::v1::Mount;

/// A file of the node that a container must never be able to write.
struct Target {
    path: PathBuf,
}

impl Target {
    fn new(containerd: &Containerd) -> Self {
        let path = containerd.lab().run.join(unique("target"));
        fs::write(&path, "the node's\n").unwrap();
        Self { path }
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.path).unwrap(), "the node's\n");
    }
}

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
    let target = Target::new(&containerd);
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
fn a_root_filesystem_of_links_leads_nowhere() {
    let containerd = Containerd::of_the_suite();
    let outside = containerd.lab().run.join(unique("outside"));
    fs::create_dir_all(&outside).unwrap();
    for hostile in ["dev", "proc", "sys", "etc"] {
        let container = containerd.ctr().container();
        let rootfs = container.folder().join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        husk_tests::image::rootfs(&rootfs).unwrap();
        fs::remove_dir_all(rootfs.join(hostile)).unwrap();
        symlink(&outside, rootfs.join(hostile)).unwrap();
        // Links are followed below the new root only, or refused.
        let _ = container.rootfs(&rootfs.to_string_lossy()).run(&["true"]);
        let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
        assert!(left.is_empty(), "/{hostile} led to {left:?}");
    }
}

#[test]
fn sysctls_and_limits_are_written_to_the_real_proc_only() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let target = Target::new(&containerd);
    // /proc is the author's folder: writing oom_score_adj or attributes there must not follow a link.
    let fake = containerd.lab().run.join(unique("proc"));
    fs::create_dir_all(fake.join("self/attr")).unwrap();
    for name in ["self/oom_score_adj", "self/attr/exec", "self/setgroups"] {
        symlink(&target.path, fake.join(name)).unwrap();
    }
    let pod = cri.pod(Mode::Podsandbox).run();
    let mount = Mount {
        container_path: "/proc".into(),
        host_path: fake.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let container = pod
        .container("attacker", &["sleep", "1000000"])
        .with(|config| config.mounts = vec![mount])
        .resources(|resources| resources.oom_score_adj = 777);
    if let Ok(container) = container.try_create() {
        let _ = container.try_start();
    }
    target.assert_untouched();
}
