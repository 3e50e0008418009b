//! CVE-2019-16884 and CVE-2019-19921: a volume over /proc, or an image whose /proc is a link into one,
//! must not stand in for procfs, by which AppArmor profiles are set and paths are masked.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use serde_json::json;

#[test]
fn nothing_but_procfs_is_mounted_at_and_over_proc() {
    let containerd = Containerd::of_the_suite();
    for (at, hook) in [
        ("/proc", false),
        ("/proc", true),
        ("/proc/sys", true),
        ("/proc/self/attr", true),
        ("/proc/../proc", true),
    ] {
        let container = containerd.ctr().container();
        let fake = container.folder().join("fake");
        fs::create_dir_all(fake.join("self/attr")).unwrap();
        fs::create_dir_all(fake.join("attr")).unwrap();
        let container = container.spec(&["true"], |spec| {
            let mount = json!({"destination": at, "source": fake, "options": ["rbind"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
            if hook {
                spec["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}]});
            }
        });
        let output = container.run(&[]);
        assert_ne!(output.code, 0, "{at}, hook {hook}");
        assert!(output.stderr.contains("over /proc"), "{at}: {output:?}");
    }
}

#[test]
fn a_proc_that_is_a_link_into_a_volume_is_refused() {
    let containerd = Containerd::of_the_suite();
    for name in ["proc", "sys"] {
        let container = containerd.ctr().container();
        let folder = container.folder();
        let volume = folder.join("volume");
        fs::create_dir_all(&volume).unwrap();
        let container = container.spec(&["true"], |spec| {
            let mount = json!({"destination": "/volume", "source": volume, "options": ["rbind"]});
            spec["mounts"].as_array_mut().unwrap().insert(0, mount);
            spec["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}]});
        });
        let link = folder.join("rootfs").join(name);
        fs::remove_dir(&link).unwrap();
        symlink("/volume", &link).unwrap();
        let output = container.run(&[]);
        assert_ne!(output.code, 0, "/{name}");
        assert!(output.stderr.contains("ordinary directory"), "{output:?}");
        assert!(fs::read_dir(&volume).unwrap().next().is_none());
    }
}
