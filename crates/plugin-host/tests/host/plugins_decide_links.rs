//! Plugins decide links as a handler's configuration does: merged along the chain, bounded by the same
//! rules, and refused with the names of those that do not go together.
//!
//! The plugin is a real component, `plugins/says`, which decides what its settings say.
use husk_plugin_host::plugin::Failure;
use husk_plugin_host::subject::{Container, Question};
use husk_plugin_host::{Chain, Denied, Host, Outcome, Plugin, decide};
use husk_scope::config::{Config, Mode};
use husk_scope::links::{Direction, Link, MOST, Peer, Protocol};
use serde_json::{Value, json};

use crate::common;

/// `plugins/says` of this name, which decides these links for the container `agent`.
fn says(host: &Host, name: &str, links: &Value) -> Plugin {
    with(
        host,
        name,
        &json!({"only": "agent", "links": links}),
        |_| {},
    )
}

fn with(
    host: &Host,
    name: &str,
    act: &Value,
    change: impl FnOnce(&mut husk_scope::config::Plugin),
) -> Plugin {
    let (code, digest) = common::built(host, "says");
    let json = json!({ "link-container": act }).to_string();
    let mut settings = common::settings_with(name, &json);
    change(&mut settings.config);
    Plugin::new(host, &code, digest, settings).unwrap()
}

fn agent() -> Container {
    Container {
        name: "agent".into(),
        ..common::container()
    }
}

fn asked(plugins: Vec<Plugin>) -> Outcome<Vec<Link>> {
    Chain::new(plugins).links(&common::pod(), &agent())
}

/// Why these plugins are refused.
#[track_caller]
fn refused(plugins: Vec<Plugin>) -> String {
    asked(plugins).result.unwrap_err().to_string()
}

fn to_proxy(port: u16, local: u16, by: &str) -> Link {
    Link {
        direction: Direction::To,
        peer: Peer::Container("proxy".into()),
        port,
        local,
        protocol: Protocol::Tcp,
        by: by.into(),
    }
}

#[test]
fn links_of_several_plugins_and_of_the_configuration_are_put_together() {
    let host = Host::new().unwrap();
    let proxy = json!([{"to": "proxy", "port": 8080, "local": 3128}]);
    let more = json!([
        {"to": "proxy", "port": 8080, "local": 3128},
        {"from": "pod", "port": 9000, "protocol": "udp"},
    ]);
    let outcome = asked(vec![says(&host, "one", &proxy), says(&host, "two", &more)]);
    let decisions: Vec<_> = outcome.decisions.iter().collect();
    assert_eq!(decisions[0].question, "link-container");
    assert_eq!(decisions[0].container.as_deref(), Some("agent"));
    assert_eq!(
        decisions[1].answer,
        "to tcp port 8080 of container proxy (local 3128); from udp port 9000 of the pod"
    );
    let links = outcome.result.unwrap();
    assert_eq!(links.len(), 2, "{links:?}");
    assert_eq!(links[0], to_proxy(8080, 3128, "policy one"));
    assert_eq!(links[1].by, "policy two");
    let toml = "[[containers.agent.links]]\nto = 'proxy'\nport = 8080\nlocal = 3128";
    let config = Config::parse("c", toml).unwrap();
    let decided = decide::container_links(&config, "agent", links.clone()).unwrap();
    assert_eq!(decided[0], to_proxy(8080, 3128, "configuration"));
    assert_eq!(decided[1..], links[1..]);
    let other = decide::container_links(&config, "other", Vec::new()).unwrap();
    assert_eq!(other, []);
}

#[test]
fn a_container_that_is_not_meant_has_no_links() {
    let host = Host::new().unwrap();
    let plugin = says(&host, "one", &json!([{"to": "proxy", "port": 1}]));
    let outcome = Chain::new(vec![plugin]).links(&common::pod(), &common::container());
    assert_eq!(outcome.decisions[0].answer, "no links");
    assert_eq!(outcome.result.unwrap(), []);
}

#[test]
fn one_port_for_two_targets_is_refused_with_both_names() {
    let host = Host::new().unwrap();
    let [one, two] = [("one", "proxy"), ("two", "pod")]
        .map(|(name, peer)| says(&host, name, &json!([{"to": peer, "port": 8080}])));
    let said = refused(vec![one, two]);
    for words in [
        "container agent",
        "policy one",
        "policy two",
        "container proxy",
        "the pod",
        "port 8080",
        "`local`",
    ] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    // A plugin contradicts itself, too.
    let both = json!([{"from": "pod", "port": 1, "local": 2}, {"from": "pod", "port": 1}]);
    let said = refused(vec![says(&host, "both", &both)]);
    assert!(
        said.contains("policy both") && said.contains("`port`"),
        "{said}"
    );
    // And the handler's configuration.
    let toml = "[[containers.agent.links]]\nto = 'proxy'\nport = 8080";
    let config = Config::parse("c", toml).unwrap();
    let plugin = says(
        &host,
        "open",
        &json!([{"to": "pod", "port": 80, "local": 8080}]),
    );
    let links = asked(vec![plugin]).result.unwrap();
    let said = decide::container_links(&config, "agent", links).unwrap_err();
    let said = said.to_string();
    assert!(
        said.contains("decided by configuration") && said.contains("decided by policy open"),
        "{said}"
    );
    // The other protocol is another port.
    let [tcp, udp] = ["tcp", "udp"].map(|protocol| {
        says(
            &host,
            protocol,
            &json!([{"to": protocol, "port": 53, "protocol": protocol}]),
        )
    });
    assert_eq!(asked(vec![tcp, udp]).result.unwrap().len(), 2);
}

#[test]
fn the_ceiling_bounds_plugins_as_it_bounds_the_table() {
    let host = Host::new().unwrap();
    let config = Config::parse("c", "[ceiling]\nlinks = 'none'").unwrap();
    let plugin = says(&host, "wide", &json!([{"to": "proxy", "port": 8080}]));
    let links = asked(vec![plugin]).result.unwrap();
    let said = decide::container_links(&config, "agent", links).unwrap_err();
    let said = said.to_string();
    assert!(
        said.contains("policy wide") && said.contains("links = \"none\""),
        "{said}"
    );
    assert_eq!(
        decide::container_links(&config, "agent", Vec::new()),
        Ok(Vec::new())
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_says_why() {
    let host = Host::new().unwrap();
    let long = "x".repeat(254);
    for (links, words) in [
        (json!([{"to": "proxy", "port": 0}]), "ports are 1 to 65535"),
        (
            json!([{"to": "proxy", "port": 1, "local": 0}]),
            "ports are 1 to 65535",
        ),
        (
            json!([{"to": "agent", "port": 1}]),
            "a link of container agent with itself",
        ),
        (json!([{"from": "agent", "port": 1}]), "with itself"),
        (
            json!([{"to": "", "port": 1}]),
            "a name for a link of 0 bytes",
        ),
        (
            json!([{"to": long, "port": 1}]),
            "a name for a link of 254 bytes",
        ),
        (
            json!([{"to": "../proxy", "port": 1}]),
            "`../proxy` for a link",
        ),
        (
            json!([{"to": "a\u{1b}[2Jb", "port": 1}]),
            "`a\\u{1b}[2Jb` for a link",
        ),
        (
            json!([{"to": "proxy\n", "port": 1}]),
            "`proxy\\n` for a link",
        ),
    ] {
        let said = refused(vec![says(&host, "bad", &links)]);
        let begin = "policy `bad` denies link-container: its answer makes no sense: ";
        assert!(said.starts_with(begin) && said.contains(words), "{said}");
        assert!(said.len() < 600, "{said}");
    }
}

#[test]
fn a_port_below_1024_needs_nobody_s_privilege() {
    let host = Host::new().unwrap();
    let plugin = says(
        &host,
        "names",
        &json!([{"to": "proxy", "port": 5353, "local": 53}]),
    );
    assert_eq!(
        asked(vec![plugin]).result.unwrap(),
        [to_proxy(5353, 53, "policy names")]
    );
}

fn many(count: usize, peer: &str) -> Value {
    let link = |at: usize| json!({"to": peer, "port": 80, "local": 1 + at});
    (0..count).map(link).collect()
}

#[test]
fn ten_thousand_links_are_refused() {
    let host = Host::new().unwrap();
    let said = refused(vec![says(&host, "many", &many(10_000, "proxy"))]);
    let words = format!("10000 links: {MOST} are the most that a container may have");
    assert!(said.contains(&words), "{said}");
    // As many as are allowed, from each of two.
    let [one, two] = [0, MOST].map(|first| {
        let links = many(first + MOST, "proxy");
        says(&host, "half", &links.as_array().unwrap()[first..].into())
    });
    let denied = asked(vec![one.clone(), two]).result.unwrap_err();
    assert!(matches!(denied, Denied::Links(_)), "{denied}");
    assert!(
        denied
            .to_string()
            .contains("the most that a container may have"),
        "{denied}"
    );
    assert_eq!(asked(vec![one]).result.unwrap().len(), MOST);
}

#[test]
fn links_count_toward_what_a_call_may_hold_and_leave_a_bounded_line_in_the_record() {
    let host = Host::new().unwrap();
    let links = many(MOST, &"x".repeat(253));
    let act = json!({"links": links});
    let roomy = with(&host, "roomy", &act, |_| {});
    let outcome = asked(vec![roomy.clone()]);
    assert_eq!(outcome.result.unwrap().len(), MOST);
    let answer = &outcome.decisions[0].answer;
    assert!(
        answer.len() < 10_000 && answer.ends_with(" more"),
        "{answer}"
    );
    let without = roomy.ask(&common::pod(), &Question::ScopeSandbox).held;
    let held = outcome.held - without;
    assert!(held > MOST * 800, "{held} bytes more for links");
    // Just enough for its memories, and not for its links.
    let limit = u64::try_from(outcome.held - 1).unwrap();
    let plugin = with(&host, "narrow", &act, |config| config.memory = limit);
    let reply = plugin.ask(&common::pod(), &Question::LinkContainer(&agent()));
    let Err(Failure::OverLimit(limit)) = reply.answer else {
        panic!("{:?}", reply.answer);
    };
    assert!(limit.contains("more for a link"), "{limit}");
}

#[test]
fn whatever_goes_wrong_denies_unless_it_is_ignored_or_only_monitored() {
    let host = Host::new().unwrap();
    for (act, words) in [
        (json!({"fail": "trap"}), "it failed"),
        (json!({"fail": "recursion"}), "it failed"),
        (json!({"fail": "memory"}), "the memory limit"),
        (json!({"deny": "not today"}), "link-container: not today"),
    ] {
        let said = refused(vec![with(&host, "bad", &act, |_| {})]);
        assert!(said.contains(words), "{said}");
        let monitor = with(&host, "bad", &act, |config| config.mode = Mode::Monitor);
        let outcome = asked(vec![monitor]);
        assert!(outcome.decisions[0].denied && !outcome.decisions[0].counted);
        assert_eq!(outcome.result.unwrap(), []);
    }
    let act = json!({"links": [{"to": "proxy", "port": 8080}]});
    let monitor = with(&host, "watch", &act, |config| config.mode = Mode::Monitor);
    let outcome = asked(vec![monitor]);
    assert_eq!(
        outcome.decisions[0].answer,
        "to tcp port 8080 of container proxy"
    );
    assert_eq!(outcome.result.unwrap(), [], "monitored only");
}
