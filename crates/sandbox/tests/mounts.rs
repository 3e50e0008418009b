//! What a container sees of the mounts it asked for: each option does what it says, or is refused.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::process::Ended;
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};
use support::{Lab, read_all, run};

fn main() {
    run(&[
        (
            "options_of_a_bind_are_its_own",
            options_of_a_bind_are_its_own,
        ),
        (
            "a_bind_without_options_stays_as_it_is",
            a_bind_without_options,
        ),
        ("recursive_options_reach_what_is_below", recursive_options),
        (
            "recursive_options_take_flags_away",
            recursive_options_take_flags_away,
        ),
        ("propagation_of_a_mount_is_as_asked", propagation_of_a_mount),
        ("a_remount_changes_what_is_mounted", a_remount),
        (
            "mounts_come_in_the_listed_order",
            mounts_come_in_the_listed_order,
        ),
        (
            "a_relative_destination_begins_at_the_root",
            a_relative_destination,
        ),
        (
            "no_link_is_followed_where_none_should_be",
            no_link_is_followed,
        ),
        (
            "options_of_a_filesystem_are_its_own",
            options_of_a_filesystem,
        ),
        (
            "options_that_a_bind_would_ignore_are_refused",
            options_that_a_bind_would_ignore,
        ),
        (
            "a_tmpfs_is_like_what_it_covers",
            a_tmpfs_is_like_what_it_covers,
        ),
        (
            "a_tmpfs_begins_with_what_it_covers",
            a_tmpfs_begins_with_what_it_covers,
        ),
        ("a_read_only_tmpfs_may_have_mounts_in_it", a_read_only_tmpfs),
        (
            "a_mount_at_the_root_is_refused",
            a_mount_at_the_root_is_refused,
        ),
        ("the_root_is_private", the_root_is_private),
        (
            "propagation_of_the_root_is_as_asked",
            propagation_of_the_root,
        ),
        (
            "what_masks_a_directory_has_no_room",
            what_masks_a_directory_has_no_room,
        ),
        (
            "a_masked_path_that_is_a_link_is_masked",
            a_masked_path_that_is_a_link,
        ),
        ("a_device_may_be_anywhere", a_device_may_be_anywhere),
        (
            "a_terminal_and_a_read_only_dev_go_together",
            a_terminal_and_a_read_only_dev,
        ),
        (
            "a_bind_over_proc_sys_is_refused",
            a_bind_over_proc_sys_is_refused,
        ),
        (
            "names_without_a_namespace_are_refused",
            names_without_a_namespace,
        ),
        (
            "what_is_not_done_is_refused_by_name",
            what_is_not_done_is_refused_by_name,
        ),
        ("few_descriptors_suffice", few_descriptors_suffice),
        ("unknown_capabilities_grant_nothing", unknown_capabilities),
        ("the_session_keyring_is_the_containers", the_session_keyring),
        (
            "personality_and_memory_policy_are_as_asked",
            personality_and_memory_policy,
        ),
    ]);
}

/// What a script says in a container with these mounts.
fn says(lab: &Lab, script: &str, mounts: &[Value]) -> String {
    let container = lab.shell(script, |spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .extend_from_slice(mounts);
    });
    let (ended, said) = container.finish();
    assert_eq!(ended, Ended::Exited(0), "{said}");
    said
}

/// The line of a mount in mountinfo, which a script has shown.
fn line<'a>(mountinfo: &'a str, point: &str) -> &'a str {
    mountinfo
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(point))
        .unwrap_or_else(|| panic!("no {point} in {mountinfo}"))
}

/// A mount's own options.
fn options<'a>(mountinfo: &'a str, point: &str) -> Vec<&'a str> {
    line(mountinfo, point)
        .split(' ')
        .nth(5)
        .unwrap()
        .split(',')
        .collect()
}

/// Those of its filesystem.
fn super_options<'a>(mountinfo: &'a str, point: &str) -> Vec<&'a str> {
    line(mountinfo, point)
        .rsplit(' ')
        .next()
        .unwrap()
        .split(',')
        .collect()
}

/// A tmpfs of the node's, with a program in it.
struct Volume(PathBuf);

impl Volume {
    fn new(lab: &Lab, flags: MsFlags) -> Self {
        let path = lab.run_dir().join("volume");
        fs::create_dir(&path).unwrap();
        mount(
            Some("volume"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let program = path.join("program");
        fs::write(&program, "#!/bin/sh\necho ran\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("program", path.join("link")).unwrap();
        let none = None::<&str>;
        mount(
            none,
            &path,
            none,
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags,
            none,
        )
        .unwrap();
        Self(path)
    }

    fn at(&self, options: &[&str]) -> Value {
        json!({"destination": "/volume", "source": self.0, "options": options})
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        umount(&self.0).unwrap();
        fs::remove_dir(&self.0).unwrap();
    }
}

const MOUNTINFO: &str = "cat /proc/self/mountinfo";

/// Those that say anything say all, as with runc: case of a pod's /dev/shm, which containerd mounts
/// `noexec` and binds `rw`.
fn options_of_a_bind_are_its_own(lab: &Lab) {
    let volume = Volume::new(
        lab,
        MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
    );
    let ran = says(lab, "/volume/program", &[volume.at(&["rbind", "rw"])]);
    assert_eq!(ran, "ran\n");
    for option in [
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "nosymfollow",
    ] {
        let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", option])]);
        let seen = options(&seen, "/volume");
        assert!(seen.contains(&option), "{option}: {seen:?}");
        for other in ["ro", "nosuid", "nodev", "noexec", "nosymfollow"] {
            assert_eq!(seen.contains(&other), other == option, "{option}: {seen:?}");
        }
    }
    for (cleared, flag) in [
        ("rw", "ro"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
        ("symfollow", "nosymfollow"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
    ] {
        let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", flag, cleared])]);
        assert!(!options(&seen, "/volume").contains(&flag), "{cleared}");
        let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", cleared, flag])]);
        assert!(options(&seen, "/volume").contains(&flag), "{flag}");
    }
    let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", "strictatime"])]);
    let seen = options(&seen, "/volume");
    assert!(
        !seen.contains(&"relatime") && !seen.contains(&"noatime"),
        "{seen:?}"
    );
}

fn a_bind_without_options(lab: &Lab) {
    let volume = Volume::new(
        lab,
        MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME,
    );
    for bind in [&["rbind"][..], &["bind", "rprivate"]] {
        let seen = says(lab, MOUNTINFO, &[volume.at(bind)]);
        let seen = options(&seen, "/volume");
        for flag in ["noexec", "ro", "noatime"] {
            assert!(seen.contains(&flag), "{flag}: {seen:?}");
        }
    }
    let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", "rw"])]);
    assert!(
        options(&seen, "/volume").contains(&"noatime"),
        "no option is about access times"
    );
}

fn recursive_options(lab: &Lab) {
    let volume = Volume::new(lab, MsFlags::empty());
    let below = volume.0.join("below");
    fs::create_dir(&below).unwrap();
    mount(
        Some("below"),
        &below,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    for (option, flag) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnosymfollow", "nosymfollow"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
    ] {
        let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", option])]);
        for point in ["/volume", "/volume/below"] {
            assert!(options(&seen, point).contains(&flag), "{option} of {point}");
        }
    }
    umount(&below).unwrap();
}

fn recursive_options_take_flags_away(lab: &Lab) {
    let all = MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME
        | MsFlags::from_bits_retain(0x100);
    let volume = Volume::new(lab, MsFlags::empty());
    let below = volume.0.join("below");
    fs::create_dir(&below).unwrap();
    let none = None::<&str>;
    mount(Some("below"), &below, Some("tmpfs"), all, none).unwrap();
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | all;
    mount(none, &volume.0, none, remount, none).unwrap();
    for (option, flag) in [
        ("rrw", "ro"),
        ("rsuid", "nosuid"),
        ("rdev", "nodev"),
        ("rexec", "noexec"),
        ("rsymfollow", "nosymfollow"),
        ("rdiratime", "nodiratime"),
        ("ratime", "noatime"),
        ("rrelatime", "noatime"),
        ("rnorelatime", "noatime"),
        ("rstrictatime", "noatime"),
        ("rnostrictatime", "noatime"),
    ] {
        let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", option])]);
        for point in ["/volume", "/volume/below"] {
            let seen = options(&seen, point);
            assert!(!seen.contains(&flag), "{option} of {point}: {seen:?}");
            // What is not named stays.
            let kept = ["ro", "nosuid", "nodev", "noexec", "nosymfollow"];
            for other in kept.into_iter().filter(|other| *other != flag) {
                assert!(seen.contains(&other), "{option} of {point}: {seen:?}");
            }
        }
    }
    umount(&below).unwrap();
}

fn propagation_of_a_mount(lab: &Lab) {
    let volume = shared(lab);
    let below = volume.0.join("below");
    fs::create_dir(&below).unwrap();
    let (none, empty) = (None::<&str>, MsFlags::empty());
    mount(Some("below"), &below, Some("tmpfs"), empty, none).unwrap();
    mount(none, &below, none, MsFlags::MS_SHARED, none).unwrap();
    for (option, itself, all) in [
        ("private", "", "master"),
        ("rprivate", "", ""),
        ("slave", "master", "master"),
        ("rslave", "master", "master"),
        // Below the node's, whose mounts nothing of a container's reaches.
        ("shared", "sharedmaster", "master"),
        ("rshared", "sharedmaster", "sharedmaster"),
        ("unbindable", "unbindable", "master"),
        ("runbindable", "unbindable", "unbindable"),
    ] {
        let seen = says(lab, MOUNTINFO, &[volume.at(&["rbind", option])]);
        assert_eq!(propagation(&seen, "/volume"), itself, "{option}");
        assert_eq!(propagation(&seen, "/volume/below"), all, "{option}");
        let tmpfs =
            json!({"destination": "/srv", "type": "tmpfs", "source": "t", "options": [option]});
        let seen = says(lab, MOUNTINFO, &[tmpfs]);
        let of_new = itself.replace("master", "");
        assert_eq!(propagation(&seen, "/srv"), of_new, "{option} of a tmpfs");
    }
    umount(&below).unwrap();
}

fn a_remount(lab: &Lab) {
    let tmpfs = |options: &[&str]| json!({"destination": "/srv", "type": "tmpfs", "source": "t", "options": options});
    for more in [&["size=64k"][..], &["size=64k", "ro", "nosuid"]] {
        let remount = [&["remount"], more].concat();
        let mounts = [tmpfs(&["size=1m", "mode=711"]), tmpfs(&remount)];
        let seen = says(lab, MOUNTINFO, &mounts);
        let found = seen.lines().filter(|line| line.contains(" /srv "));
        assert_eq!(found.count(), 1, "{seen}");
        let (own, of_filesystem) = (options(&seen, "/srv"), super_options(&seen, "/srv"));
        assert!(of_filesystem.contains(&"size=64k"), "{of_filesystem:?}");
        assert!(of_filesystem.contains(&"mode=711"), "{of_filesystem:?}");
        for flag in ["ro", "nosuid"] {
            assert_eq!(own.contains(&flag), more.contains(&flag), "{flag}: {own:?}");
        }
    }
}

fn mounts_come_in_the_listed_order(lab: &Lab) {
    let tmpfs = |destination: &str, name: &str| json!({"destination": destination, "type": "tmpfs", "source": name, "options": []});
    let script = "awk '$2 ~ \"^/srv\" {print $1, $2}' /proc/mounts; ls /srv";
    let mounts = [
        tmpfs("/srv", "first"),
        tmpfs("/srv/in", "inside"),
        tmpfs("/srv", "second"),
    ];
    let seen = "first /srv\ninside /srv/in\nsecond /srv\n";
    assert_eq!(says(lab, script, &mounts), seen, "the second covers all");
    let [first, inside, second] = mounts;
    let seen = "first /srv\nsecond /srv\ninside /srv/in\nin\n";
    assert_eq!(says(lab, script, &[first, second, inside]), seen);
}

fn a_relative_destination(lab: &Lab) {
    let volume = Volume::new(lab, MsFlags::empty());
    let mounts = [
        json!({"destination": "srv/relative", "source": volume.0, "options": ["rbind"]}),
        json!({"destination": "srv/tmpfs", "type": "tmpfs", "source": "t"}),
    ];
    let script = "/srv/relative/program; stat -f -c %T /srv/tmpfs";
    let container = lab.shell(script, |spec| {
        let asked = spec["mounts"].as_array_mut().unwrap();
        asked.extend_from_slice(&mounts);
        spec["process"]["cwd"] = json!("/tmp");
    });
    assert_eq!(
        container.finish(),
        (Ended::Exited(0), "ran\ntmpfs\n".into())
    );
    for name in ["relative", "tmpfs"] {
        fs::remove_dir(lab.image().join("srv").join(name)).unwrap();
    }
}

fn no_link_is_followed(lab: &Lab) {
    let volume = Volume::new(lab, MsFlags::empty());
    let script = "cat /volume/link >/dev/null 2>&1 && echo followed; cat /volume/program >/dev/null && echo read";
    assert_eq!(
        says(lab, script, &[volume.at(&["rbind"])]),
        "followed\nread\n"
    );
    assert_eq!(
        says(lab, script, &[volume.at(&["rbind", "nosymfollow"])]),
        "read\n"
    );
    let tmpfs =
        json!({"destination": "/srv", "type": "tmpfs", "source": "t", "options": ["nosymfollow"]});
    let seen = says(lab, MOUNTINFO, &[tmpfs]);
    assert!(options(&seen, "/srv").contains(&"nosymfollow"));
}

fn options_of_a_filesystem(lab: &Lab) {
    let tmpfs = |options: &[&str]| json!({"destination": "/srv", "type": "tmpfs", "source": "t", "options": options});
    for option in [
        "async",
        "defaults",
        "dirsync",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noiversion",
        "nolazytime",
        "nomand",
        "nostrictatime",
        "norelatime",
        "relatime",
        "silent",
        "sync",
        "strictatime",
    ] {
        let seen = says(lab, MOUNTINFO, &[tmpfs(&[option])]);
        if ["sync", "dirsync", "lazytime"].contains(&option) {
            assert!(
                super_options(&seen, "/srv").contains(&option),
                "{option}: {seen}"
            );
        }
    }
}

fn options_that_a_bind_would_ignore(lab: &Lab) {
    let volume = Volume::new(lab, MsFlags::empty());
    for option in ["size=1k", "tmpcopyup", "loop"] {
        let refused = lab.try_create(|spec| {
            spec["mounts"]
                .as_array_mut()
                .unwrap()
                .push(volume.at(&["rbind", option]));
        });
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{option} was ignored"));
        assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
        assert!(error.message.contains("/volume"), "{error}");
    }
}

/// As with runc; its owner, too.
fn a_tmpfs_is_like_what_it_covers(lab: &Lab) {
    let home = lab.image().join("srv/home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o2750)).unwrap();
    chown(&home, Some(33), Some(34)).unwrap();
    let show = "stat -c '%a %u %g' /srv/home /srv/new";
    let tmpfs = |destination: &str, options: &[&str]| json!({"destination": destination, "type": "tmpfs", "source": "t", "options": options});
    let said = says(
        lab,
        show,
        &[tmpfs("/srv/home", &[]), tmpfs("/srv/new", &[])],
    );
    assert_eq!(said, "2750 33 34\n1777 0 0\n");
    let said = says(
        lab,
        "stat -c '%a %u %g' /srv/home",
        &[tmpfs("/srv/home", &["mode=700", "uid=7"])],
    );
    assert_eq!(said, "700 7 34\n", "what is asked for counts");
    fs::remove_dir(&home).unwrap();
    let _ = fs::remove_dir(lab.image().join("srv/new"));
}

fn a_tmpfs_begins_with_what_it_covers(lab: &Lab) {
    let image = lab.image().join("srv/data");
    fs::create_dir_all(image.join("a/b")).unwrap();
    fs::write(image.join("a/b/file"), "content").unwrap();
    fs::set_permissions(image.join("a/b/file"), fs::Permissions::from_mode(0o4640)).unwrap();
    chown(image.join("a"), Some(5), Some(6)).unwrap();
    fs::set_permissions(image.join("a"), fs::Permissions::from_mode(0o711)).unwrap();
    symlink("/etc/passwd", image.join("link")).unwrap();
    nix::unistd::mkfifo(&image.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let tmpfs = |options: &[&str]| json!({"destination": "/srv/data", "type": "tmpfs", "source": "t", "options": options});
    let script = "cd /srv/data; stat -c '%n %a %u %g %F' a a/b/file fifo; cat a/b/file; echo; \
                  readlink link; (echo > new) 2>/dev/null && echo writable; true";
    let content = "a 711 5 6 directory\na/b/file 4640 0 0 regular file\nfifo 400 0 0 fifo\ncontent\n/etc/passwd\n";
    assert_eq!(
        says(lab, script, &[tmpfs(&["tmpcopyup"])]),
        format!("{content}writable\n")
    );
    assert_eq!(says(lab, script, &[tmpfs(&["tmpcopyup", "ro"])]), content);
    assert!(!image.join("new").exists());
    // What does not fit is no container.
    fs::write(image.join("large"), vec![1; 1 << 20]).unwrap();
    let refused = lab.try_create(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(tmpfs(&["tmpcopyup", "size=64k"]));
    });
    let error = refused.err().expect("it does not fit");
    assert!(error.message.contains("/srv/data"), "{error}");
    fs::remove_dir_all(&image).unwrap();
}

fn a_read_only_tmpfs(lab: &Lab) {
    let mounts = [
        json!({"destination": "/srv", "type": "tmpfs", "source": "t", "options": ["ro"]}),
        json!({"destination": "/srv/in/it", "type": "tmpfs", "source": "t", "options": []}),
    ];
    let script = "(echo > /srv/x) 2>/dev/null || echo closed; echo > /srv/in/it/x && echo open";
    assert_eq!(says(lab, script, &mounts), "closed\nopen\n");
}

fn a_mount_at_the_root_is_refused(lab: &Lab) {
    for (kind, destination) in [
        ("tmpfs", "/"),
        ("tmpfs", "/tmp/.."),
        ("proc", "/"),
        ("bind", "/"),
    ] {
        let refused = lab.try_create(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": destination, "type": kind, "source": "/tmp", "options": [],
            }));
        });
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{kind} at {destination}"));
        assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
        assert!(error.message.contains("root"), "{error}");
    }
}

/// The fields between a mount's options and its filesystem.
fn propagation(mountinfo: &str, point: &str) -> String {
    let fields = line(mountinfo, point).split(' ').skip(6);
    fields
        .take_while(|field| *field != "-")
        .map(|field| field.split(':').next().unwrap())
        .collect()
}

/// A directory of the node that is shared, as on a node that systemd booted.
fn shared(lab: &Lab) -> Volume {
    let volume = Volume::new(lab, MsFlags::empty());
    let none = None::<&str>;
    mount(none, &volume.0, none, MsFlags::MS_SHARED, none).unwrap();
    volume
}

fn the_root_is_private(lab: &Lab) {
    // The image is on a mount that is shared.
    let volume = shared(lab);
    let (mut job, output) = lab.create_job(|spec| {
        spec["process"]["args"] = json!(["cat", "/proc/self/mountinfo"]);
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(volume.at(&["rbind"]));
    });
    let image = lab.image().display().to_string();
    job.mounts[0].source = image;
    job.mounts[0].options = vec!["rbind".to_owned(), "rshared".to_owned()];
    let container = lab.created(job, output).unwrap();
    let seen = container.run().1;
    assert_eq!(propagation(&seen, "/"), "");
    assert_eq!(
        propagation(&seen, "/volume"),
        "master",
        "a volume follows the node"
    );
}

fn propagation_of_the_root(lab: &Lab) {
    let volume = shared(lab);
    for (asked, root, of_volume) in [
        ("private", "", ""),
        ("rprivate", "", ""),
        ("rslave", "", "master"),
        ("shared", "shared", "shared"),
        ("rshared", "shared", "shared"),
        ("unbindable", "unbindable", "master"),
        ("runbindable", "unbindable", "unbindable"),
    ] {
        let container = lab.shell(MOUNTINFO, |spec| {
            spec["linux"]["rootfsPropagation"] = json!(asked);
            spec["mounts"]
                .as_array_mut()
                .unwrap()
                .push(volume.at(&["rbind"]));
        });
        let seen = container.finish().1;
        if asked != "rslave" {
            assert_eq!(propagation(&seen, "/"), root, "{asked}");
        }
        assert!(
            propagation(&seen, "/volume").contains(of_volume),
            "{asked}: {seen}"
        );
        let tmp = propagation(&seen, "/tmp");
        assert_eq!(tmp.contains("shared"), asked == "rshared", "{asked}: {tmp}");
    }
}

fn what_masks_a_directory_has_no_room(lab: &Lab) {
    let hidden = lab.image().join("srv/hidden");
    fs::create_dir(&hidden).unwrap();
    let script = "mount -o remount,bind,rw /srv/hidden; (echo > /srv/hidden/x) 2>&1; cat /proc/self/mountinfo";
    let container = lab.shell(script, |spec| {
        spec["linux"]["maskedPaths"] = json!(["/srv/hidden", "/root"]);
        let caps = json!(["CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"] =
            json!({"bounding": caps, "permitted": caps, "effective": caps});
    });
    let said = container.finish().1;
    assert!(said.contains("Read-only file system"), "{said}");
    for point in ["/srv/hidden", "/root"] {
        let of_filesystem = super_options(&said, point);
        assert!(of_filesystem.contains(&"ro"), "{of_filesystem:?}");
        assert!(of_filesystem.contains(&"nr_inodes=1"), "{of_filesystem:?}");
    }
    fs::remove_dir(&hidden).unwrap();
}

fn a_masked_path_that_is_a_link(lab: &Lab) {
    let image = lab.image();
    fs::write(image.join("srv/secret"), "secret").unwrap();
    symlink("secret", image.join("srv/link")).unwrap();
    symlink("/proc/self/root/etc/passwd", image.join("srv/magic")).unwrap();
    let masked = |path: &str| {
        lab.try_create(|spec| {
            spec["linux"]["maskedPaths"] = json!([path]);
            spec["process"]["args"] = json!(["cat", "/srv/secret", "/etc/passwd"]);
        })
    };
    let said = masked("/srv/link").unwrap().run().1;
    assert!(!said.contains("secret") && said.contains("root:"), "{said}");
    // A magic link leads anywhere: it is refused rather than left open.
    assert!(masked("/srv/magic").is_err());
    for name in ["secret", "link", "magic"] {
        fs::remove_file(image.join("srv").join(name)).unwrap();
    }
}

fn a_device_may_be_anywhere(lab: &Lab) {
    let container = lab.shell("stat -c '%t %T %a %u' /srv/dev/it; ls -l /dev/outside", |spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/srv/dev/it", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7},
            {"path": "/dev/../dev/outside", "type": "c", "major": 1, "minor": 5},
        ]);
    });
    let said = container.finish().1;
    assert!(said.starts_with("1 3 640 7\n"), "{said}");
    assert!(said.contains("/dev/outside"), "{said}");
    fs::remove_dir_all(lab.image().join("srv/dev")).unwrap();
}

fn a_terminal_and_a_read_only_dev(lab: &Lab) {
    let mut container = lab.create(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["args"] = json!([
            "sh",
            "-c",
            "tty; stat -c %F /dev/console; (echo > /dev/x) 2>/dev/null || echo closed"
        ]);
        spec["mounts"][1]["options"] = json!(["nosuid", "ro", "mode=755"]);
    });
    let console = container.console.take().unwrap();
    container.start().unwrap();
    let mut said = String::new();
    let mut console = fs::File::from(console);
    let mut bytes = [0; 256];
    while let Ok(read) = std::io::Read::read(&mut console, &mut bytes) {
        if read == 0 {
            break;
        }
        said.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(said.contains("character special file"), "{said}");
    assert!(said.contains("closed"), "{said}");
    container.finish();
}

fn a_bind_over_proc_sys_is_refused(lab: &Lab) {
    for destination in ["/proc/sys", "/proc/sys/net", "/proc/1"] {
        let refused = lab.try_create(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": destination, "source": "/tmp", "options": ["rbind"],
            }));
        });
        assert!(refused.is_err(), "{destination}");
    }
}

fn names_without_a_namespace(lab: &Lab) {
    for field in ["hostname", "domainname"] {
        let refused = lab.try_create(|spec| {
            spec["hostname"] = json!("");
            spec[field] = json!("other");
            spec["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|it| it["type"] != "uts");
        });
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{field} was dropped"));
        assert_eq!(error.kind, JobErrorKind::Invalid);
        assert!(error.message.contains(field), "{error}");
    }
    let container = lab.shell("hostname", |spec| {
        spec["hostname"] = json!("");
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|it| it["type"] != "uts");
    });
    let nodes = nix::unistd::gethostname().unwrap();
    assert_eq!(container.finish().1.trim(), nodes.to_str().unwrap());
}

fn what_is_not_done_is_refused_by_name(lab: &Lab) {
    for (field, value) in [
        ("intelRdt", json!({"closID": "x"})),
        ("netDevices", json!({"eth0": {}})),
        ("personality", json!({"domain": "LINUX", "flags": ["x"]})),
        ("memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"})),
        ("seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
    ] {
        let refused = lab.try_create(|spec| spec["linux"][field] = value);
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{field} was ignored"));
        assert!(
            error.message.contains(field) || error.kind == JobErrorKind::Invalid,
            "{error}"
        );
    }
}

fn few_descriptors_suffice(lab: &Lab) {
    for (limit, cwd) in [(10, "/"), (4, "/"), (3, "/tmp")] {
        let limits = json!([{"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}]);
        let container = lab.shell("ulimit -n", |spec| {
            spec["process"]["rlimits"] = limits.clone();
            spec["process"]["cwd"] = json!(cwd);
        });
        assert_eq!(container.finish(), (Ended::Exited(0), format!("{limit}\n")));
        let container = lab.shell("sleep 60", |_| {});
        let mut process = support::shell_process("ulimit -n");
        process["rlimits"] = limits;
        let (process, output) = lab.exec(&container, process).unwrap();
        assert_eq!(support::wait(&process), Ended::Exited(0));
        assert_eq!(read_all(output), format!("{limit}\n"));
        container.kill();
    }
}

fn unknown_capabilities(lab: &Lab) {
    let container = lab.shell("grep CapPrm /proc/self/status", |spec| {
        let caps = json!(["CAP_FOO", "CAP_CHOWN"]);
        spec["process"]["capabilities"] =
            json!({"bounding": caps, "permitted": caps, "effective": caps});
    });
    assert_eq!(container.finish().1, "CapPrm:\t0000000000000001\n");
}

fn the_session_keyring(lab: &Lab) {
    // Those of other containers of the same user are listed too.
    let list = "grep ' _ses[.]' /proc/keys; echo listed; sleep 60";
    let mut container = lab.shell(list, |_| {});
    let name = format!(" _ses.{}: ", container.id);
    let said = container.read_until("listed\n");
    let serial = |said: &str| {
        let line = said.lines().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("no{name}in {said}"));
        line.split(' ').next().unwrap().to_owned()
    };
    let (_, exec) = lab.exec_shell(&container, "grep ' _ses[.]' /proc/keys");
    assert_eq!(
        serial(&exec),
        serial(&said),
        "a further process finds that of init"
    );
    container.kill();
}

fn personality_and_memory_policy(lab: &Lab) {
    let spec = |spec: &mut Value| {
        spec["linux"]["personality"] = json!({"domain": "LINUX32"});
        if Path::new("/sys/devices/system/node/node0").exists() {
            spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
        }
    };
    let container = lab.shell("uname -m; head -n 1 /proc/self/numa_maps 2>/dev/null", spec);
    let said = container.finish().1;
    assert!(said.starts_with("i686\n"), "{said}");
    if let Some(policy) = said.lines().nth(1) {
        assert!(policy.contains("bind:0"), "{said}");
    }
}
