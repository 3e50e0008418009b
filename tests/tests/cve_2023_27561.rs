//! CVE-2023-27561, which is CVE-2019-19921 again: an image whose /proc is a link into a volume, where a
//! neighbour exchanges what it leads to, so that procfs is mounted in one place and masked in another.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use husk_tests::race::while_exchanged;
use serde_json::json;

const ROUNDS: u32 = 5;

/// A container whose `/proc` or `/sys` (`name`) leads into the volume is refused, and leaves it as it is.
#[track_caller]
fn assert_refused(containerd: &Containerd, name: &str, volume: &Path) {
    let container = containerd.ctr().container();
    let link = container.folder().join("rootfs").join(name);
    let container = container.spec(&["true"], |spec| {
        let mount = json!({"destination": "/volume", "source": volume, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().insert(0, mount);
    });
    fs::remove_dir(&link).unwrap();
    symlink("/volume/one/below", &link).unwrap();
    let output = container.run(&[]);
    assert_ne!(output.code, 0, "/{name}: {output:?}");
    assert!(output.stderr.contains("ordinary directory"), "{output:?}");
}

#[test]
fn what_a_link_at_proc_leads_to_may_be_exchanged_without_end() {
    let containerd = Containerd::of_the_suite();
    for name in ["proc", "sys"] {
        let volume = containerd.lab().run.join(unique("volume"));
        let (one, two) = (volume.join("one"), volume.join("two"));
        for directory in [&one, &two] {
            fs::create_dir_all(directory.join("below")).unwrap();
        }
        while_exchanged(&one, &two, || {
            for _ in 0..ROUNDS {
                assert_refused(&containerd, name, &volume);
            }
        });
        for directory in [&one, &two] {
            let mut below = fs::read_dir(directory.join("below")).unwrap();
            assert!(below.next().is_none());
        }
    }
}

#[test]
fn what_a_link_at_proc_leads_to_may_come_and_go() {
    let containerd = Containerd::of_the_suite();
    for name in ["proc", "sys"] {
        let volume = containerd.lab().run.join(unique("volume"));
        let (one, two) = (volume.join("one"), volume.join("two"));
        fs::create_dir_all(one.join("below")).unwrap();
        symlink("/", &two).unwrap();
        while_exchanged(&one, &two, || {
            for _ in 0..ROUNDS {
                assert_refused(&containerd, name, &volume);
            }
        });
    }
}
