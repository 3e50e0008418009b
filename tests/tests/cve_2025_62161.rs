//! CVE-2025-62161 (youki): /dev/null is checked, then exchanged, then mounted over a masked path.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use k8s_cri::v1::Mount;
use nix::sys::stat::{Mode as Permissions, SFlag, makedev, mknod};

/// Exchanges what is called `null` in a folder, the device and a link, until told to end.
fn exchange(dev: &Path, target: &Path, end: &AtomicBool) {
    let null = dev.join("null");
    while !end.load(Ordering::Relaxed) {
        let next = dev.join("next");
        let all = Permissions::from_bits_truncate(0o666);
        mknod(&next, SFlag::S_IFCHR, all, makedev(1, 3)).unwrap();
        fs::rename(&next, &null).unwrap();
        symlink(target, &next).unwrap();
        fs::rename(&next, &null).unwrap();
    }
}

#[test]
fn a_dev_null_that_is_exchanged_meanwhile_masks_nothing_else() {
    let containerd = Containerd::of_the_suite();
    let dev = containerd.lab().run.join(unique("dev"));
    let target = containerd.lab().run.join(unique("target"));
    fs::create_dir_all(&dev).unwrap();
    fs::write(&target, "the node's\n").unwrap();
    let end = AtomicBool::new(false);
    let cri = containerd.cri();
    let pod = cri.pod(Mode::Podsandbox).run();
    thread::scope(|scope| {
        scope.spawn(|| exchange(&dev, &target, &end));
        // /dev of each is the folder, and the link leads where the attackers have the node's file.
        for round in 0..20 {
            let mount = |container_path: String, host_path: &Path| Mount {
                container_path,
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: host_path == target,
                ..Default::default()
            };
            let container = pod
                .container(&format!("attacker{round}"), &["sleep", "1000000"])
                .with(|config| {
                    config.mounts = vec![
                        mount("/dev".into(), &dev),
                        mount(target.to_string_lossy().into_owned(), &target),
                    ];
                })
                .security(|security| security.masked_paths = vec!["/proc/meminfo".into()]);
            // To refuse one is fine; where it runs, what masks is the device.
            let Ok(created) = container.try_create() else {
                continue;
            };
            if created.try_start().is_err() {
                continue;
            }
            let seen = created.exec(&["sh", "-c", "echo x > /proc/meminfo; cat /proc/meminfo"]);
            assert_eq!(seen.stdout, "", "{seen:?}");
        }
        end.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(&target).unwrap(), "the node's\n");
}
