//! CVE-2025-62161 (youki): /dev/null is checked, then exchanged, then mounted over a masked path.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use husk_tests::node_file::NodeFile;
use husk_tests::race::while_exchanged;
use k8s_cri::v1::Mount;
use nix::sys::stat::{Mode as Permissions, SFlag, makedev, mknod};

#[test]
fn a_dev_null_that_is_exchanged_meanwhile_masks_nothing_else() {
    let containerd = Containerd::of_the_suite();
    let dev = containerd.lab().run.join(unique("dev"));
    let target = NodeFile::new(&containerd);
    fs::create_dir_all(&dev).unwrap();
    let null = dev.join("null");
    let all = Permissions::from_bits_truncate(0o666);
    mknod(&null, SFlag::S_IFCHR, all, makedev(1, 3)).unwrap();
    let link = dev.join("link");
    symlink(&target.path, &link).unwrap();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::Podsandbox).run();
    while_exchanged(&null, &link, || {
        // /dev of each is the folder, and the link leads where the attackers have the node's file.
        for round in 0..20 {
            let mount = |container_path: String, host_path: &Path| Mount {
                container_path,
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: host_path == target.path,
                ..Default::default()
            };
            let container = pod
                .container(&format!("attacker{round}"), &["sleep", "1000000"])
                .with(|config| {
                    config.mounts = vec![
                        mount("/dev".into(), &dev),
                        mount(target.path.to_string_lossy().into_owned(), &target.path),
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
    });
    target.assert_untouched();
}
