//! `husk plan` tells what is requested, what each plugin says and what would be, and does nothing.
use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::{component, husk, succeeded};

/// The exit status of a plan in which something is refused.
const DENIED: Option<i32> = Some(3);

const POD: &str = "  containers:\n\
    \x20 - {name: app, image: busybox, command: [sh]}\n\
    \x20 - {name: agent, image: busybox}\n";

/// A plugin's table; `rest` is what else it says.
fn plugin(name: &str, component_name: &str, rest: &str) -> String {
    let path = component(component_name);
    let path = path.display();
    format!("[[plugin]]\nname = '{name}'\npath = '{path}'\n{rest}\n")
}

/// `plugins/says` that assigns scopes to the containers.
fn says(name: &str, scopes: &str) -> String {
    let rest = format!("settings.scope-container.scopes = {{ {scopes} }}");
    plugin(name, "says", &rest)
}

fn plan(spec: &str, config: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n".to_owned() + spec;
    fs::write(dir.path().join("pod.yaml"), manifest).unwrap();
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let output = husk()
        .args(["--root", "state", "--data", "data"])
        .args(["plan", "pod.yaml", "--config", "config.toml"])
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(
        left, 2,
        "nothing is made but what the test made: {output:?}"
    );
    output
}

fn report(spec: &str, config: &str) -> (Value, Option<i32>) {
    let output = plan(spec, config, &["--json"]);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

#[test]
fn each_kind_has_its_request_its_scope_and_who_decided() {
    let config = format!(
        "[scopes]\nuts = 'container'\n{}",
        plugin("alone", "isolate", "settings.containers = ['agent']")
    );
    let (report, code) = report(POD, &config);
    assert_eq!(code, Some(0), "{report:#}");
    let [app, agent] = [0, 1].map(|at| &report["containers"][at]);
    assert_eq!(
        agent["plan"]["network"],
        json!({"requested": "pod", "scope": "container", "by": "policy alone"})
    );
    assert_eq!(app["plan"]["network"]["by"], "request");
    assert_eq!(app["plan"]["uts"]["by"], "configuration");
    assert_eq!(report["sandbox"]["plan"]["network"]["scope"], "pod");
    let said = agent["decisions"][0].as_object().unwrap();
    assert_eq!(said["question"], "scope-container");
    assert_eq!(said["scopes"], json!({"network": "container"}));
    assert_eq!(said["digest"].as_str().map(str::len), Some(64));
    // The image is nowhere on this machine, and is not fetched.
    assert_eq!(agent["without_image"], true);
}

#[test]
fn the_table_has_a_column_for_each_plugin() {
    let config = says("one", "network = 'container'") + &says("two", "ipc = 'group:pair'");
    let text = succeeded(&plan(POD, &config, &[]));
    let app = text.split("CONTAINER app").nth(1).unwrap();
    let words = |kind: &str| {
        let row = app.lines().find(|line| line.trim_start().starts_with(kind));
        let row = row.unwrap_or_else(|| panic!("no {kind} in {text}"));
        row.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let network = [
        "network",
        "POD",
        "CONTAINER",
        "–",
        "CONTAINER",
        "policy",
        "one",
    ];
    assert_eq!(words("network"), network);
    let ipc = [
        "ipc",
        "POD",
        "–",
        "GROUP(pair)",
        "GROUP(pair)",
        "policy",
        "two",
    ];
    assert_eq!(words("ipc"), ipc);
}

/// `plugins/isolate` that sets the agent apart, and its links.
fn isolate(links: &str) -> String {
    let settings = format!("settings = {{ containers = ['agent'], links = [{links}] }}");
    plugin("alone", "isolate", &settings)
}

#[test]
fn links_are_shown_before_anything_exists_and_who_decided_each() {
    let config = "[[containers.agent.links]]\nto = 'app'\nport = 8080\nlocal = 3128\n".to_owned()
        + &isolate(
            "{container = 'agent', from = 'pod', port = 9000, protocol = 'udp'}, \
             {container = 'agent', to = 'proxy', port = 1}",
        );
    let (report, code) = report(POD, &config);
    assert_eq!(code, Some(0), "{report:#}");
    let [app, agent] = [0, 1].map(|at| &report["containers"][at]);
    assert_eq!(app["links"], json!([]));
    let links = &agent["links"];
    assert_eq!(
        links[0],
        json!({
            "direction": "to", "peer": {"container": "app"}, "port": 8080, "local": 3128,
            "protocol": "tcp", "by": "configuration", "waits": null,
        })
    );
    assert_eq!(links[1]["peer"], "pod");
    assert_eq!(links[1]["by"], "policy alone");
    assert_eq!(
        links[2]["waits"],
        "the pod has no container proxy: the link waits for one"
    );
    let text = succeeded(&plan(POD, &config, &[]));
    for line in [
        "link: to tcp port 8080 of container app (local 3128), decided by configuration",
        "link: from udp port 9000 of the pod, decided by policy alone",
        "the pod has no container proxy: the link waits for one",
    ] {
        assert!(text.contains(line), "no `{line}` in {text}");
    }
}

#[test]
fn a_picture_shows_before_and_after() {
    let config = isolate("{container = 'agent', to = 'app', port = 8080, local = 3128}");
    let svg = succeeded(&plan(POD, &config, &["--svg"]));
    let (before, after) = (">requested</text>", ">planned</text>");
    assert!(svg.starts_with("<svg ") && svg.contains(before) && svg.contains(after));
    assert!(svg.contains("network of agent: POD → CONTAINER"), "{svg}");
    assert!(
        svg.contains("agent:3128 → app:8080, decided by policy alone"),
        "{svg}"
    );
    // Both containers are in the pod's network at first, and then one of them.
    let of_network = |owner: &str| svg.matches(&format!("network namespace: {owner}<")).count();
    assert_eq!(
        (of_network("the pod&#39;s"), of_network("agent&#39;s own")),
        (2, 1)
    );

    let gate = "settings.container-creating = { only = 'app', deny = '<i>not</i> today' }";
    let refused = plan(POD, &plugin("gate", "says", gate), &["--svg"]);
    assert_eq!(refused.status.code(), DENIED);
    let svg = String::from_utf8_lossy(&refused.stdout);
    assert!(
        svg.contains("card refused") && svg.contains("&lt;i&gt;not&lt;/i&gt; today"),
        "{svg}"
    );
}

#[test]
fn links_that_cannot_be_are_refused_by_the_plan() {
    let node = format!("  hostNetwork: true\n{POD}");
    let link = "{container = 'agent', from = 'pod', port = 9000}";
    let rival = "[[containers.agent.links]]\nfrom = 'pod'\nport = 9000\nlocal = 1\n";
    let closed = "[ceiling]\nlinks = 'none'\n";
    for (spec, before, words) in [
        (node.as_str(), "", "the pod is on the node's network"),
        (
            POD,
            closed,
            "[ceiling] of the handler's configuration says links",
        ),
        (POD, rival, "decided by configuration and the link from tcp"),
    ] {
        let (report, code) = report(spec, &format!("{before}{}", isolate(link)));
        assert_eq!(code, DENIED, "{report:#}");
        let denied = report["containers"][1]["denied"].as_str().unwrap();
        assert!(
            denied.contains(words) && denied.contains("decided by policy alone"),
            "{denied}"
        );
        assert_eq!(report["containers"][1]["links"], json!([]));
    }
    // What another container's link has taken.
    let config = "[containers.app.scopes]\nnetwork = 'container'\n\
                  [[containers.app.links]]\nfrom = 'pod'\nport = 9000\n"
        .to_owned()
        + &isolate(link);
    let (report, code) = report(POD, &config);
    assert_eq!(code, DENIED, "{report:#}");
    let denied = report["containers"][1]["denied"].as_str().unwrap();
    let words = "is taken by a link of container app, decided by configuration";
    assert!(denied.contains(words), "{denied}");
}

#[test]
fn a_link_between_containers_that_are_never_there_together_is_told() {
    let spec = "  initContainers:\n\
        \x20 - {name: setup, image: busybox}\n\
        \x20 - {name: proxy, image: busybox, restartPolicy: Always}\n"
        .to_owned()
        + POD;
    let config = isolate(
        "{container = 'agent', to = 'setup', port = 1}, \
         {container = 'agent', to = 'proxy', port = 2}",
    );
    let (report, code) = report(&spec, &config);
    assert_eq!(code, Some(0), "{report:#}");
    let links = &report["containers"][3]["links"];
    assert_eq!(
        links[0]["waits"],
        "container setup has ended when the other comes: the link is never made"
    );
    assert_eq!(links[1]["waits"], Value::Null);
}

#[test]
fn a_refused_sandbox_names_policy_and_reason() {
    let spec = format!("  hostNetwork: true\n{POD}");
    let config = plugin("strict", "no-host", "");
    let (report, code) = report(&spec, &config);
    assert_eq!(code, DENIED);
    let denied = report["sandbox"]["denied"].as_str().unwrap();
    assert!(
        denied.contains("policy `strict` denies") && denied.contains("hostNetwork"),
        "{denied}"
    );
    assert_eq!(report["containers"], json!([]), "none would be made");
    let text = plan(&spec, &config, &[]);
    assert_eq!(text.status.code(), DENIED);
    assert!(String::from_utf8_lossy(&text.stdout).contains("DENIED: policy `strict`"));
}

#[test]
fn a_refused_container_does_not_hide_the_others() {
    let config = plugin(
        "gate",
        "says",
        "settings.container-creating = { only = 'app', deny = 'not today' }",
    );
    let (report, code) = report(POD, &config);
    assert_eq!(code, DENIED);
    let denied = report["containers"][0]["denied"].as_str().unwrap();
    assert_eq!(denied, "policy `gate` denies container-creating: not today");
    assert!(report["containers"][1]["plan"].is_object(), "{report:#}");
}

#[test]
fn two_plugins_that_contradict_each_other_are_both_named() {
    let config = says("one", "network = 'container'") + &says("two", "network = 'node'");
    let (report, code) = report(POD, &config);
    assert_eq!(code, DENIED);
    let denied = report["containers"][0]["denied"].as_str().unwrap();
    assert!(denied.contains("`one` and `two` conflict"), "{denied}");
}

#[test]
fn the_ceiling_holds_for_plugins() {
    let config = "[ceiling]\nnetwork = 'pod'\n".to_owned() + &says("open", "network = 'node'");
    let (report, code) = report(POD, &config);
    assert_eq!(code, DENIED);
    let denied = report["containers"][0]["denied"].as_str().unwrap();
    assert!(
        denied.contains("policy open") && denied.contains("ceiling"),
        "{denied}"
    );
}

#[test]
fn what_the_plan_rules_out_in_the_spec_is_refused() {
    let config = says("lost", "pid = 'target:nobody'");
    let (report, code) = report(POD, &config);
    assert_eq!(code, DENIED);
    let denied = report["containers"][0]["denied"].as_str().unwrap();
    assert!(denied.contains("no such namespace"), "{denied}");
}

#[test]
fn what_only_monitors_does_not_count() {
    let config = plugin(
        "watching",
        "says",
        "mode = 'monitor'\nsettings.scope-container.deny = 'never'",
    );
    let (report, code) = report(POD, &config);
    assert_eq!(code, Some(0));
    let said = &report["containers"][0]["decisions"][0];
    assert_eq!(
        (&said["denied"], &said["counted"]),
        (&json!(true), &json!(false))
    );
}

#[test]
fn a_plugin_that_is_missing_denies_unless_it_is_ignored() {
    let missing = "[[plugin]]\nname = 'gone'\npath = '/no/such/plugin.wasm'\n";
    let (report, code) = self::report(POD, missing);
    assert_eq!(code, DENIED);
    let denied = report["sandbox"]["denied"].as_str().unwrap();
    assert!(denied.contains("policy `gone` cannot be asked"), "{denied}");
    let (report, code) = self::report(POD, &format!("{missing}on-error = 'ignore'\n"));
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["sandbox"]["decisions"][0]["question"], "load");
    assert_eq!(report["sandbox"]["decisions"][0]["counted"], false);
}

#[test]
fn edits_are_told_in_words() {
    let config = plugin(
        "edits",
        "says",
        "settings.container-creating.edits = { env = { MODE = 'x' }, mask = ['/secret'] }",
    );
    let text = succeeded(&plan(POD, &config, &[]));
    let words = "edits, container-creating: set-env MODE; mask-path /secret";
    assert!(text.contains(words), "{text}");
}
