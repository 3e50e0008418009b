//! CVE-2023-28642: with links in the image and the right mounts, something else than procfs is at /proc,
//! and AppArmor's profile is written there.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use serde_json::{Value, json};

/// Runs a container with such a link in its image and this mount before all others, or after them, and
/// answers what is said against it.
#[track_caller]
fn refusal(link: &str, leads_to: &str, mount: &Value, first: bool) -> String {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let at = container.folder().join("rootfs").join(link);
    let container = container.spec(&["true"], |spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let place = if first { 0 } else { mounts.len() };
        mounts.insert(place, mount.clone());
    });
    let _ = fs::remove_dir(&at);
    symlink(leads_to, &at).unwrap();
    let output = container.run(&[]);
    assert_ne!(output.code, 0, "/{link} leads to {leads_to}: {mount}");
    output.stderr
}

fn tmpfs(destination: &str) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"})
}

#[test]
fn a_link_at_proc_or_sys_is_refused_whatever_is_mounted_where_it_leads() {
    for link in ["proc", "sys"] {
        for leads_to in ["/elsewhere", "elsewhere", "bin/../elsewhere", "."] {
            for first in [true, false] {
                let said = refusal(link, leads_to, &tmpfs("/elsewhere"), first);
                assert!(said.contains("ordinary directory"), "{leads_to}: {said}");
            }
        }
    }
}

#[test]
fn nothing_comes_over_proc_by_the_name_of_a_link() {
    let containerd = Containerd::of_the_suite();
    let fake = containerd.lab().run.join(unique("fake"));
    fs::create_dir_all(fake.join("attr")).unwrap();
    for first in [true, false] {
        for (leads_to, below) in [
            ("/proc", ""),
            ("../proc/.", ""),
            ("proc", "/sys"),
            // A process's own, by a link of procfs.
            ("proc", "/self/attr"),
            ("proc/self", "/attr"),
        ] {
            let destination = format!("/alias{below}");
            let volume = json!({"destination": destination, "source": fake, "options": ["rbind"]});
            for mount in [volume, tmpfs(&destination)] {
                let said = refusal("alias", leads_to, &mount, first);
                assert!(said.contains("over /proc"), "{leads_to}: {said}");
            }
        }
    }
}

#[test]
fn procfs_and_sysfs_are_not_mounted_by_the_name_of_a_link() {
    for (kind, leads_to) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("proc", "/sys"),
        ("sysfs", "/proc"),
    ] {
        let mount = json!({"destination": "/alias", "type": kind, "source": kind});
        let said = refusal("alias", leads_to, &mount, false);
        assert!(said.contains("ordinary directory"), "{leads_to}: {said}");
    }
}
