//! Device rules hold, in either version.

use crate::Scratch;

/// `/dev/kmsg`, which no container has by default.
const KMSG: &str = "c 1 11";
const NOTHING: &str = r#"{"allow":false,"access":"rwm"}"#;

/// Whether a shell in a cgroup with these rules succeeds; `$node` is its own `/dev/kmsg`.
fn allowed(name: &str, rules: &[&str], script: &str) -> bool {
    let scratch = Scratch::new(name, &format!(r#"{{"devices":[{}]}}"#, rules.join(",")));
    let node = std::env::temp_dir().join(format!("husk-test-{}-{name}", std::process::id()));
    let script = format!("node={}; {script}", node.display());
    let success = scratch.run(&script).wait().unwrap().success();
    drop(std::fs::remove_file(node));
    success
}

#[test]
fn default_devices_are_for_everyone() {
    for device in ["null", "zero", "full", "random", "urandom"] {
        let name = format!("dev-{device}");
        assert!(
            allowed(&name, &[NOTHING], &format!("head -c 1 /dev/{device}")),
            "{device}"
        );
    }
    assert!(allowed("dev-write", &[], "echo x > /dev/null"));
}

#[test]
fn what_is_not_allowed_is_refused() {
    let make = format!("mknod $node {KMSG}");
    assert!(
        allowed("dev-mknod", &[NOTHING], &make),
        "any device may be made"
    );
    assert!(!allowed(
        "dev-read",
        &[NOTHING],
        &format!("{make} && : < $node")
    ));
    assert!(!allowed(
        "dev-write-no",
        &[NOTHING],
        &format!("{make} && : > $node")
    ));
}

#[test]
fn a_rule_allows_what_it_names() {
    let read = r#"{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}"#;
    let make = format!("mknod $node {KMSG}");
    assert!(allowed(
        "dev-r",
        &[NOTHING, read],
        &format!("{make} && : < $node")
    ));
    assert!(!allowed(
        "dev-rw",
        &[NOTHING, read],
        &format!("{make} && : > $node")
    ));
    let wild = r#"{"allow":true,"type":"c","major":1,"access":"rw"}"#;
    assert!(allowed(
        "dev-wild",
        &[NOTHING, wild],
        &format!("{make} && : > $node")
    ));
}

#[test]
fn a_privileged_container_may_do_all() {
    let all = r#"{"allow":true,"access":"rwm"}"#;
    assert!(allowed(
        "dev-all",
        &[NOTHING, all],
        &format!("mknod $node {KMSG} && : < $node")
    ));
}

#[test]
fn without_a_list_there_are_the_default_devices() {
    let scratch = Scratch::new("dev-none", "{}");
    let node = std::env::temp_dir().join(format!("husk-test-{}-none", std::process::id()));
    let script = format!(
        "mknod {0} {KMSG} && head -c 1 /dev/zero && ! head -c 0 {0}",
        node.display()
    );
    assert!(scratch.run(&script).wait().unwrap().success());
    std::fs::remove_file(node).unwrap();
}
