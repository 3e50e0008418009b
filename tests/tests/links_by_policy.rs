//! Plugins decide links as a handler's configuration does, beside it and below its ceiling.
use std::io::ErrorKind;
use std::process::Command;

use husk_tests::command::run;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Mode, Pod};
use husk_tests::lab::Lab;
use husk_tests::network::{connect, listen, talk};
use serde_json::Value;

use crate::links::{LINK, PROXY, failure, members, record};
use crate::policies_of_pods::{audit, create_and_start, says};

in_both_modes!(
    links_that_plugins_decide_are_made_and_the_tables_beside_them,
    who_decided_is_seen_in_the_record_in_inspect_and_in_the_audit,
    a_container_that_is_made_again_is_asked_about_again,
    deciders_that_contradict_each_other_are_refused_by_name,
    no_plugin_gets_past_the_ceiling,
);

fn links_that_plugins_decide_are_made_and_the_tables_beside_them(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links-by-policy", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    for address in [LINK, "[::1]:3128"] {
        talk(connect(agent.pid(), address).unwrap(), &listener).unwrap();
    }
    let inside = listen(agent.pid(), "127.0.0.1:9000");
    talk(connect(proxy.pid(), "127.0.0.1:9000").unwrap(), &inside).unwrap();
    assert!(
        agent
            .sh("cat /etc/resolv.conf")
            .contains("nameserver 127.0.0.1")
    );
    for local in [PROXY, "127.0.0.1:7"] {
        let kind = failure(agent.pid(), local);
        assert_eq!(kind, ErrorKind::ConnectionRefused, "{local}");
    }
}

/// What `husk inspect` says of the pod's links.
fn inspected(pod: &Pod<'_>) -> Vec<Value> {
    let husk = Lab::get().shim_dir.join("husk");
    let json = run(Command::new(husk).args(["inspect", "--json", &pod.id])).ok();
    let report: Value = serde_json::from_str(&json).unwrap();
    report["links"].as_array().unwrap().clone()
}

fn who_decided_is_seen_in_the_record_in_inspect_and_in_the_audit(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links-by-policy", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    let carried = inspected(&pod);
    for (port, protocol, by) in [
        (3128, "tcp", "policy isolate"),
        (9000, "tcp", "policy isolate"),
        (53, "udp", "configuration"),
    ] {
        let mut found = carried.iter();
        let link = found.find(|link| link["port"] == port && link["protocol"] == protocol);
        let link = link.unwrap_or_else(|| panic!("no port {port} in {carried:?}"));
        assert_eq!(
            (&link["by"], &link["container"]),
            (&by.into(), &"agent".into())
        );
        assert_eq!(link["counts"]["total"], u64::from(port == 3128), "{link}");
    }
    let relays = record(&pod)["relays"].as_array().cloned().unwrap();
    let links = relays
        .iter()
        .flat_map(|relay| relay["links"].as_array().cloned().unwrap());
    assert_eq!(links.count(), 3);
    let lines = audit(&pod);
    let asked = |plugin: &str| {
        let mut lines = lines
            .iter()
            .filter(|line| line["event"] == "link-container");
        lines
            .find(|line| line["plugin"] == plugin && line["container"] == "agent")
            .unwrap_or_else(|| panic!("{plugin} is not in {lines:?}"))
            .clone()
    };
    let isolate = asked("isolate");
    assert_eq!(
        isolate["decided"],
        "to tcp port 8080 of container proxy (local 3128); from tcp port 9000 of the pod"
    );
    assert_eq!(
        (&isolate["counted"], &isolate["answer"]),
        (&true.into(), &"links".into())
    );
    assert_eq!(asked("second")["answer"], "admitted");
    let watcher = asked("watcher");
    assert_eq!(watcher["decided"], "to tcp port 7 of the pod");
    assert_eq!(watcher["counted"], false);
}

fn a_container_that_is_made_again_is_asked_about_again(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links-by-policy", mode).run();
    let proxy = pod.sleeper("proxy");
    let listener = listen(proxy.pid(), PROXY);
    for attempt in 0..2 {
        let agent = pod
            .container("agent", &["sleep", "1000000"])
            .with(|config| config.metadata.as_mut().unwrap().attempt = attempt)
            .start();
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
        agent.stop(0);
    }
    let lines = audit(&pod);
    let asked = lines.iter().filter(|line| {
        line["event"] == "link-container"
            && line["plugin"] == "isolate"
            && line["container"] == "agent"
    });
    assert_eq!(asked.count(), 2);
}

fn deciders_that_contradict_each_other_are_refused_by_name(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links-by-policy", mode).run();
    for (name, words) in [
        (
            "rival",
            [
                "decided by policy isolate",
                "decided by policy second",
                "give one of them another `local`",
            ],
        ),
        (
            "contradicted",
            [
                "decided by configuration",
                "decided by policy third",
                "give one of them another `port`",
            ],
        ),
        (
            "selfish",
            [
                "policy `fourth` denies link-container",
                "a link of container selfish with itself",
                "",
            ],
        ),
    ] {
        let refused = create_and_start(&pod, name).unwrap_err();
        says(&refused, &words);
        says(&refused, &[&format!("container {name}")]);
    }
    // Its neighbours are not concerned, and nothing of it is left.
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
}

fn no_plugin_gets_past_the_ceiling(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links-none", mode).run();
    let refused = create_and_start(&pod, "agent").unwrap_err();
    says(
        &refused,
        &[
            "container agent cannot have",
            "policy isolate",
            "links = \"none\"",
        ],
    );
    let _ = pod.sleeper("proxy");
    assert_eq!(inspected(&pod), Vec::<Value>::new());
}

#[test]
fn containers_that_name_one_pod_have_the_links_that_plugins_decide() {
    let containerd = Containerd::of_the_suite();
    let [agent, proxy] = members(&containerd, "links-by-policy");
    let listener = listen(proxy.pid(), PROXY);
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    let inside = listen(agent.pid(), "127.0.0.1:9000");
    talk(connect(proxy.pid(), "127.0.0.1:9000").unwrap(), &inside).unwrap();
    assert_eq!(failure(agent.pid(), PROXY), ErrorKind::ConnectionRefused);
}
