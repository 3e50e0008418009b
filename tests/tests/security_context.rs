//! What a container may do, as the kubelet asks for it.
use std::fs;

use husk_tests::containerd::Containerd;
use husk_tests::cri::{ContainerBuilder, Mode};
use husk_tests::ctr::unique;
use husk_tests::process;
use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    Capability, Device, Int64Value, LinuxContainerSecurityContext, Mount, MountPropagation,
    SecurityProfile,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Runs one container, changed so, in a pod of its own, and gives what this line of shell prints.
#[track_caller]
fn sh(change: impl FnOnce(&mut LinuxContainerSecurityContext), line: &str) -> String {
    in_a_pod(|container| container.security(change), line)
}

#[track_caller]
fn in_a_pod(
    change: impl for<'a, 'p> FnOnce(ContainerBuilder<'a, 'p>) -> ContainerBuilder<'a, 'p>,
    line: &str,
) -> String {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(Mode::Podsandbox).run();
    let container = change(pod.container("app", &["sleep", "1000000"])).start();
    container.sh(line)
}

/// Shows what the kernel says of the container's first process.
const STATUS: &str = "cat /proc/1/status";

#[track_caller]
fn field(status: &str, name: &str) -> String {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
        .to_owned()
}

#[test]
fn user_group_and_supplemental_groups() {
    let change = |security: &mut LinuxContainerSecurityContext| {
        security.run_as_user = Some(Int64Value { value: 1000 });
        security.run_as_group = Some(Int64Value { value: 3000 });
        security.supplemental_groups = vec![4000, 5000];
    };
    assert_eq!(
        sh(change, "id -u; id -g; id -G"),
        "1000\n3000\n3000 4000 5000"
    );
}

#[test]
fn dropped_and_added_capabilities() {
    let change = |security: &mut LinuxContainerSecurityContext| {
        security.capabilities = Some(Capability {
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..Default::default()
        });
    };
    let status = sh(change, STATUS);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, set), "0000000000000400", "{set}");
    }
    assert_eq!(field(&status, "CapAmb"), "0000000000000000");
}

#[test]
fn a_user_other_than_root_has_no_capabilities() {
    let change = |security: &mut LinuxContainerSecurityContext| {
        security.run_as_user = Some(Int64Value { value: 1000 });
    };
    let status = sh(change, STATUS);
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    assert_ne!(field(&status, "CapBnd"), "0000000000000000");
}

#[test]
fn privileged_means_all_capabilities_and_devices() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri
        .pod(Mode::Podsandbox)
        .security(|security| security.privileged = true)
        .run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .security(|security| security.privileged = true)
        .start();
    let ours = process::status(nix::unistd::getpid());
    assert_eq!(field(&app.sh(STATUS), "CapEff"), ours["CapEff"]);
    let _ = app.sh("test -e /dev/kmsg && test -w /proc/sys/kernel/hostname");
    assert!(app.sh("grep ' /sys ' /proc/mounts").contains("rw,"));
}

#[test]
fn no_new_privileges_when_asked_and_only_then() {
    assert_eq!(
        field(
            &sh(|security| security.no_new_privs = true, STATUS),
            "NoNewPrivs"
        ),
        "1"
    );
    assert_eq!(
        field(
            &sh(|security| security.no_new_privs = false, STATUS),
            "NoNewPrivs"
        ),
        "0"
    );
}

fn profile(kind: ProfileType, file: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: file.into(),
    })
}

#[test]
fn seccomp_default_is_a_filter_and_unconfined_is_none() {
    let default = sh(
        |security| security.seccomp = profile(ProfileType::RuntimeDefault, ""),
        STATUS,
    );
    assert_eq!(field(&default, "Seccomp"), "2");
    let none = sh(
        |security| security.seccomp = profile(ProfileType::Unconfined, ""),
        STATUS,
    );
    assert_eq!(field(&none, "Seccomp"), "0");
}

#[test]
fn a_seccomp_profile_of_ones_own_forbids_what_it_names() {
    let lab = husk_tests::lab::Lab::get();
    let file = lab.run.join(unique("seccomp"));
    let profile_text = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    fs::write(&file, profile_text.to_string()).unwrap();
    let file = file.to_string_lossy().into_owned();
    let change = |security: &mut LinuxContainerSecurityContext| {
        security.seccomp = profile(ProfileType::Localhost, &file);
    };
    let output = sh(change, "mkdir /new 2>&1 || touch /tmp/file && echo written");
    assert!(
        output.contains("not implemented") && output.contains("written"),
        "{output}"
    );
}

#[test]
fn masked_and_read_only_paths() {
    let change = |security: &mut LinuxContainerSecurityContext| {
        security.masked_paths = vec![
            "/proc/meminfo".into(),
            "/proc/irq".into(),
            "/proc/no-such".into(),
        ];
        security.readonly_paths = vec!["/proc/sys".into()];
    };
    let script = "wc -c < /proc/meminfo; ls /proc/irq | wc -l
        echo 1 > /proc/sys/net/ipv4/ip_forward 2>/dev/null && echo written || echo refused";
    assert_eq!(sh(change, script), "0\n0\nrefused");
}

#[test]
fn a_read_only_root_filesystem() {
    let script = "touch /file 2>/dev/null && echo written || echo refused; touch /dev/shm/file && echo written";
    assert_eq!(
        sh(|security| security.readonly_rootfs = true, script),
        "refused\nwritten"
    );
}

#[test]
fn a_device_is_open_to_whom_it_was_given_as_it_was_given() {
    let device = Device {
        container_path: "/dev/given".into(),
        host_path: "/dev/kmsg".into(),
        permissions: "r".into(),
    };
    let script = "(: < /dev/given) && echo opened
        (: > /dev/given) 2>/dev/null && echo opened || echo refused";
    let output = in_a_pod(
        |container| {
            container
                .with(|config| config.devices = vec![device])
                .security(|security| {
                    security.capabilities = Some(Capability {
                        add_capabilities: vec!["SYSLOG".into()],
                        ..Default::default()
                    });
                })
        },
        script,
    );
    assert_eq!(output, "opened\nrefused");
}

#[test]
fn a_device_that_was_not_given_stays_closed_even_to_who_can_make_its_file() {
    // 1:11 is /dev/kmsg.
    let script =
        "mknod /tmp/kmsg c 1 11 && (: < /tmp/kmsg) 2>/dev/null && echo opened || echo refused
        head -c 3 /dev/zero | wc -c; echo > /dev/null && echo null";
    let change = |security: &mut LinuxContainerSecurityContext| {
        security.capabilities = Some(Capability {
            add_capabilities: vec!["MKNOD".into(), "SYSLOG".into()],
            ..Default::default()
        });
    };
    assert_eq!(sh(change, script), "refused\n3\nnull");
}

#[test]
fn the_cgroups_are_for_reading_only() {
    // With v1 the first of these is a tmpfs that holds the hierarchies.
    let folder = if husk_tests::cgroup::is_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/memory"
    };
    let script = format!(
        "test -e {folder}/cgroup.procs && echo shown
        mkdir {folder}/new 2>/dev/null && echo written || echo refused"
    );
    assert_eq!(in_a_pod(|container| container, &script), "shown\nrefused");
}

#[test]
fn the_oom_score_is_what_was_asked_for() {
    let output = in_a_pod(
        |container| container.resources(|resources| resources.oom_score_adj = 777),
        "cat /proc/1/oom_score_adj; cat /proc/self/oom_score_adj",
    );
    assert_eq!(output, "777\n777");
}

#[test]
fn descriptors_signals_and_umask_are_clean() {
    let script = "ls /proc/1/fd | tr '\\n' ' '; umask; cat /proc/1/status";
    let output = in_a_pod(|container| container, script);
    assert!(output.starts_with("0 1 2 0022\n"), "{output}");
    for name in ["SigBlk", "SigIgn"] {
        let mask = u64::from_str_radix(&field(&output, name), 16).unwrap();
        // Signals above 31 are whatever the machine's init was started with.
        assert_eq!(mask & 0x7fff_ffff, 0, "{name} is {mask:x}");
    }
}

/// A folder of the lab with a tmpfs mounted in its `inner`.
struct Volume {
    path: String,
}

impl Volume {
    fn new() -> Self {
        let path = husk_tests::lab::Lab::get().run.join(unique("volume"));
        fs::create_dir_all(path.join("inner")).unwrap();
        let flags = MsFlags::empty();
        mount(
            Some("tmpfs"),
            &path.join("inner"),
            Some("tmpfs"),
            flags,
            None::<&str>,
        )
        .unwrap();
        Self {
            path: path.to_string_lossy().into_owned(),
        }
    }

    fn mount(&self) -> Mount {
        Mount {
            container_path: "/volume".into(),
            host_path: self.path.clone(),
            ..Default::default()
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        umount2(
            format!("{}/inner", self.path).as_str(),
            MntFlags::MNT_DETACH,
        )
        .unwrap();
    }
}

const WRITE: &str = "for file in /volume/file /volume/inner/file; do
    touch $file 2>/dev/null && echo written || echo refused; done";

#[test]
fn a_read_only_mount_leaves_what_is_mounted_in_it_writable() {
    let volume = Volume::new();
    let mount = Mount {
        readonly: true,
        ..volume.mount()
    };
    let output = in_a_pod(
        |container| container.with(|config| config.mounts = vec![mount]),
        WRITE,
    );
    assert_eq!(output, "refused\nwritten");
}

// Over CRI, containerd 2.1 offers this for no runtime but runc's, whatever a shim says it can.
#[test]
fn a_recursively_read_only_mount_does_not() {
    let volume = Volume::new();
    let containerd = Containerd::of_the_suite();
    let mount = format!(
        "--mount=type=bind,src={},dst=/volume,options=rbind:rro",
        volume.path
    );
    let output = containerd
        .ctr()
        .container()
        .flag(&mount)
        .run(&["sh", "-c", WRITE])
        .ok();
    assert_eq!(output, "refused\nrefused\n");
}

#[test]
fn mounts_propagate_into_and_out_of_a_container_as_asked() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri
        .pod(Mode::Podsandbox)
        .security(|security| security.privileged = true)
        .run();
    let folder = containerd.lab().run.join(unique("shared"));
    for name in ["in", "out", "private"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let shared = |name: &str, propagation: MountPropagation| Mount {
        container_path: format!("/{name}"),
        host_path: folder.to_string_lossy().into_owned(),
        propagation: propagation.into(),
        ..Default::default()
    };
    let app = pod
        .container("app", &["sleep", "1000000"])
        .security(|security| security.privileged = true)
        .with(|config| {
            config.mounts = vec![
                shared("both", MountPropagation::PropagationBidirectional),
                shared("from", MountPropagation::PropagationHostToContainer),
                shared("none", MountPropagation::PropagationPrivate),
            ];
        })
        .start();
    let inside = folder.join("in");
    mount(
        Some("tmpfs"),
        &inside,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    fs::write(inside.join("mark"), "").unwrap();
    let seen =
        app.sh("for way in both from none; do test -e /$way/in/mark && echo $way; done; true");
    umount2(&inside, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(seen, "both\nfrom");

    let _ = app.sh("mount -t tmpfs tmpfs /both/out; touch /both/out/mark");
    assert!(folder.join("out/mark").exists());
    let _ =
        app.sh("mount -t tmpfs tmpfs /from/private; touch /from/private/mark; umount /both/out");
    assert!(!folder.join("private/mark").exists());
    assert!(!folder.join("out/mark").exists());
}
