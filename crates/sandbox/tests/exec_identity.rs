//! Who a process in a container is, and what it may do.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use husk_sandbox::process::Ended;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use support::{Container, Lab, run, shell_process, wait};

fn main() {
    run(&[
        (
            "user_and_groups_are_the_specs_alone",
            user_and_groups_are_the_specs_alone,
        ),
        ("capabilities_are_those_named", capabilities_are_those_named),
        ("no_capabilities_means_none", no_capabilities_means_none),
        (
            "ambient_capabilities_reach_a_user",
            ambient_capabilities_reach_a_user,
        ),
        ("seccomp_binds_init_and_exec", seccomp_binds_init_and_exec),
        (
            "seccomp_compares_arguments_under_a_mask",
            seccomp_compares_arguments_under_a_mask,
        ),
        (
            "no_new_privileges_is_as_asked",
            no_new_privileges_is_as_asked,
        ),
        (
            "a_user_namespace_is_joined_as_its_root",
            a_user_namespace_is_joined_as_its_root,
        ),
    ]);
}

/// What a process of the container says of itself in /proc/self/status.
fn status(lab: &Lab, container: &Container, edit: impl FnOnce(&mut Value)) -> String {
    let mut process = shell_process("cat /proc/self/status");
    edit(&mut process);
    let (process, output) = lab
        .exec(container, process)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(wait(&process), Ended::Exited(0));
    support::read_all(output)
}

fn field(status: &str, name: &str) -> String {
    let prefix = format!("{name}:");
    let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
        .replace('\t', " ")
}

fn user_and_groups_are_the_specs_alone(lab: &Lab) {
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 5]});
    let container = lab.shell("cat /proc/self/status; sleep 60", |spec| {
        spec["process"]["user"] = user.clone();
    });
    let of_exec = status(lab, &container, |process| process["user"] = user);
    let of_root = status(lab, &container, |_| {});
    let (_, of_init) = container.kill();
    for status in [of_exec, of_init] {
        assert_eq!(field(&status, "Uid"), "1000 1000 1000 1000");
        assert_eq!(field(&status, "Gid"), "1001 1001 1001 1001");
        assert_eq!(field(&status, "Groups"), "5 7");
    }
    assert_eq!(field(&of_root, "Groups"), "", "not those of the shim");
}

fn capabilities_are_those_named(lab: &Lab) {
    // CAP_CHOWN is bit 0, CAP_KILL bit 5.
    let container = lab.shell("sleep 60", |_| {});
    let status = status(lab, &container, |process| {
        process["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
        });
    });
    // Executed by root, both are raised again as far as the bounding set goes.
    assert_eq!(field(&status, "CapBnd"), "0000000000000021");
    assert_eq!(field(&status, "CapPrm"), "0000000000000021");
    assert_eq!(field(&status, "CapInh"), "0000000000000000");
    assert_eq!(field(&status, "CapAmb"), "0000000000000000");
    container.kill();
}

fn no_capabilities_means_none(lab: &Lab) {
    let container = lab.shell("cat /proc/self/status; sleep 60", |spec| {
        spec["process"]
            .as_object_mut()
            .unwrap()
            .remove("capabilities");
    });
    let of_exec = status(lab, &container, |_| {});
    let (_, of_init) = container.kill();
    for status in [of_exec, of_init] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
    }
}

fn ambient_capabilities_reach_a_user(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let bind = json!(["CAP_NET_BIND_SERVICE"]);
    let status = status(lab, &container, |process| {
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["capabilities"] = json!({
            "bounding": bind, "permitted": bind, "effective": bind, "inheritable": bind,
            "ambient": bind,
        });
    });
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000400", "{set}");
    }
    container.kill();
}

fn seccomp_binds_init_and_exec(lab: &Lab) {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    let said = "mkdir: can't create directory '/tmp/x': No space left on device\n";
    for no_new_privileges in [true, false] {
        let mut container = lab.shell("mkdir /tmp/x; sleep 60", |spec| {
            spec["linux"]["seccomp"] = profile.clone();
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        container.expect(said);
        let mut process = shell_process("mkdir /tmp/x");
        process["noNewPrivileges"] = json!(no_new_privileges);
        let seccomp: LinuxSeccomp = serde_json::from_value(profile.clone()).unwrap();
        let (done, output) = lab.try_exec(&container, process, Some(seccomp)).unwrap();
        assert_eq!(wait(&done.process.unwrap()), Ended::Exited(1));
        assert_eq!(support::read_all(output), said);
        container.kill();
    }
}

/// `value` is the mask and `valueTwo` what is left under it: the usual rule for clone(2) depends on it.
fn seccomp_compares_arguments_under_a_mask(lab: &Lab) {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0x0f, "valueTwo": libc::SIGUSR1},
        ]}],
    });
    let script =
        "trap : USR1 USR2; kill -USR1 $$ 2>/dev/null || echo no USR1; kill -USR2 $$ && echo USR2";
    // The second time the filter is the kept one; the third is left to libcontainer, for its hook.
    for hooks in [
        json!({}),
        json!({}),
        json!({"createRuntime": [{"path": "/bin/true"}]}),
    ] {
        let container = lab.shell(script, |spec| {
            spec["linux"]["seccomp"] = profile.clone();
            spec["hooks"] = hooks;
        });
        assert_eq!(container.finish().1, "no USR1\nUSR2\n");
    }
}

fn no_new_privileges_is_as_asked(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    for (asked, got) in [(json!(true), "1"), (json!(false), "0"), (Value::Null, "0")] {
        let status = status(lab, &container, |process| {
            process["noNewPrivileges"] = asked
        });
        assert_eq!(field(&status, "NoNewPrivs"), got);
    }
    container.kill();
}

fn a_user_namespace_is_joined_as_its_root(lab: &Lab) {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mut container = lab.shell("echo up; sleep 60", |spec| {
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    });
    container.expect("up\n");
    let caps = json!(["CAP_CHOWN"]);
    let status = status(lab, &container, |process| {
        process["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
        process["capabilities"] = json!({"bounding": caps});
    });
    assert_eq!(field(&status, "Uid"), "7 7 7 7");
    assert_eq!(field(&status, "Gid"), "8 8 8 8");
    assert_eq!(field(&status, "Groups"), "9");
    assert_eq!(field(&status, "CapBnd"), "0000000000000001");
    let on_the_node = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        field(&status, "Uid")
    };
    assert_eq!(
        on_the_node(container.init.pid),
        "100007 100007 100007 100007"
    );
    let mut process = shell_process("sleep 60");
    process["user"] = json!({"uid": 7, "gid": 8});
    process["terminal"] = json!(true);
    let (done, _) = lab
        .try_exec(&container, process, None)
        .unwrap_or_else(|e| panic!("{e}"));
    let process = done.process.unwrap();
    assert_eq!(on_the_node(process.pid), "100007 100007 100007 100007");
    process.signal(libc::SIGKILL).unwrap();
    wait(&process);
    container.kill();
}
