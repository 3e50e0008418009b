//! User namespaces that a handler's configuration gives containers: each with ids that nobody else on
//! the node has.
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use husk_tests::containerd::Containerd;
use husk_tests::cri::{Container, Mode};
use husk_tests::ctr::unique;
use husk_tests::process::namespaces;
use k8s_cri::v1::{Mount, NamespaceMode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

in_both_modes!(
    no_two_containers_have_an_id_in_common,
    the_containers_of_a_group_share_theirs,
    what_they_write_belongs_to_the_nodes_users,
    the_rest_is_the_pods_as_before,
    a_pid_namespace_of_the_pod_is_refused,
    a_failed_create_gives_its_ids_back,
    a_killed_shim_s_ids_are_given_back,
);

const HANDLER: &str = "user-container";

/// The first of a container's ids on the node.
fn first(container: &Container<'_, '_>) -> u32 {
    let map = container.sh("cat /proc/self/uid_map");
    let words: Vec<u32> = map
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert_eq!((words[0], words[2]), (0, 65_536), "{map}");
    words[1]
}

/// Which pod has these ids.
fn owner(first: u32) -> Option<String> {
    let link = format!("/run/husk/.ids/{first}+65536");
    let pod = fs::read_link(link).ok()?;
    Some(pod.file_name()?.to_string_lossy().into_owned())
}

fn no_two_containers_have_an_id_in_common(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let (pod, other) = (
        cri.pod_of(HANDLER, mode).run(),
        cri.pod_of(HANDLER, mode).run(),
    );
    let (a, b, c) = (pod.sleeper("a"), pod.sleeper("b"), other.sleeper("c"));
    let (of_a, of_b, of_c) = (first(&a), first(&b), first(&c));
    assert!(of_a != of_b && of_b != of_c && of_a != of_c);
    let process = fs::metadata(format!("/proc/{}", a.pid())).unwrap();
    assert_eq!((process.uid(), process.gid()), (of_a, of_a));
    assert_eq!(owner(of_a).as_ref(), Some(&pod.id));
    assert_eq!(owner(of_c).as_ref(), Some(&other.id));
    a.stop(0);
    a.remove();
    assert_ne!(owner(of_a).as_ref(), Some(&pod.id), "given back");
    let late = first(&pod.sleeper("late"));
    assert!(late != of_b && late != of_c);
}

fn the_containers_of_a_group_share_theirs(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of(HANDLER, mode).run();
    let (one, two, three) = (pod.sleeper("one"), pod.sleeper("two"), pod.sleeper("three"));
    assert_eq!(first(&one), first(&two));
    assert_ne!(first(&one), first(&three));
    let (of_one, of_two) = (namespaces(one.pid()), namespaces(two.pid()));
    assert_eq!(of_one["user"], of_two["user"]);
    assert_ne!(of_one["pid"], of_two["pid"]);
    assert_eq!(
        one.sh("touch /made && stat -c %u /made /bin/busybox"),
        "0\n0"
    );
}

fn what_they_write_belongs_to_the_nodes_users(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of(HANDLER, mode).run();
    let volume = tempfile::tempdir_in(&containerd.lab().run).unwrap();
    chown(volume.path(), Some(1234), Some(1234)).unwrap();
    let mounted = |name| {
        let container = pod.container(name, &["sleep", "1000000"]);
        let container = container.with(|config| {
            config.mounts.push(Mount {
                container_path: "/volume".into(),
                host_path: volume.path().display().to_string(),
                ..Default::default()
            });
        });
        container.start()
    };
    let (a, b) = (mounted("a"), mounted("b"));
    assert_eq!(a.sh("stat -c '%u %g' /volume"), "1234 1234");
    let script = "touch /volume/of-root /volume/of-7 && chown 7:8 /volume/of-7";
    let _ = a.sh(script);
    let made = |name: &str| {
        let made = fs::metadata(volume.path().join(name)).unwrap();
        (made.uid(), made.gid())
    };
    assert_eq!((made("of-root"), made("of-7")), ((0, 0), (7, 8)));
    assert_eq!(b.sh("stat -c %u /volume/of-7"), "7", "as another sees it");
    // The root filesystem: what the image has, what is made, and what is changed in place.
    let script = "stat -c %u /bin/busybox /etc; touch /new && chown 5 /new && stat -c %u /new; \
                  chown 6 /bin/busybox && stat -c %u /bin/busybox; rm /etc/passwd; ls /etc/passwd 2>&1 | grep -c No";
    assert_eq!(a.sh(script), "0\n0\n5\n6\n1");
    let of_root = |path: &str| {
        let merged = Path::new("/proc").join(a.pid().to_string()).join("root");
        fs::metadata(merged.join(path)).unwrap().uid()
    };
    assert_eq!(
        of_root("new"),
        first(&a) + 5,
        "through the container's eyes"
    );
    assert_ne!(a.exec(&["chown", "70000", "/new"]).code, 0);
}

fn the_rest_is_the_pods_as_before(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of(HANDLER, mode).run();
    let app = pod
        .container(
            "app",
            &[
                "sh",
                "-c",
                "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www",
            ],
        )
        .start();
    let other = pod.sleeper("other");
    let (a, o) = (namespaces(app.pid()), namespaces(other.pid()));
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(a[kind], o[kind], "{kind}");
    }
    husk_tests::command::until("the app answers", || {
        other
            .exec(&["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"])
            .stdout
            == "hello\n"
    });
    // The pod's, over which it has no power.
    let _ = app.sh("echo shared > /dev/shm/note");
    assert_eq!(other.sh("cat /dev/shm/note"), "shared");
    assert_eq!(
        app.sh("grep -c '/dev/mqueue mqueue' /proc/mounts; ls /sys/class/net/lo/mtu"),
        "1\n/sys/class/net/lo/mtu"
    );
    assert_ne!(app.exec(&["ip", "link", "set", "lo", "down"]).code, 0);
    assert_ne!(app.exec(&["hostname", "mine"]).code, 0);
    assert_ne!(
        app.exec(&["sh", "-c", "echo x > /sys/class/net/lo/ifalias"])
            .code,
        0
    );
}

fn a_pid_namespace_of_the_pod_is_refused(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let shares = cri.pod_of(HANDLER, mode).namespaces(|namespaces| {
        namespaces.pid = NamespaceMode::Pod.into();
    });
    let pod = shares.run();
    let app = pod.container("app", &["true"]).create();
    let error = app.try_start().unwrap_err().to_string();
    assert!(
        error.contains("pid") && error.contains("user namespace"),
        "{error}"
    );
}

fn a_failed_create_gives_its_ids_back(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of(HANDLER, mode).run();
    for _ in 0..3 {
        let app = pod.container("app", &["/missing"]).create();
        assert!(app.try_start().is_err());
        app.remove();
    }
    let taken = fs::read_dir("/run/husk/.ids").unwrap().flatten();
    let of_the_pod = taken.filter(|link| {
        let owner = fs::read_link(link.path()).unwrap_or_default();
        owner.ends_with(&pod.id)
    });
    assert_eq!(of_the_pod.count(), 0);
}

fn a_killed_shim_s_ids_are_given_back(mode: Mode) {
    let containerd = Containerd::own(&unique("own"));
    let cri = containerd.cri();
    let pod = cri.pod_of(HANDLER, mode).run();
    let app = pod.sleeper("app");
    let ids = first(&app);
    let record = fs::read_to_string(format!("/run/husk/k8s.io/{}/pod.json", pod.id)).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let shim = record["shim"]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(shim).unwrap()), Signal::SIGKILL).unwrap();
    husk_tests::command::until("the pod is cleared away", || {
        owner(ids).as_ref() != Some(&pod.id)
    });
}
