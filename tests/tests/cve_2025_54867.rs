//! CVE-2025-54867 (youki): an image with links at /proc and /sys has what is mounted there mounted on the
//! node, or in the wrong place of the container.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;

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
fn links_at_proc_and_sys_are_refused() {
    let containerd = Containerd::of_the_suite();
    for (hostile, leads_to) in [
        ("proc", "srv"),
        ("sys", "srv"),
        ("proc", "/proc"),
        ("sys", "../../sys"),
    ] {
        let container = containerd.ctr().container();
        let rootfs = container.folder().join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        husk_tests::image::rootfs(&rootfs).unwrap();
        fs::remove_dir_all(rootfs.join(hostile)).unwrap();
        fs::create_dir_all(rootfs.join("srv")).unwrap();
        symlink(leads_to, rootfs.join(hostile)).unwrap();
        let output = container.rootfs(&rootfs.to_string_lossy()).run(&["true"]);
        assert_ne!(output.code, 0, "/{hostile} leads to {leads_to}: {output:?}");
        assert!(output.stderr.contains("ordinary directory"), "{output:?}");
    }
}
