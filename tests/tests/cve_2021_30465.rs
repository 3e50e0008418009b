//! CVE-2021-30465: while a container is made that has a mount below a volume, a neighbour who shares the
//! volume exchanges the place for a link. The mount must not land where that leads on the node: there
//! it would hide what the next mount of the container is taken from.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use husk_tests::race::while_exchanged;
use serde_json::json;

const ROUNDS: u32 = 20;
/// Each is a chance for the link to be there between two looks.
const MOUNTS_EACH: u32 = 10;

/// Makes containers whose volumes lie beside each other on the node, as a pod's do: one that is shared
/// and has the link, one that is the attacker's, and a third, in whose place the attacker's would
/// show the node.
#[track_caller]
fn attack(link_to: impl Fn(&Path) -> PathBuf) {
    let containerd = Containerd::of_the_suite();
    let folder = containerd.lab().run.join(unique("files"));
    let (volumes, secret) = (folder.join("volumes"), folder.join("secret"));
    let volume = |name: &str| volumes.join(name);
    for made in [&volume("shared/place"), &volume("theirs"), &volume("third")] {
        fs::create_dir_all(made).unwrap();
    }
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("name"), "the node's\n").unwrap();
    fs::write(volume("third").join("name"), "the pod's\n").unwrap();
    symlink(&secret, volume("theirs").join("third")).unwrap();
    // Once it hides them all, it is still found for the mounts that follow.
    symlink(".", volume("theirs").join("theirs")).unwrap();
    let (place, link) = (volume("shared/place"), volume("shared/link"));
    symlink(link_to(&volumes), &link).unwrap();

    let bind = |source: &Path, destination: &str| json!({"destination": destination, "source": source, "options": ["rbind"]});
    let mut made = 0;
    while_exchanged(&place, &link, || {
        for _ in 0..ROUNDS {
            let container = containerd.ctr().container();
            let container = container.spec(&["cat", "/third/name"], |spec| {
                let mounts = spec["mounts"].as_array_mut().unwrap();
                mounts.push(bind(&volume("shared"), "/shared"));
                for _ in 0..MOUNTS_EACH {
                    mounts.push(bind(&volume("theirs"), "/shared/place"));
                }
                mounts.push(bind(&volume("third"), "/third"));
            });
            let output = container.run(&[]);
            // Refused, where the link came just when no directory had been made yet where it leads.
            if output.code == 0 {
                assert_eq!(output.ok(), "the pod's\n");
                made += 1;
            } else {
                assert!(output.stderr.contains("at /shared/place"), "{output:?}");
            }
        }
    });
    assert!(made > 0, "all were refused");
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounted.contains(&*volumes.to_string_lossy()), "{mounted}");
}

#[test]
fn a_mount_below_a_volume_does_not_land_where_a_link_leads_on_the_node() {
    attack(Path::to_owned);
}

#[test]
fn a_mount_below_a_volume_does_not_climb_out_of_the_root() {
    attack(|volumes| {
        let up: PathBuf = std::iter::repeat_n("..", 40).collect();
        up.join(volumes.strip_prefix("/").unwrap())
    });
}
