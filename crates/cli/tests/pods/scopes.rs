//! A handler's configuration, given by `--config`, decides whose namespaces containers use.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::node::{Node, Shim, eventually, finish, lines_of, stderr, stdout};

const LINKS: &str = "  restartPolicy: Never\n  containers:\n\
    \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'cd /proc/self/ns; readlink net; readlink \
    ipc; sleep 1']}\n\
    \x20 - {name: b, image: ROOTFS, command: [sh, -c, 'cd /proc/self/ns; readlink net; readlink \
    ipc; sleep 1']}\n";

#[test]
fn a_container_can_have_a_network_of_its_own() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(&config, "[containers.a.scopes]\nnetwork = \"container\"\n").unwrap();
    let output = finish(node.start(LINKS, &["--config", config.to_str().unwrap()]));
    let [a, b] = ["a", "b"].map(|name| lines_of(&output, name));
    assert_eq!((a.len(), b.len()), (2, 2), "{}", stderr(&output));
    assert_ne!(a[0], b[0], "network");
    assert_eq!(a[1], b[1], "ipc");
    node.assert_nothing_left();
}

#[test]
fn a_bad_configuration_refuses_the_pod() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(&config, "[containers.a.scopes]\nnetwrk = \"container\"\n").unwrap();
    let output = finish(node.start(LINKS, &["--config", config.to_str().unwrap()]));
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(
        said.contains("config.toml") && said.contains("network"),
        "{said}"
    );
    node.assert_nothing_left();
}

/// A link into its network takes connections whether or not somebody listens behind it.
#[test]
fn a_probe_asks_in_the_network_of_its_container() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    let text = "[containers.a.scopes]\nnetwork = \"container\"\n\
        [[containers.a.links]]\nfrom = \"pod\"\nport = 9000\n";
    fs::write(&config, text).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let pod = |command: &str| {
        format!(
            "  restartPolicy: Never\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: a\n    \
             image: ROOTFS\n    command: [sh, -c, '{command}']\n    startupProbe: {{tcpSocket: {{port: \
             9000}}, periodSeconds: 1, failureThreshold: 2}}\n"
        )
    };
    let nobody = node.run_with(&pod("sleep 100"), &config);
    let said = stderr(&nobody);
    assert!(said.contains("its startup probe failed 2 times"), "{said}");
    let served = node.run_with(&pod("httpd -p 9000; sleep 3; echo served"), &config);
    assert_eq!(lines_of(&served, "a"), ["served"], "{}", stderr(&served));
    node.assert_nothing_left();
}

/// Containers start in the manifest's order, so one may join the namespace of another before it.
#[test]
fn a_container_can_join_the_processes_of_one_before_it() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(&config, "[containers.b.scopes]\npid = \"target:a\"\n").unwrap();
    let pod = "  restartPolicy: Never\n  containers:\n\
        \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'exec sleep 1']}\n\
        \x20 - {name: b, image: ROOTFS, command: [sh, -c, 'tr \"\\0\" \" \" < /proc/1/cmdline; echo']}\n";
    for _ in 0..5 {
        let output = finish(node.start(pod, &["--config", config.to_str().unwrap()]));
        let seen = lines_of(&output, "b");
        assert_eq!(seen.len(), 1, "{}", stderr(&output));
        assert!(
            seen[0].starts_with("sleep 1") || seen[0].starts_with("sh -c"),
            "{seen:?}"
        );
    }
    node.assert_nothing_left();
}

/// Container and kind of namespace, to the scope and who decided it.
type Scopes = BTreeMap<(String, String), (String, String)>;

fn lower(value: &Value) -> String {
    value.as_str().unwrap().to_lowercase()
}

fn planned(plan: &Value) -> Scopes {
    let mut scopes = Scopes::new();
    for container in plan["containers"].as_array().unwrap() {
        for (kind, of) in container["plan"].as_object().unwrap() {
            let place = (lower(&container["name"]), kind.clone());
            let scope = match of["scope"].as_object() {
                // `{"group": "x"}`
                Some(named) => {
                    let named = named.iter().next().unwrap();
                    format!("{}:{}", named.0, lower(named.1))
                }
                None => lower(&of["scope"]),
            };
            scopes.insert(place, (scope, lower(&of["by"])));
        }
    }
    scopes
}

/// What the kernel says: whose namespace each is.
fn actual(inspected: &Value) -> Scopes {
    let mut scopes = Scopes::new();
    for container in inspected["containers"].as_array().unwrap() {
        for of in container["namespaces"].as_array().unwrap() {
            let place = (lower(&container["name"]), lower(&of["kind"]));
            assert_eq!(of["as_planned"], true, "{place:?}: {of}");
            // `group:x` is written `GROUP(x)` here.
            let scope = lower(&of["actual"]).replace('(', ":").replace(')', "");
            scopes.insert(place, (scope, lower(&of["by"])));
        }
    }
    scopes
}

#[test]
fn a_pod_becomes_what_its_plan_said() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    fs::write(
        &config,
        "[scopes]\npid = \"pod\"\n\
         [containers.a.scopes]\nnetwork = \"container\"\ntime = \"container\"\n\
         [containers.b.scopes]\nipc = \"group:x\"\nuts = \"node\"\n\
         [containers.c.scopes]\nipc = \"group:x\"\nnetwork = \"target:a\"\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let containers = ["a", "b", "c"]
        .map(|name| format!("  - {{name: {name}, image: ROOTFS, command: [sleep, '100']}}\n"));
    let spec = format!("  containers:\n{}", containers.concat());
    let output = finish(node.start(&spec, &["--detach", "--config", config]));
    assert!(output.status.success(), "{}", stderr(&output));
    let id = stdout(&output);
    let inspected = node.stdout(&["inspect", "--json", id.trim()]);
    // Told of the same manifest, after the fact: what it says depends on nothing that runs.
    let manifest = node.manifest();
    let plan = node.stdout(&[
        "plan",
        "--json",
        "--config",
        config,
        manifest.to_str().unwrap(),
    ]);
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap();
    let (planned, actual) = (planned(&read(&plan)), actual(&read(&inspected)));
    assert_eq!(planned.len(), 3 * 8);
    assert_eq!(planned, actual);
    node.stdout(&["rm", "--force", id.trim()]);
    node.assert_nothing_left();
}

#[test]
fn a_pod_has_the_links_that_its_plan_said() {
    let node = Node::new(Shim::Husk);
    let config = node.scratch().join("config.toml");
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/target/components");
    let isolate = components.canonicalize().unwrap().join("isolate.wasm");
    let text = format!(
        "[[containers.a.links]]\nfrom = 'pod'\nport = 9000\n\
         [[plugin]]\nname = 'alone'\npath = '{}'\ndeadline = '5s'\n\
         [plugin.settings]\ncontainers = ['a']\n\
         [[plugin.settings.links]]\ncontainer = 'a'\nto = 'b'\nport = 8080\nlocal = 3128\n",
        isolate.display()
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let spec = "  terminationGracePeriodSeconds: 0\n  containers:\n\
        \x20 - {name: a, image: ROOTFS, command: [sleep, '100']}\n\
        \x20 - {name: b, image: ROOTFS, command: [sh, -c, 'mkdir /tmp/w; echo hello > /tmp/w/x; \
        exec httpd -f -p 127.0.0.1:8080 -h /tmp/w']}\n";
    let output = finish(node.start(spec, &["--detach", "--config", config]));
    assert!(output.status.success(), "{}", stderr(&output));
    let id = stdout(&output);
    let id = id.trim();
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap();
    let fetched = ["exec", "-c", "a", id, "--", "wget", "-q", "-O", "-"];
    let fetched = [&fetched[..], &["http://127.0.0.1:3128/x"]].concat();
    eventually("the server is reached", || {
        node.output(&fetched).stdout == b"hello\n"
    });
    let manifest = node.manifest();
    let manifest = manifest.to_str().unwrap();
    let plan = read(&node.stdout(&["plan", "--json", "--config", config, manifest]));
    let planned = plan["containers"][0]["links"].as_array().unwrap();
    let planned: BTreeSet<_> = planned
        .iter()
        .map(|link| {
            assert_eq!(link["waits"], Value::Null, "{link}");
            let outward = link["direction"] == "to";
            let [near, far] = if outward {
                ["local", "port"]
            } else {
                ["port", "local"]
            };
            (link[near].as_u64(), link[far].as_u64(), lower(&link["by"]))
        })
        .collect();
    let inspected = read(&node.stdout(&["inspect", "--json", id]));
    let there = inspected["links"].as_array().unwrap();
    let there: BTreeSet<_> = there
        .iter()
        .map(|link| {
            assert_eq!(link["container"], "a");
            (
                link["port"].as_u64(),
                link["to_port"].as_u64(),
                lower(&link["by"]),
            )
        })
        .collect();
    assert_eq!(planned.len(), 2, "{plan}");
    assert_eq!(planned, there);
    node.stdout(&["rm", "--force", id]);
    node.assert_nothing_left();
}
