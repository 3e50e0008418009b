//! Plugins decide: what they refuse is refused, with their reason, and whatever goes wrong denies.
use std::fs;
use std::path::{Path, PathBuf};

use husk_tests::audit::refuses;
use husk_tests::containerd::Containerd;
use husk_tests::ctr::{Container, unique};

/// A plugin that `plugins/build` has built.
pub(crate) fn plugin(name: &str) -> PathBuf {
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/components");
    let path = components.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is not there: run plugins/build",
        path.display()
    );
    path.canonicalize().unwrap()
}

/// The table of a plugin, and what else it says.
fn table(name: &str, rest: &str) -> String {
    let path = plugin(name);
    format!(
        "[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n{rest}\n",
        path.display()
    )
}

/// A container of a handler with this configuration.
fn configured<'a>(containerd: &'a Containerd, text: &str) -> Container<'a> {
    let config = containerd.lab().run.join(unique("policies"));
    fs::write(&config, text).unwrap();
    let flag = format!("--runtime-config-path={}", config.display());
    containerd.ctr().container().flag(&flag)
}

/// Runs a container, which must be refused with all of these words.
#[track_caller]
fn refused(container: &Container<'_>, words: &[&str]) {
    let output = container.run(&["true"]);
    assert_ne!(output.code, 0, "{output:?}");
    for word in words {
        assert!(
            output.stderr.contains(word),
            "no `{word}` in {}",
            output.stderr
        );
    }
}

/// The component, made another one by a section that says nothing.
pub(crate) fn never_seen(name: &str, dir: &Path) -> PathBuf {
    let mut component = fs::read(plugin(name)).unwrap();
    let words = unique("never-seen");
    let length = u8::try_from(words.len()).unwrap();
    // A custom section: its id, its size, its name's length, its name.
    component.extend([0, length + 1, length]);
    component.extend(words.bytes());
    let path = dir.join(format!("{words}.wasm"));
    fs::write(&path, component).unwrap();
    path
}

const GATE: &str = "[[plugin.settings.allow]]\ncommands = [[\"echo\", \"...\"]]";

#[test]
fn the_nodes_namespaces_are_refused_with_the_reason() {
    let containerd = Containerd::of_the_suite();
    let config = table("no-host", "");
    let container = configured(&containerd, &config);
    assert_eq!(container.run(&["echo", "fine"]).ok(), "fine\n");
    let container = configured(&containerd, &config).flag("--net-host");
    refused(
        &container,
        &["policy `no-host` denies", "network", "hostNetwork"],
    );
}

#[test]
fn an_exec_is_admitted_or_refused() {
    let containerd = Containerd::of_the_suite();
    let container = configured(&containerd, &table("exec-gate", GATE));
    container.start(&["sleep", "1000000"]);
    assert_eq!(container.exec(&["echo", "yes"]).ok(), "yes\n");
    let output = container.exec(&["sh", "-c", "true"]);
    assert_ne!(output.code, 0);
    for word in ["policy `exec-gate` denies exec-starting", "sh -c true"] {
        assert!(output.stderr.contains(word), "{output:?}");
    }
}

#[test]
fn a_monitored_plugin_decides_nothing_and_is_on_record() {
    let containerd = Containerd::of_the_suite();
    let config = table("exec-gate", &format!("mode = \"monitor\"\n{GATE}"));
    let container = configured(&containerd, &config);
    container.start(&["sleep", "1000000"]);
    assert_eq!(container.exec(&["sh", "-c", "echo ran"]).ok(), "ran\n");
    let lines = husk_tests::audit::of(&container.id);
    let refusals: Vec<_> = lines.iter().filter(|line| refuses(line)).collect();
    assert_eq!(refusals.len(), 1, "{lines:#?}");
    assert_eq!(refusals[0]["event"], "exec-starting");
    assert_eq!(refusals[0]["counted"], false);
    assert_eq!(refusals[0]["digest"].as_str().map(str::len), Some(64));
}

#[test]
fn settings_that_the_plugin_refuses() {
    let containerd = Containerd::of_the_suite();
    let config = table("exec-gate", "settings = { allowed = [] }");
    refused(
        &configured(&containerd, &config),
        &["exec-gate", "settings", "allowed"],
    );
}

#[test]
fn a_plugin_that_is_missing_or_another_one_denies_unless_it_is_ignored() {
    let containerd = Containerd::of_the_suite();
    let missing = "[[plugin]]\nname = \"gone\"\npath = \"/no/such/plugin.wasm\"\n";
    refused(
        &configured(&containerd, missing),
        &["`gone`", "/no/such/plugin.wasm"],
    );
    let ignored = format!("{missing}on-error = \"ignore\"\n");
    assert_eq!(
        configured(&containerd, &ignored).run(&["echo", "on"]).ok(),
        "on\n"
    );
    let another = table("no-host", &format!("sha256 = \"{}\"", "0".repeat(64)));
    refused(
        &configured(&containerd, &another),
        &["`no-host`", "sha256", "0000"],
    );
}

#[test]
fn a_component_that_is_none_denies() {
    let containerd = Containerd::of_the_suite();
    let path = containerd.lab().run.join(unique("nonsense"));
    fs::write(&path, "(this is no component)").unwrap();
    let config = format!(
        "[[plugin]]\nname = \"nonsense\"\npath = \"{}\"\n",
        path.display()
    );
    refused(
        &configured(&containerd, &config),
        &["`nonsense`", "does not compile"],
    );
}

#[test]
fn a_plugin_is_compiled_at_its_first_use() {
    let containerd = Containerd::of_the_suite();
    let path = never_seen("no-host", &containerd.lab().run);
    let config = format!(
        "[[plugin]]\nname = \"new\"\npath = \"{}\"\n",
        path.display()
    );
    let container = configured(&containerd, &config).flag("--net-host");
    refused(&container, &["policy `new` denies"]);
}

#[test]
fn a_pod_keeps_the_plugin_it_was_made_with() {
    let containerd = Containerd::of_the_suite();
    let path = containerd.lab().run.join(unique("replaced"));
    fs::copy(plugin("exec-gate"), &path).unwrap();
    let config = format!(
        "[[plugin]]\nname = \"gate\"\npath = \"{}\"\n{GATE}\n",
        path.display()
    );
    let container = configured(&containerd, &config);
    container.start(&["sleep", "1000000"]);
    fs::write(&path, "replaced by nonsense").unwrap();
    assert_eq!(container.exec(&["echo", "still"]).ok(), "still\n");
    assert_ne!(container.exec(&["sh"]).code, 0);
    refused(&configured(&containerd, &config), &["`gate`"]);
}
