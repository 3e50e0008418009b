//! CVE-2025-52565: the terminal is mounted over /dev/console, wherever that leads.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use k8s_cri::v1::Mount;

#[test]
fn a_console_that_is_a_link_is_not_mounted_over() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    // Over any of these a terminal would hide what a mask or a read-only mount closes.
    for leads_to in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "../etc/hostname",
    ] {
        let dev = containerd.lab().run.join(unique("dev"));
        fs::create_dir_all(&dev).unwrap();
        symlink(leads_to, dev.join("console")).unwrap();
        let pod = cri.pod(Mode::Podsandbox).run();
        let container = pod
            .container("attacker", &["sleep", "1000000"])
            .with(|config| {
                config.tty = true;
                config.mounts = vec![Mount {
                    container_path: "/dev".into(),
                    host_path: dev.to_string_lossy().into_owned(),
                    ..Default::default()
                }];
            });
        // To refuse such a container is fine; to run it, without harm, too.
        let Ok(created) = container.try_create() else {
            continue;
        };
        if created.try_start().is_ok() {
            let mounts = created.exec(&["cat", "/proc/self/mountinfo"]).ok();
            let over = mounts
                .lines()
                .find(|line| line.contains(" - devpts ") && !line.contains("/dev/"));
            assert_eq!(over, None, "{leads_to}");
        }
    }
}

#[test]
fn a_console_of_the_image_is_not_mounted_over() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let rootfs = container.folder().join("rootfs");
    fs::create_dir_all(&rootfs).unwrap();
    husk_tests::image::rootfs(&rootfs).unwrap();
    fs::create_dir_all(rootfs.join("dev")).unwrap();
    symlink("/etc/passwd", rootfs.join("dev/console")).unwrap();
    let before = fs::read(rootfs.join("etc/passwd")).unwrap_or_default();
    let output = container
        .rootfs(&rootfs.to_string_lossy())
        .run(&["cat", "/proc/self/mountinfo"]);
    assert!(!output.stdout.contains("/etc/passwd"), "{output:?}");
    assert_eq!(
        fs::read(rootfs.join("etc/passwd")).unwrap_or_default(),
        before
    );
}
