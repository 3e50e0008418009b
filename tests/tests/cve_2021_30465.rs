//! CVE-2021-30465: while a container is made that has a mount below a volume, a neighbour who shares the
//! volume exchanges the place for a link. The mount must not land where that leads on the node: there
//! it would hide what the next mount of the container is taken from. Nor may what is done to a new filesystem be done
//! to another, to which the link leads inside.
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
/// Of containers with a tmpfs: about every second was fooled.
const FEWER_ROUNDS: usize = 8;

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

/// A container that has a tmpfs below the shared volume, and one of its own that the link leads to.
struct Victim {
    shared: PathBuf,
    private: PathBuf,
    option: &'static str,
}

impl Victim {
    fn new(containerd: &Containerd, option: &'static str) -> Self {
        let folder = containerd.lab().run.join(unique("files"));
        let [shared, private] = ["shared", "private"].map(|name| folder.join(name));
        fs::create_dir_all(shared.join("place/planted")).unwrap();
        fs::create_dir_all(private.join("secret")).unwrap();
        symlink("/private", shared.join("link")).unwrap();
        Self {
            shared,
            private,
            option,
        }
    }

    /// Makes some of them, and answers their mounts at the place of the private volume, in lines of
    /// mountinfo.
    #[track_caller]
    fn attack(&self, containerd: &Containerd) -> Vec<String> {
        let bind = |source: &Path, destination: &str| json!({"destination": destination, "source": source, "options": ["rbind", "rprivate"]});
        let (place, link) = (self.shared.join("place"), self.shared.join("link"));
        let mut seen = Vec::new();
        while_exchanged(&place, &link, || {
            for _ in 0..FEWER_ROUNDS {
                let container = containerd.ctr().container();
                let words = ["grep", " /private ", "/proc/self/mountinfo"];
                let container = container.spec(&words, |spec| {
                    let mounts = spec["mounts"].as_array_mut().unwrap();
                    mounts.push(bind(&self.shared, "/shared"));
                    mounts.push(bind(&self.private, "/private"));
                    for _ in 0..3 {
                        mounts.push(json!({
                            "destination": "/shared/place", "type": "tmpfs", "source": "tmpfs",
                            "options": [self.option],
                        }));
                    }
                });
                seen.extend(container.run(&[]).ok().lines().map(str::to_owned));
            }
        });
        seen
    }
}

#[test]
fn a_tmpfs_that_begins_with_what_it_covers_carries_nothing_from_volume_to_volume() {
    let containerd = Containerd::of_the_suite();
    let victim = Victim::new(&containerd, "tmpcopyup");
    victim.attack(&containerd);
    let names = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&victim.private), ["secret"]);
    let shared = ["place", "link"].map(|name| victim.shared.join(name));
    let place = shared.iter().find(|path| !path.is_symlink()).unwrap();
    assert_eq!(names(place), ["planted"]);
}

#[test]
fn another_volume_does_not_become_what_a_tmpfs_is_to_be() {
    let containerd = Containerd::of_the_suite();
    for (option, word) in [("ro", " ro,"), ("rro", " ro,"), ("rshared", " shared:")] {
        let victim = Victim::new(&containerd, option);
        let seen = victim.attack(&containerd);
        // The volume itself; a tmpfs on top of it came when the link was there.
        let own: Vec<_> = seen
            .iter()
            .filter(|line| line.contains("/private /private "))
            .collect();
        assert_eq!(own.len(), FEWER_ROUNDS, "{seen:?}");
        for line in own {
            assert!(!line.contains(word), "{option}: {line}");
        }
        for line in seen.iter().filter(|line| line.contains(" / /private ")) {
            assert!(line.contains(word), "{option}: {line}");
        }
    }
}
