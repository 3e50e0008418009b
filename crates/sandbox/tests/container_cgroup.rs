//! A container's cgroup: made with its limits and device rules before the container is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use husk_sandbox::cgroup::{Cgroup, Driver, Stats};
use husk_sandbox::error::JobErrorKind;
use husk_sandbox::job::Job;
use husk_sandbox::process::Ended;
use serde_json::{Value, json};
use support::{Lab, read_all, run, wait};

fn main() {
    run(&[
        ("init_is_in_its_cgroup", init_is_in_its_cgroup),
        ("devices_are_refused_by_rule", devices_are_refused_by_rule),
        ("systemd_makes_a_scope", systemd_makes_a_scope),
        ("limits_that_make_no_sense", limits_that_make_no_sense),
        ("a_container_that_cannot_run", a_container_that_cannot_run),
    ]);
}

fn limited(spec: &mut Value) {
    spec["linux"]["resources"] = json!({
        "memory": {"limit": 67_108_864},
        "pids": {"limit": 40},
    });
}

fn assert_limited(cgroup: &Cgroup) {
    let (memory, pids) = match cgroup.stats().unwrap() {
        Stats::V1(stats) => (stats.memory.unwrap().usage.limit, stats.pids.unwrap()),
        Stats::V2(stats) => (stats.memory.unwrap().limit, stats.pids.unwrap()),
    };
    assert_eq!((memory, pids.limit, pids.current), (67_108_864, 40, 1));
}

fn init_is_in_its_cgroup(lab: &Lab) {
    let mut container = lab.shell("echo ready; exec sleep 60", limited);
    container.expect("ready\n");
    let cgroup = Cgroup::of(container.init.pid).unwrap();
    let path = format!("/{}/{}", support::cgroup_name(), container.id);
    let named = Cgroup::named(Driver::Cgroupfs, Some(&path), &container.id).unwrap();
    assert_eq!(cgroup, named, "in every hierarchy");
    assert_limited(&cgroup);
    cgroup.kill().unwrap();
    assert_eq!(container.finish().0, Ended::Signaled(libc::SIGKILL));
}

/// On v2 that is our BPF program: libcontainer is built without its own.
fn devices_are_refused_by_rule(lab: &Lab) {
    // 1:11 is /dev/kmsg, which can be opened where nothing forbids it.
    let script = "mknod /dev/k c 1 11 && : < /dev/null && exec cat < /dev/k > /dev/null";
    let container = lab.shell(script, |spec| {
        spec["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
        let caps = &mut spec["process"]["capabilities"];
        for set in ["bounding", "effective", "permitted"] {
            caps[set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
        }
    });
    let (ended, output) = container.finish();
    assert_eq!(ended, Ended::Exited(1));
    assert!(output.contains("Operation not permitted"), "{output}");
}

fn systemd_makes_a_scope(lab: &Lab) {
    if Cgroup::check(Driver::Systemd).is_err() {
        return;
    }
    let path = format!("system.slice:{}:scope", support::cgroup_name());
    let (mut job, stdout) = lab.create_job(|spec| {
        limited(spec);
        spec["linux"]["cgroupsPath"] = json!(path);
        spec["process"]["args"] = json!(["sleep", "60"]);
    });
    job.driver = Driver::Systemd;
    let (id, dir) = (job.id.clone(), job.dir.clone());
    let done = lab.perform(Job::Create(job)).unwrap();
    let init = done.process.unwrap();
    let cgroup = Cgroup::of(init.pid).unwrap();
    let named = Cgroup::named(Driver::Systemd, Some(&path), &id).unwrap();
    assert_eq!(cgroup, named);
    assert_eq!(
        cgroup.pids().unwrap(),
        [init.pid],
        "nothing of ours stays in it"
    );
    assert_limited(&cgroup);
    cgroup.kill().unwrap();
    assert_eq!(wait(&init), Ended::Signaled(libc::SIGKILL));
    assert_eq!(read_all(stdout), "");
    cgroup.remove().unwrap();
    husk_sandbox::rootfs::unmount_all(&dir.join("rootfs")).unwrap();
    fs::remove_dir_all(dir).unwrap();
}

fn limits_that_make_no_sense(lab: &Lab) {
    let refused = lab.try_create(|spec| {
        spec["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "many", "limit": 1}]});
    });
    let error = refused.err().unwrap();
    assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
    assert!(error.message.contains("\"many\""), "{error}");
}

/// The census after each test sees to it that no cgroup is left.
fn a_container_that_cannot_run(lab: &Lab) {
    let refused = lab.try_create(|spec| {
        limited(spec);
        spec["process"]["args"] = json!(["/no/such/executable"]);
    });
    assert!(refused.is_err());
}
