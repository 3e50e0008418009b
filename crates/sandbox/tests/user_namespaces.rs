//! Containers with a user namespace of their own: their root is nobody on the node.
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
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use husk_sandbox::job::{Job, Namespaces};
use husk_sandbox::pin::unpin;
use husk_sandbox::process::Ended;
use oci_spec::runtime::LinuxIdMapping;
use serde_json::{Value, json};
use support::{Lab, run, wait};

fn main() {
    run(&[
        ("root_is_nobody_on_the_node", root_is_nobody_on_the_node),
        (
            "several_ranges_of_ids_are_mapped",
            several_ranges_of_ids_are_mapped,
        ),
        (
            "its_filesystems_and_devices_are_there",
            its_filesystems_and_devices_are_there,
        ),
        (
            "a_tmpfs_is_finished_in_it_as_elsewhere",
            a_tmpfs_is_finished_in_it_as_elsewhere,
        ),
        (
            "what_is_mounted_may_lie_where_it_may_not_go",
            what_is_mounted_may_lie_where_it_may_not_go,
        ),
        ("an_exec_is_in_it_too", an_exec_is_in_it_too),
        ("hooks_and_limits_work_in_it", hooks_and_limits_work_in_it),
        ("it_owns_its_network", it_owns_its_network),
        (
            "one_that_is_another_s_is_joined",
            one_that_is_another_s_is_joined,
        ),
        (
            "the_mappings_of_a_joined_one_are_those_of_the_spec",
            the_mappings_of_a_joined_one_are_those_of_the_spec,
        ),
        (
            "the_owner_of_a_network_is_the_pods",
            the_owner_of_a_network_is_the_pods,
        ),
        (
            "of_a_network_that_is_not_its_own_it_sees_a_closed_sysfs",
            of_a_network_that_is_not_its_own,
        ),
        (
            "what_makes_no_sense_is_refused",
            what_makes_no_sense_is_refused,
        ),
    ]);
}

const HOST: u32 = 100_000;

fn map(spec: &mut Value) {
    let ids = json!([{"containerID": 0, "hostID": HOST, "size": 65536}]);
    spec["linux"]["uidMappings"] = ids.clone();
    spec["linux"]["gidMappings"] = ids;
    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
}

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn root_is_nobody_on_the_node(lab: &Lab) {
    let mut container = lab.shell(
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; sleep 60",
        map,
    );
    let said = container.read_until("allow\n");
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "allow"]);
    let process = fs::metadata(format!("/proc/{}", container.init.pid)).unwrap();
    assert_eq!((process.uid(), process.gid()), (HOST, HOST));
    container.kill();
}

fn several_ranges_of_ids_are_mapped(lab: &Lab) {
    let container = lab.create(|spec| {
        map(spec);
        let ids = json!([
            {"containerID": 0, "hostID": HOST, "size": 1000},
            {"containerID": 1000, "hostID": 300_000, "size": 10},
        ]);
        spec["linux"]["uidMappings"] = ids.clone();
        spec["linux"]["gidMappings"] = ids;
        spec["process"]["user"] = json!({"uid": 1003, "gid": 1004, "additionalGids": [5, 1005]});
        spec["process"]["args"] = json!(["sh", "-c", "id -u; id -g; id -G; sleep 60"]);
    });
    let mut container = container;
    container.start().unwrap();
    container.read_until("1003\n1004\n1004 5 1005\n");
    let process = fs::metadata(format!("/proc/{}", container.init.pid)).unwrap();
    assert_eq!((process.uid(), process.gid()), (300_003, 300_004));
    container.kill();
}

fn its_filesystems_and_devices_are_there(lab: &Lab) {
    let script = "
echo x > /dev/null && head -c 1 /dev/zero | wc -c
stat -c %F /dev/null /dev/tty
ls /proc/1/ns/user && ls /sys/class/net
touch /dev/shm/x && touch /tmp/x && stat -c '%u' /tmp/x
touch /proc/sys/kernel/hostname 2>/dev/null || echo read-only
grep -c mqueue /proc/mounts
";
    let container = lab.create(|spec| {
        map(spec);
        for (destination, kind) in [
            ("/sys", "sysfs"),
            ("/dev/mqueue", "mqueue"),
            ("/dev/shm", "tmpfs"),
        ] {
            add_mount(
                spec,
                json!({"destination": destination, "type": kind, "source": kind}),
            );
        }
        spec["linux"]["maskedPaths"] = json!(["/sys/firmware", "/proc/keys"]);
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let (ended, output) = container.run();
    let expected =
        "1\ncharacter special file\ncharacter special file\n/proc/1/ns/user\nlo\n0\nread-only\n1\n";
    assert_eq!((ended, output.as_str()), (Ended::Exited(0), expected));
}

fn a_tmpfs_is_finished_in_it_as_elsewhere(lab: &Lab) {
    let container = lab.create(|spec| {
        map(spec);
        let options = json!(["tmpcopyup", "ro", "rnosuid", "rshared"]);
        add_mount(
            spec,
            json!({"destination": "/etc", "type": "tmpfs", "source": "t", "options": options}),
        );
        let script = "test -e /etc/passwd && (touch /etc/x || grep -c ' /etc ro,nosuid.* shared:' /proc/self/mountinfo) 2>/dev/null";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    assert_eq!(container.run(), (Ended::Exited(0), "1\n".to_owned()));
}

fn what_is_mounted_may_lie_where_it_may_not_go(lab: &Lab) {
    let closed = lab.run_dir().join("closed");
    let volume = closed.join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("file"), "found\n").unwrap();
    chown(&volume, Some(HOST), Some(HOST)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    // The directory above the root filesystem is closed as well.
    let container = lab.create(|spec| {
        map(spec);
        add_mount(
            spec,
            json!({"destination": "/tmp/volume", "source": volume, "options": ["rbind"]}),
        );
        spec["process"]["args"] =
            json!(["sh", "-c", "cat /tmp/volume/file; echo x > /tmp/volume/new"]);
    });
    fs::set_permissions(&container.dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(container.run(), (Ended::Exited(0), "found\n".to_owned()));
    assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), HOST);
    fs::remove_dir_all(closed).unwrap();
}

fn an_exec_is_in_it_too(lab: &Lab) {
    let container = lab.shell("sleep 60", map);
    let (ended, output) = lab.exec_shell(
        &container,
        "id -u; cut -c 1-30 /proc/self/uid_map; touch /tmp/x",
    );
    assert_eq!(ended, Ended::Exited(0), "{output}");
    let words: Vec<&str> = output.split_whitespace().take(3).collect();
    assert_eq!(words, ["0", "0", "100000"]);
    let process = support::shell_process("sleep 60");
    let (process, _) = lab.exec(&container, process).unwrap();
    let owner = fs::metadata(format!("/proc/{}", process.pid))
        .unwrap()
        .uid();
    assert_eq!(owner, HOST);
    process.signal(libc::SIGKILL).unwrap();
    wait(&process);
    container.kill();
}

fn hooks_and_limits_work_in_it(lab: &Lab) {
    let out = lab.run_dir().join("hooks");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
    let container = lab.create(|spec| {
        map(spec);
        let script = format!("cat /proc/self/uid_map > {}/$0", out.display());
        for kind in ["createRuntime", "createContainer"] {
            spec["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script, kind]}]);
        }
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 5, "hard": 10}]);
        spec["process"]["args"] = json!(["sh", "-c", "ulimit -c"]);
    });
    let (ended, _) = container.run();
    assert_eq!(ended, Ended::Exited(0));
    let seen = |kind: &str| fs::read_to_string(out.join(kind)).unwrap();
    assert!(seen("createRuntime").contains("4294967295"));
    assert!(seen("createContainer").contains("100000"));
    fs::remove_dir_all(out).unwrap();
}

fn it_owns_its_network(lab: &Lab) {
    let container = lab.create(|spec| {
        map(spec);
        let caps = json!(["CAP_NET_ADMIN"]);
        spec["process"]["capabilities"] =
            json!({"bounding": caps, "effective": caps, "permitted": caps});
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "80"});
        let script = "ip link set lo up && cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    assert_eq!(container.run(), (Ended::Exited(0), "80\n".to_owned()));
}

fn ids() -> Vec<LinuxIdMapping> {
    serde_json::from_value(json!([{"containerID": 0, "hostID": HOST, "size": 65536}])).unwrap()
}

/// A pod's namespaces, these in a user namespace of the pod's.
fn pods_namespaces(lab: &Lab, kinds: &[&str]) -> Namespaces {
    let pin = |kind: &&str| ((*kind).to_owned(), lab.run_dir().join("pins").join(kind));
    let job = Namespaces {
        make: ["user"].iter().chain(kinds).map(pin).collect(),
        id_mappings: (ids(), ids()),
        ..Namespaces::default()
    };
    lab.perform(Job::Namespaces(job.clone())).unwrap();
    job
}

fn unpin_all(lab: &Lab, jobs: &[&Namespaces]) {
    for (_, path) in jobs.iter().flat_map(|job| &job.make) {
        unpin(path).unwrap();
    }
    fs::remove_dir(lab.run_dir().join("pins")).unwrap();
}

/// Joins the namespaces of a pod, with a pid and a mount namespace of its own.
fn join(spec: &mut Value, job: &Namespaces) {
    map(spec);
    let mut list = vec![json!({"type": "pid"}), json!({"type": "mount"})];
    for (kind, path) in &job.make {
        let kind = if kind == "net" { "network" } else { kind };
        list.push(json!({"type": kind, "path": path}));
    }
    spec["linux"]["namespaces"] = json!(list);
    spec.as_object_mut().unwrap().remove("hostname");
}

fn one_that_is_another_s_is_joined(lab: &Lab) {
    let job = pods_namespaces(lab, &["net", "ipc", "uts"]);
    let script = "id -u; readlink /proc/self/ns/user; ls -d /sys/class/net/lo; hostname changed && hostname; \
                  grep -c mqueue /proc/mounts; cat /proc/1/comm; sleep 60";
    let mut container = lab.create(|spec| {
        join(spec, &job);
        for (destination, kind) in [("/sys", "sysfs"), ("/dev/mqueue", "mqueue")] {
            add_mount(
                spec,
                json!({"destination": destination, "type": kind, "source": kind}),
            );
        }
        spec["process"]["args"] = json!(["sh", "-c", script]);
        let caps = json!(["CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"] =
            json!({"bounding": caps, "effective": caps, "permitted": caps});
    });
    container.start().unwrap();
    let user = fs::metadata(&job.make[0].1).unwrap().ino();
    container.read_until(&format!(
        "0\nuser:[{user}]\n/sys/class/net/lo\nchanged\n1\nsh\n"
    ));
    let process = fs::metadata(format!("/proc/{}", container.init.pid)).unwrap();
    assert_eq!((process.uid(), process.gid()), (HOST, HOST));
    let exec = lab.exec_shell(&container, "id -u");
    assert_eq!(exec, (Ended::Exited(0), "0\n".to_owned()));
    container.kill();
    unpin_all(lab, &[&job]);
}

fn the_mappings_of_a_joined_one_are_those_of_the_spec(lab: &Lab) {
    let job = pods_namespaces(lab, &[]);
    let error = lab
        .try_create(|spec| {
            join(spec, &job);
            spec["linux"]["uidMappings"][0]["size"] = json!(7);
        })
        .err()
        .expect("it is refused")
        .message;
    assert!(
        error.contains("0 100000 7") && error.contains("0 100000 65536"),
        "{error}"
    );
    // Without any, it is what it is.
    let container = lab.create(|spec| {
        join(spec, &job);
        spec["linux"].as_object_mut().unwrap().remove("uidMappings");
        spec["linux"].as_object_mut().unwrap().remove("gidMappings");
        spec["process"]["args"] = json!(["id", "-u"]);
    });
    assert_eq!(container.run(), (Ended::Exited(0), "0\n".to_owned()));
    unpin_all(lab, &[&job]);
}

/// As with the Sandbox API: CRI makes the network, in a user namespace that nobody keeps.
fn the_owner_of_a_network_is_the_pods(lab: &Lab) {
    let theirs = pods_namespaces(lab, &["net"]);
    let user = fs::metadata(&theirs.make[0].1).unwrap().ino();
    let job = Namespaces {
        join: vec![theirs.make[1].clone()],
        make: vec![
            ("user".to_owned(), lab.run_dir().join("pins/owner")),
            ("ipc".to_owned(), lab.run_dir().join("pins/ipc")),
        ],
        ..Namespaces::default()
    };
    lab.perform(Job::Namespaces(job.clone())).unwrap();
    assert_eq!(fs::metadata(&job.make[0].1).unwrap().ino(), user);
    unpin_all(lab, &[&theirs, &job]);

    let node = Namespaces {
        join: vec![("net".to_owned(), "/proc/self/ns/net".into())],
        make: job.make.clone(),
        ..Namespaces::default()
    };
    let error = lab.perform(Job::Namespaces(node)).expect_err("refused");
    assert!(error.message.contains("hostUsers"), "{error}");
}

fn of_a_network_that_is_not_its_own(lab: &Lab) {
    let container = lab.create(|spec| {
        map(spec);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        add_mount(
            spec,
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}),
        );
        let script =
            "ls -d /sys/class/net/lo; grep -E ' /sys[ /]' /proc/mounts | grep -cv ' ro[, ]'";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let (_, output) = container.run();
    assert_eq!(output, "/sys/class/net/lo\n0\n");
}

fn what_makes_no_sense_is_refused(lab: &Lab) {
    let refuse = |edit: fn(&mut Value)| lab.try_create(edit).err().expect("it is refused").message;
    let error = refuse(|spec| {
        map(spec);
        spec["linux"]["gidMappings"] = json!([]);
    });
    assert!(error.contains("gidMappings"), "{error}");
    let error = refuse(|spec| {
        map(spec);
        spec["linux"]["namespaces"].as_array_mut().unwrap().pop();
    });
    assert!(error.contains("no user namespace"), "{error}");
    let error = refuse(|spec| {
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user", "path": "/proc/self/ns/user"}));
    });
    assert!(error.contains("join the user namespace"), "{error}");
}
