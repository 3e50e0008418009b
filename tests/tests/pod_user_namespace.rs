//! Pods with `hostUsers: false`: their root is nobody on the node.
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Cri, Mode, PodBuilder};
use husk_tests::ctr::unique;
use husk_tests::process::namespaces;
use k8s_cri::v1::{Capability, IdMapping, Mount, NamespaceMode, UserNamespace};
use nix::sys::signal::Signal;

in_both_modes!(
    its_root_is_nobody_on_the_node,
    the_network_belongs_to_it,
    who_shares_pids_shares_them_in_it,
    volumes_are_seen_with_the_owners_of_the_pod,
    many_files_change_hands_and_users_change,
    executes_go_on_after_a_restart_of_containerd,
    its_containers_may_not_reach_what_is_the_nodes,
);

const FIRST: u32 = 200_000;
const MANY: u32 = 65_536;

fn ids() -> Vec<IdMapping> {
    vec![IdMapping {
        container_id: 0,
        host_id: FIRST,
        length: MANY,
    }]
}

fn pod<'a>(cri: &'a Cri<'a>, mode: Mode) -> PodBuilder<'a> {
    cri.pod(mode).namespaces(|namespaces| {
        namespaces.userns_options = Some(UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: ids(),
            gids: ids(),
        });
    })
}

fn its_root_is_nobody_on_the_node(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    let node = namespaces(nix::unistd::getpid());
    let (of_one, of_two) = (namespaces(one.pid()), namespaces(two.pid()));
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(of_one[kind], of_two[kind], "{kind}");
        assert_ne!(of_one[kind], node[kind], "{kind}");
    }
    let process = fs::metadata(format!("/proc/{}", one.pid())).unwrap();
    assert_eq!((process.uid(), process.gid()), (FIRST, FIRST));
    assert_eq!(
        one.sh(
            "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c '%u %g' /bin/busybox /etc/hosts"
        ),
        format!("0\n 0 {FIRST} {MANY}\n0 0\n0 0")
    );
    // What the pod's files say may be changed by its root, whose files they are.
    let _ = one.sh("echo 10.0.0.1 db >> /etc/hosts");
    assert!(two.sh("cat /etc/hosts").contains("10.0.0.1 db"));
    let _ = one.sh("echo shared > /dev/shm/note");
    assert_eq!(two.sh("cat /dev/shm/note"), "shared");
}

fn the_network_belongs_to_it(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode).run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .security(|security| {
            security.capabilities = Some(Capability {
                add_capabilities: vec!["NET_ADMIN".into()],
                ..Default::default()
            });
        })
        .start();
    let script = "ip link add dummy0 type dummy 2>/dev/null || ip link set lo mtu 1400; ls /sys/class/net | head -1; \
                  stat -f -c %T /sys /proc; ping -c 1 -W 2 127.0.0.1 | grep -c '1 packets received'";
    let said = app.sh(script);
    let said: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(said, ["sysfs", "proc", "1"]);
    assert_eq!(
        app.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        "0"
    );
}

fn who_shares_pids_shares_them_in_it(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let shares = pod(&cri, mode).namespaces(|namespaces| {
        namespaces.pid = NamespaceMode::Pod.into();
    });
    let pod = shares.run();
    let one = pod.sleeper("one");
    let two = pod.container("two", &["sleep", "2222222"]).start();
    assert_eq!(namespaces(one.pid())["pid"], namespaces(two.pid())["pid"]);
    let _ = one.sh("kill $(ps | awk '/[s]leep 2222222/ { print $1 }')");
    assert_eq!(two.until_exited().exit_code, 128 + 15);
}

fn volumes_are_seen_with_the_owners_of_the_pod(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode).run();
    let volume = tempfile::tempdir_in(&containerd.lab().run).unwrap();
    let file = volume.path().join("of-1234");
    fs::write(&file, "").unwrap();
    chown(&file, Some(1234), Some(1234)).unwrap();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .with(|config| {
            config.mounts.push(Mount {
                container_path: "/volume".into(),
                host_path: volume.path().display().to_string(),
                uid_mappings: ids(),
                gid_mappings: ids(),
                ..Default::default()
            });
        })
        .start();
    assert_eq!(app.sh("stat -c '%u %g' /volume/of-1234"), "1234 1234");
    let _ = app.sh("touch /volume/of-root");
    let made = fs::metadata(volume.path().join("of-root")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0), "as the pod means it");
}

fn many_files_change_hands_and_users_change(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode).run();
    let app = pod.sleeper("app");
    let script = "mkdir /many; for n in $(seq 500); do : > /many/$n; done; chown -R 1000:1000 /many; \
                  ls -n /many | grep -c ' 1000 *1000 '";
    assert_eq!(app.sh(script), "500");
    let ping = "rm -f /bin/ping; cp /bin/busybox /bin/ping; chmod $MODE /bin/ping; su -s /bin/sh nobody -c '/bin/ping -c 1 \
                127.0.0.1' >/dev/null 2>&1 && echo pings || echo does not";
    assert_eq!(app.sh(&ping.replace("$MODE", "755")), "does not");
    assert_eq!(
        app.sh(&ping.replace("$MODE", "4755")),
        "pings",
        "set-user-ID"
    );
    let outside = app.exec(&["chown", "70000:70000", "/many/1"]);
    assert_ne!(outside.code, 0, "an id that the pod does not have");
}

fn executes_go_on_after_a_restart_of_containerd(mode: Mode) {
    let containerd = Containerd::own(&unique("own"));
    let cri = containerd.cri();
    let pod = pod(&cri, mode).run();
    let app = pod.sleeper("app");
    containerd.end(Signal::SIGKILL);
    containerd.launch();
    until("the pod is known again", || pod.is_ready());
    assert_eq!(app.sh("id -u"), "0");
    let late = pod.sleeper("late");
    assert_eq!(
        namespaces(app.pid())["user"],
        namespaces(late.pid())["user"]
    );
}

fn its_containers_may_not_reach_what_is_the_nodes(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = pod(&cri, mode).run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .security(|security| {
            security.capabilities = Some(Capability {
                add_capabilities: vec!["ALL".into()],
                ..Default::default()
            });
        })
        .start();
    for attempt in [
        "mknod /tmp/null c 1 3",
        "echo 1 > /proc/sys/kernel/panic",
        "mount -t proc proc /proc && echo b > /proc/sysrq-trigger",
        "chroot /proc/1/root sh -c 'echo x > /proc/sys/vm/swappiness'",
        "dmesg -c",
    ] {
        let done = app.exec(&["sh", "-c", attempt]);
        assert_ne!(done.code, 0, "{attempt}: {done:?}");
    }
}
