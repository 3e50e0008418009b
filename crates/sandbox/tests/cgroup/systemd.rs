//! Scopes of systemd; these tests only do something where systemd runs on cgroup v2.

use std::io::ErrorKind;
use std::process::Command;

use husk_sandbox::cgroup::{Cgroup, Driver, New};

use crate::{Scratch, eventually, held, pid, read, release, resources};

const GIVEN: &str = r#"{"memory":{"limit":67108864,"swap":67108864},"pids":{"limit":30},
    "cpu":{"shares":2048,"quota":50000,"period":100000},
    "devices":[{"allow":false,"access":"rwm"}]}"#;

fn prefix() -> String {
    format!("husk-test-{}", std::process::id())
}

fn cgroups_path(name: &str) -> String {
    format!("system.slice:{}:{name}", prefix())
}

/// The unit of a new scope, or `None` where systemd makes no cgroups.
fn make(name: &str) -> Option<New> {
    if Cgroup::check(Driver::Systemd).is_err() {
        return None;
    }
    let path = cgroups_path(name);
    Some(Cgroup::make(Driver::Systemd, Some(&path), name, Some(&resources(GIVEN))).unwrap())
}

fn show(name: &str, property: &str) -> String {
    let unit = format!("{}-{name}.scope", prefix());
    let output = Command::new("systemctl")
        .args(["show", "--value", "-p", property, &unit])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Has systemd apply its own idea of every unit's limits.
fn reload() {
    let reloaded = Command::new("systemctl").arg("daemon-reload").status();
    assert!(reloaded.unwrap().success());
}

fn wait_until_gone(name: &str) {
    eventually("the unit is gone", || {
        show(name, "LoadState") == "not-found"
    });
}

#[test]
fn a_scope_has_its_limits_and_lives_as_long_as_its_processes() {
    let name = "limits";
    let Some(new) = make(name) else {
        return;
    };
    assert!(
        new.cgroup()
            .path()
            .ends_with(format!("{}-{name}.scope", prefix()))
    );
    assert_eq!(show(name, "ActiveState"), "active");
    let mut init = held("exec sleep 60");
    let scratch = Scratch {
        cgroup: new.adopt(pid(&init)).unwrap(),
    };
    let cgroup = &scratch.cgroup;
    assert_eq!(
        cgroup.pids().unwrap(),
        [pid(&init)],
        "nothing else stays in it"
    );
    assert_eq!(&Cgroup::of(pid(&init)).unwrap(), cgroup);
    let named = Cgroup::named(Driver::Systemd, Some(&cgroups_path(name)), name).unwrap();
    assert_eq!(&named, cgroup);

    reload();
    assert_eq!(read(cgroup, "", "memory.max"), "67108864");
    assert_eq!(read(cgroup, "", "memory.swap.max"), "0");
    assert_eq!(read(cgroup, "", "pids.max"), "30");
    assert_eq!(read(cgroup, "", "cpu.max"), "50000 100000");
    assert_eq!(read(cgroup, "", "cpu.weight"), "174");

    cgroup
        .update(
            Driver::Systemd,
            &resources(r#"{"memory":{"limit":134217728},"cpu":{"quota":-1}}"#),
        )
        .unwrap();
    reload();
    assert_eq!(show(name, "MemoryMax"), "134217728");
    assert_eq!(read(cgroup, "", "memory.max"), "134217728");
    assert_eq!(read(cgroup, "", "cpu.max"), "max 100000");
    assert_eq!(read(cgroup, "", "pids.max"), "30", "not named");

    release(&mut init);
    cgroup.kill().unwrap();
    init.wait().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    wait_until_gone(name);
}

#[test]
fn a_scope_that_is_not_adopted_is_undone() {
    let name = "undone";
    let Some(new) = make(name) else {
        return;
    };
    let cgroup = new.cgroup().clone();
    assert!(cgroup.exists());
    drop(new);
    assert!(!cgroup.exists());
    wait_until_gone(name);
}

#[test]
fn the_device_rules_of_a_scope_outlive_a_reload() {
    let name = "devices";
    let Some(new) = make(name) else {
        return;
    };
    let mut init = held("head -c 1 /dev/zero && ! head -c 0 /dev/kmsg");
    let scratch = Scratch {
        cgroup: new.adopt(pid(&init)).unwrap(),
    };
    reload();
    release(&mut init);
    assert!(init.wait().unwrap().success());
    scratch.cgroup.remove().unwrap();
    wait_until_gone(name);
}

/// systemd may remove the cgroup before anyone has looked (contract 29).
#[test]
fn a_memory_kill_is_known_though_the_scope_is_gone() {
    let name = "killed";
    let Some(new) = make(name) else {
        return;
    };
    let mut init = held("exec tail /dev/zero");
    let scratch = Scratch {
        cgroup: new.adopt(pid(&init)).unwrap(),
    };
    let mut watch = scratch.cgroup.watch_oom().unwrap();
    release(&mut init);
    init.wait().unwrap();
    eventually("systemd removes it", || !scratch.cgroup.exists());
    assert!(watch.fired().unwrap());
    assert_eq!(watch.fired().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_scope_that_ends_by_itself_was_not_killed() {
    let name = "ended";
    let Some(new) = make(name) else {
        return;
    };
    let mut init = held("exit");
    let scratch = Scratch {
        cgroup: new.adopt(pid(&init)).unwrap(),
    };
    let mut watch = scratch.cgroup.watch_oom().unwrap();
    release(&mut init);
    init.wait().unwrap();
    eventually("systemd removes it", || !scratch.cgroup.exists());
    assert_eq!(watch.fired().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_slice_is_a_pod_s_and_no_container_s() {
    if Cgroup::check(Driver::Systemd).is_err() {
        return;
    }
    let slice = Some("-.slice::system.slice");
    let named = Cgroup::named(Driver::Systemd, slice, "pod").unwrap();
    assert_eq!(named.paths()[""], std::path::Path::new("/system.slice"));
    let error = Cgroup::make(Driver::Systemd, slice, "pod", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(named.exists(), "it was not made here, so it is not undone");
}

#[test]
fn the_name_of_a_scope_whose_processes_ran_out_of_memory_is_free_again() {
    let name = "again";
    for _ in 0..2 {
        let Some(new) = make(name) else {
            return;
        };
        let mut init = held("exec tail /dev/zero");
        let scratch = Scratch {
            cgroup: new.adopt(pid(&init)).unwrap(),
        };
        release(&mut init);
        init.wait().unwrap();
        scratch.cgroup.remove().unwrap();
    }
}
