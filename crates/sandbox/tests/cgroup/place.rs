//! Finding a container's cgroup, by its spec and by its processes.

use std::io::ErrorKind;

use husk_sandbox::cgroup::{Cgroup, Driver};

use crate::{Scratch, dirs, path, pid, resources, unified};

#[test]
fn the_cgroup_of_a_process_is_the_one_it_was_put_in() {
    let scratch = Scratch::new("found", "{}");
    let mut child = scratch.run("exec sleep 60");
    let found = Cgroup::of(pid(&child)).unwrap();
    assert_eq!(found.paths(), scratch.cgroup.paths());
    assert_eq!(Cgroup::at(&found.paths()).unwrap(), found);
    assert_eq!(scratch.cgroup.pids().unwrap(), [pid(&child)]);
    scratch.cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_spec_says_where_it_is_before_it_exists() {
    let name = path("before");
    let named = Cgroup::named(Driver::Cgroupfs, Some(&name), "before").unwrap();
    assert!(!named.exists());
    let scratch = Scratch::new("before", "{}");
    assert!(named.exists());
    assert_eq!(named, scratch.cgroup);
}

#[test]
fn above_a_container_is_its_pod() {
    let scratch = Scratch::new("child", "{}");
    let pod = scratch.cgroup.parent().unwrap();
    for (hierarchy, above) in pod.paths() {
        assert_eq!(scratch.cgroup.paths()[&hierarchy].parent().unwrap(), above);
    }
    assert!(pod.exists());
    // Above that is the root, which is no one's.
    assert_eq!(pod.parent(), None);
}

#[test]
fn no_process_no_cgroup() {
    // Larger than any pid.
    assert_eq!(
        Cgroup::of(i32::MAX).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn the_root_is_never_killed_frozen_or_removed() {
    let scratch = Scratch::new("root", "{}");
    let roots = scratch
        .cgroup
        .paths()
        .into_keys()
        .map(|key| (key, "/".into()))
        .collect();
    let root = Cgroup::at(&roots).unwrap();
    assert_eq!(root.kill().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(root.freeze().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(root.remove().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_cgroup_with_processes_is_not_made_again() {
    let scratch = Scratch::new("twice", "{}");
    let mut child = scratch.run("exec sleep 60");
    let name = path("twice");
    let error = Cgroup::make(Driver::Cgroupfs, Some(&name), "twice", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert_eq!(
        scratch.cgroup.pids().unwrap(),
        [pid(&child)],
        "it was left alone"
    );
    scratch.cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let name = path("undone");
    let bad =
        resources(r#"{"devices":[{"allow":true,"type":"c","access":"?"}],"pids":{"limit":5}}"#);
    let error = Cgroup::make(Driver::Cgroupfs, Some(&name), "undone", Some(&bad)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let named = Cgroup::named(Driver::Cgroupfs, Some(&name), "undone").unwrap();
    assert!(!named.exists());
    for dir in dirs(&named) {
        assert!(!dir.parent().unwrap().exists(), "nor is what is above it");
    }
}

#[test]
fn the_systemd_driver_is_refused_on_v1() {
    let scratch = Scratch::new("driver", "{}");
    assert!(Cgroup::check(Driver::Cgroupfs).is_ok());
    if !unified(&scratch.cgroup) {
        let unit = Some("system.slice:husk:x");
        assert_eq!(
            Cgroup::check(Driver::Systemd).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        let error = Cgroup::make(Driver::Systemd, unit, "x", None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains("SystemdCgroup = false"),
            "{error}"
        );
    }
}
