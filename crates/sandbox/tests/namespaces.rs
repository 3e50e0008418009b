//! A pod's namespaces: made, pinned, joined, unpinned.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::job::{Job, Namespaces};
use husk_sandbox::pin::unpin;
use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run};

fn main() {
    run(&[
        (
            "they_are_pinned_and_containers_join_them",
            they_are_pinned_and_containers_join_them,
        ),
        ("sysctls_are_those_of_the_pod", sysctls_are_those_of_the_pod),
        (
            "a_network_namespace_is_joined_first",
            a_network_namespace_is_joined_first,
        ),
        ("clocks_have_offsets", clocks_have_offsets),
        (
            "a_cgroup_namespace_starts_at_the_pods_cgroup",
            a_cgroup_namespace_starts_at_the_pod,
        ),
        ("a_failure_leaves_no_pin", a_failure_leaves_no_pin),
        (
            "what_makes_no_sense_is_refused",
            what_makes_no_sense_is_refused,
        ),
        ("unpinning_twice_is_no_error", unpinning_twice_is_no_error),
    ]);
}

fn job(lab: &Lab, kinds: &[&str]) -> Namespaces {
    let pin = |kind: &&str| ((*kind).to_owned(), lab.run_dir().join("pins").join(kind));
    Namespaces {
        make: kinds.iter().map(pin).collect(),
        ..Namespaces::default()
    }
}

fn made(lab: &Lab, job: &Namespaces) {
    lab.perform(Job::Namespaces(job.clone()))
        .unwrap_or_else(|error| panic!("{error}"));
}

fn refused(lab: &Lab, job: &Namespaces) -> husk_sandbox::error::JobError {
    lab.perform(Job::Namespaces(job.clone()))
        .expect_err("refused")
}

fn unpin_all(lab: &Lab, job: &Namespaces) {
    for (_, path) in &job.make {
        unpin(path).unwrap();
        assert!(!path.exists());
    }
    fs::remove_dir(lab.run_dir().join("pins")).unwrap();
}

/// The namespaces of a spec, those of the job by path.
fn join(job: &Namespaces) -> serde_json::Value {
    let mut list = vec![json!({"type": "pid"}), json!({"type": "mount"})];
    for (kind, path) in job.make.iter().chain(&job.join) {
        let kind = if kind == "net" { "network" } else { kind };
        list.push(json!({"type": kind, "path": path}));
    }
    json!(list)
}

fn they_are_pinned_and_containers_join_them(lab: &Lab) {
    let mut job = job(lab, &["net", "ipc", "uts"]);
    job.hostname = Some("pod-a".to_owned());
    job.domainname = Some("example".to_owned());
    job.loopback = true;
    made(lab, &job);
    for (kind, path) in &job.make {
        let ours = fs::metadata(format!("/proc/self/ns/{kind}")).unwrap();
        let pinned = fs::metadata(path).unwrap();
        assert_eq!(pinned.dev(), ours.dev(), "{kind} is a namespace");
        assert_ne!(pinned.ino(), ours.ino(), "{kind} is a new one");
    }
    let container = lab.shell(
        "hostname; cat /proc/sys/kernel/domainname; ip -o addr show lo | grep -o 127.0.0.1/8; \
         readlink /proc/self/ns/net",
        |spec| {
            spec["linux"]["namespaces"] = join(&job);
            spec.as_object_mut().unwrap().remove("hostname");
        },
    );
    let net = fs::metadata(&job.make[0].1).unwrap().ino();
    let (ended, output) = container.finish();
    assert_eq!(
        output,
        format!("pod-a\nexample\n127.0.0.1/8\nnet:[{net}]\n")
    );
    assert_eq!(ended, Ended::Exited(0));
    unpin_all(lab, &job);
}

fn sysctls_are_those_of_the_pod(lab: &Lab) {
    let mut job = job(lab, &["net", "ipc"]);
    let sysctl = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    job.sysctls = [
        sysctl("net.ipv4.ip_unprivileged_port_start", "7"),
        sysctl("kernel.shm_rmid_forced", "1"),
        sysctl("fs/mqueue/msg_max", "11"),
    ]
    .into();
    let node = || {
        [
            "net/ipv4/ip_unprivileged_port_start",
            "kernel/shm_rmid_forced",
            "fs/mqueue/msg_max",
        ]
        .map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap())
    };
    let before = node();
    made(lab, &job);
    assert_eq!(node(), before, "the node is untouched");
    let container = lab.shell(
        "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced \
         fs/mqueue/msg_max",
        |spec| {
            spec["linux"]["namespaces"] = join(&job);
            spec.as_object_mut().unwrap().remove("hostname");
        },
    );
    assert_eq!(container.finish().1, "7\n1\n11\n");

    let mut wrong = job.clone();
    wrong.make = vec![("ipc".to_owned(), lab.run_dir().join("pins/other"))];
    let error = refused(lab, &wrong);
    assert_eq!(error.kind, JobErrorKind::Invalid);
    assert!(
        error
            .message
            .contains("net.ipv4.ip_unprivileged_port_start"),
        "{error}"
    );
    wrong.sysctls = [sysctl("kernel.shmmax", "not a number")].into();
    let error = refused(lab, &wrong);
    assert!(error.message.contains("kernel.shmmax"), "{error}");
    unpin_all(lab, &job);
}

fn a_network_namespace_is_joined_first(lab: &Lab) {
    let first = job(lab, &["net"]);
    made(lab, &first);
    let mut second = job(lab, &["uts"]);
    second.join = first.make.clone();
    second.sysctls = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into();
    second.loopback = true;
    made(lab, &second);
    let container = lab.shell("cat /proc/sys/net/ipv4/ip_forward", |spec| {
        spec["linux"]["namespaces"] = join(&second);
        spec.as_object_mut().unwrap().remove("hostname");
    });
    assert_eq!(container.finish().1, "1\n");
    unpin(&first.make[0].1).unwrap();
    unpin_all(lab, &second);
}

fn clocks_have_offsets(lab: &Lab) {
    if !Path::new("/proc/self/ns/time").exists() {
        println!("this kernel has no time namespaces");
        return;
    }
    let mut job = job(lab, &["time"]);
    job.time_offsets = [("boottime".to_owned(), (1_000_000_000, 5))].into();
    made(lab, &job);
    let container = lab.shell("cut -d. -f1 /proc/uptime", |spec| {
        spec["linux"]["namespaces"] = join(&job);
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let uptime: u64 = container.finish().1.trim().parse().unwrap();
    assert!((1_000_000_000..2_000_000_000).contains(&uptime), "{uptime}");
    unpin_all(lab, &job);
}

fn a_cgroup_namespace_starts_at_the_pod(lab: &Lab) {
    let mut job = job(lab, &["cgroup"]);
    job.cgroup = Some(format!("/{}/pod", support::cgroup_name()));
    made(lab, &job);
    let container = lab.shell(
        "grep -v :/$ /proc/self/cgroup || cat /proc/self/cgroup",
        |spec| {
            spec["linux"]["namespaces"] = join(&job);
            let id = spec["linux"]["cgroupsPath"]
                .as_str()
                .unwrap()
                .rsplit_once('/')
                .unwrap()
                .1;
            let path = format!("/{}/pod/{id}", support::cgroup_name());
            spec["linux"]["cgroupsPath"] = json!(path);
            spec.as_object_mut().unwrap().remove("hostname");
        },
    );
    let id = container.id.clone();
    let (_, seen) = container.finish();
    assert!(
        seen.lines().all(|line| line.ends_with(&format!(":/{id}"))),
        "{seen}"
    );
    assert!(!seen.is_empty());
    unpin_all(lab, &job);
    support::remove_cgroups(&format!("pod/{id}"));
    support::remove_cgroups("pod");
}

fn a_failure_leaves_no_pin(lab: &Lab) {
    let mut job = job(lab, &["uts", "ipc"]);
    // The second pin cannot be made: its directory is a file.
    let file = lab.run_dir().join("file");
    File::create(&file).unwrap();
    job.make[1].1 = file.join("below");
    let error = refused(lab, &job);
    assert!(error.message.contains("pin the ipc namespace"), "{error}");
    assert!(!job.make[0].1.exists());
    fs::remove_file(file).unwrap();

    job.join = vec![("net".to_owned(), PathBuf::from("/no/such/namespace"))];
    let error = refused(lab, &job);
    assert_eq!(error.kind, JobErrorKind::NotFound);
    assert!(error.message.contains("/no/such/namespace"), "{error}");
    fs::remove_dir(lab.run_dir().join("pins")).unwrap();
}

fn what_makes_no_sense_is_refused(lab: &Lab) {
    for kind in ["pid", "mnt", "user", "nonsense"] {
        let error = refused(lab, &job(lab, &[kind]));
        assert_eq!(error.kind, JobErrorKind::Invalid, "{kind}");
    }
    let mut named = job(lab, &["net"]);
    named.hostname = Some("x".to_owned());
    assert_eq!(refused(lab, &named).kind, JobErrorKind::Invalid);
    let mut timed = job(lab, &["net"]);
    timed.time_offsets = [("boottime".to_owned(), (1, 0))].into();
    assert_eq!(refused(lab, &timed).kind, JobErrorKind::Invalid);
    assert_eq!(
        refused(lab, &job(lab, &["cgroup"])).kind,
        JobErrorKind::Invalid
    );
}

fn unpinning_twice_is_no_error(lab: &Lab) {
    let job = job(lab, &["uts"]);
    made(lab, &job);
    assert!(
        refused(lab, &job).message.contains("pins/uts"),
        "a pin is not covered by another"
    );
    unpin(&job.make[0].1).unwrap();
    unpin_all(lab, &job);
}
