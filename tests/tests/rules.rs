//! Rules in a handler's configuration, evaluated by the plugin `rules`.
use std::fs;

use husk_tests::containerd::Containerd;
use husk_tests::ctr::{Container, unique};

use crate::policies::plugin;

/// A container of a handler with these rules.
fn ruled<'a>(containerd: &'a Containerd, rules: &str) -> Container<'a> {
    let path = plugin("rules");
    let path = path.display();
    let text = format!("[[plugin]]\nname = \"rules\"\npath = \"{path}\"\n{rules}");
    let config = containerd.lab().run.join(unique("rules"));
    fs::write(&config, text).unwrap();
    let flag = format!("--runtime-config-path={}", config.display());
    containerd.ctr().container().flag(&flag)
}

const RULES: &str = r#"
[[plugin.settings.rules]]
name = "off-the-node"
if = 'container.requested_scopes.network == "node"'
deny = "the node's network is not for containers"

[[plugin.settings.rules]]
name = "less"
if = 'container.uid == 0'
scopes = { ipc = "container", time = "container" }
change = { drop-capabilities = ["CHOWN"], pids-limit = 50, env = { RULED = "yes" } }

[[plugin.settings.rules]]
name = "words"
on = "exec"
if = '!(process.untrusted_args[0] in ["echo", "sleep"]) || size(process.untrusted_args) > 2'
deny = "only single words are said here"
"#;

#[test]
fn they_refuse_give_scopes_and_change() {
    let containerd = Containerd::of_the_suite();
    let container = ruled(&containerd, RULES);
    let script = "echo $RULED; touch /tmp/x; chown 1 /tmp/x 2>/dev/null || echo may not; readlink /proc/self/ns/time";
    let said = container.run(&["sh", "-c", script]).ok();
    let lines: Vec<&str> = said.lines().collect();
    let node = fs::read_link("/proc/self/ns/time").unwrap();
    assert_eq!(lines[..2], ["yes", "may not"]);
    assert_ne!(lines[2], node.to_string_lossy());
    let refused = ruled(&containerd, RULES).flag("--net-host").run(&["true"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused
            .stderr
            .contains("rule off-the-node: the node's network is not for containers"),
        "{refused:?}"
    );
}

#[test]
fn execs_are_ruled_too() {
    let containerd = Containerd::of_the_suite();
    let container = ruled(&containerd, RULES);
    container.start(&["sleep", "1000000"]);
    assert_eq!(container.exec(&["echo", "yes"]).ok(), "yes\n");
    let refused = container.exec(&["sh", "-c", "true"]);
    assert!(
        refused.stderr.contains("rule words: only single"),
        "{refused:?}"
    );
}

#[test]
fn a_mistake_refuses_the_pod_and_says_where() {
    let containerd = Containerd::of_the_suite();
    let rules = "[[plugin.settings.rules]]\nname = \"odd\"\nif = 'container.nmae == \"a\"'\ndeny = \"no\"\n";
    let refused = ruled(&containerd, rules).run(&["true"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused
            .stderr
            .contains("rule odd: line 1, column 11: container has no `nmae`"),
        "{refused:?}"
    );
}
