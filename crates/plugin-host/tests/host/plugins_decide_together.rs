//! A chain asks in order, merges what agrees and denies what conflicts.
use husk_plugin_host::{Chain, Denied, Host};
use husk_scope::{Assignment, Kind, Scope};

use crate::common;

const NETWORK: u8 = 0;
const UTS: u8 = 3;
const CONTAINER: u8 = 0;
const NODE: u8 = 2;
const GROUP: u8 = 4;

fn chain(host: &Host, plugins: &[(&str, Vec<u8>)]) -> Chain {
    let load = |(name, component): &(&str, Vec<u8>)| {
        common::load(host, component, common::settings(name)).unwrap()
    };
    Chain::new(plugins.iter().map(load).collect())
}

#[test]
fn assignments_of_several_plugins_are_merged() {
    let host = Host::new().unwrap();
    let chain = chain(
        &host,
        &[
            ("isolate", common::assigns(NETWORK, CONTAINER)),
            ("again", common::assigns(NETWORK, CONTAINER)),
            ("names", common::assigns(UTS, GROUP)),
        ],
    );
    let outcome = chain.scopes(&common::pod(), Some(&common::container()));
    assert_eq!(
        outcome.result.unwrap(),
        [
            Assignment {
                kind: Kind::Network,
                scope: Scope::Container,
                by: "policy isolate".into()
            },
            Assignment {
                kind: Kind::Uts,
                scope: Scope::Group("web".into()),
                by: "policy names".into()
            },
        ]
    );
    assert_eq!(outcome.decisions.len(), 3);
    assert_eq!(outcome.decisions[0].answer, "network=CONTAINER");
}

#[test]
fn two_scopes_for_one_namespace_conflict() {
    let host = Host::new().unwrap();
    let chain = chain(
        &host,
        &[
            ("isolate", common::assigns(NETWORK, CONTAINER)),
            ("open", common::assigns(NETWORK, NODE)),
        ],
    );
    let denied = chain
        .scopes(&common::pod(), Some(&common::container()))
        .result
        .unwrap_err();
    assert!(matches!(
        denied,
        Denied::Conflict {
            kind: Kind::Network,
            ..
        }
    ));
    let text = denied.to_string();
    for word in ["isolate", "open", "CONTAINER", "NODE"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_denial_ends_the_chain_and_carries_its_reason() {
    let host = Host::new().unwrap();
    let chain = chain(
        &host,
        &[
            ("gate", common::denies("no host namespaces here")),
            ("never", common::policy("", "(unreachable)")),
        ],
    );
    let outcome = chain.scopes(&common::pod(), None);
    assert_eq!(
        outcome.result.unwrap_err().to_string(),
        "policy `gate` denies scope-sandbox: no host namespaces here"
    );
    assert_eq!(
        outcome.decisions.len(),
        1,
        "the second plugin was not asked"
    );
}

#[test]
fn the_same_input_has_the_same_digest_and_answer() {
    let host = Host::new().unwrap();
    let chain = chain(&host, &[("isolate", common::assigns(NETWORK, CONTAINER))]);
    let first = chain
        .scopes(&common::pod(), Some(&common::container()))
        .decisions;
    let second = chain
        .scopes(&common::pod(), Some(&common::container()))
        .decisions;
    assert_eq!(
        (&first[0].input, &first[0].answer),
        (&second[0].input, &second[0].answer)
    );

    let mut other = common::container();
    other.name = "sidecar".into();
    other.id = "c2".into();
    let third = chain.scopes(&common::pod(), Some(&other)).decisions;
    assert_ne!(first[0].input, third[0].input);
}
