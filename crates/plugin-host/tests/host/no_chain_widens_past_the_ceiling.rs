//! Whatever plugins assign, together or against each other: nothing gets wider than the handler's
//! ceiling, and two scopes for one namespace of one subject are refused, with both plugins named.
//!
//! The plugin is a real component, `plugins/says`, which assigns what its settings say.
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use husk_plugin_host::{Chain, Denied, Host, Plugin, decide};
use husk_scope::config::{Config, Mode};
use husk_scope::{Kind, Scope, Scopes, Width};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use wasmtime::component::Component;

use crate::common;

/// What one plugin assigns to the sandbox, to a container, and whether that counts.
#[derive(Clone, Debug)]
struct Says {
    sandbox: BTreeMap<Kind, Scope>,
    container: BTreeMap<Kind, Scope>,
    mode: Mode,
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => Just(Scope::Container),
        3 => Just(Scope::Pod),
        2 => Just(Scope::Node),
        1 => select(vec!["app", "gone"]).prop_map(|name| Scope::Target(name.into())),
        1 => Just(Scope::Group("pair".into())),
    ]
}

/// Few enough that several plugins often leave each other alone, and sometimes do not.
fn assignments() -> impl Strategy<Value = BTreeMap<Kind, Scope>> {
    btree_map(select(Kind::ALL.to_vec()), scope(), 0..3)
}

fn says() -> impl Strategy<Value = Says> {
    let mode = prop_oneof![5 => Just(Mode::Enforce), 1 => Just(Mode::Monitor)];
    (assignments(), assignments(), mode).prop_map(|(sandbox, container, mode)| Says {
        sandbox,
        container,
        mode,
    })
}

fn scopes() -> impl Strategy<Value = Scopes> {
    vec(scope(), Kind::ALL.len()).prop_map(|found| {
        let mut scopes = Scopes::all(&Scope::Node);
        for (kind, scope) in Kind::ALL.into_iter().zip(found) {
            scopes[kind] = scope;
        }
        // What containerd asks of these is always the same.
        scopes[Kind::Mount] = Scope::Container;
        scopes[Kind::User] = Scope::Node;
        scopes
    })
}

/// A handler's configuration with this ceiling, by way of its text.
fn config() -> impl Strategy<Value = Config> {
    let width = select(vec!["container", "group", "pod", "node"]);
    btree_map(select(Kind::ALL.to_vec()), (width, any::<bool>()), 0..8).prop_map(|limits| {
        let mut text = "[ceiling]\n".to_owned();
        let mut bound = Vec::new();
        for (kind, (width, requests)) in limits {
            text += &format!("{kind} = '{width}'\n");
            if requests {
                bound.push(format!("'{kind}'"));
            }
        }
        text += &format!("requests = [{}]\n", bound.join(", "));
        Config::parse("config.toml", &text).unwrap()
    })
}

fn json(assigned: &BTreeMap<Kind, Scope>) -> serde_json::Value {
    let word = |scope: &Scope| match scope {
        Scope::Target(name) => format!("target:{name}"),
        Scope::Group(name) => format!("group:{name}"),
        plain => plain.to_string().to_lowercase(),
    };
    let words = assigned.iter();
    words
        .map(|(kind, scope)| (kind.to_string(), serde_json::Value::from(word(scope))))
        .collect()
}

fn chain(said: &[Says]) -> Chain {
    static COMPONENT: OnceLock<(Host, Component, String)> = OnceLock::new();
    let (host, component, digest) = COMPONENT.get_or_init(|| {
        let host = Host::new().unwrap();
        let (component, digest) = common::built(&host, "says");
        (host, component, digest)
    });
    let plugin = |(number, says): (usize, &Says)| {
        let settings = serde_json::json!({
            "scope-sandbox": { "scopes": json(&says.sandbox) },
            "scope-container": { "scopes": json(&says.container) },
        });
        let mut settings = common::settings_with(&format!("p{number}"), &settings.to_string());
        settings.config.mode = says.mode;
        Plugin::new(host, component, digest, settings).unwrap()
    };
    Chain::new(said.iter().enumerate().map(plugin).collect())
}

/// The first two plugins that assign different scopes to one kind, in the order in which the chain
/// finds them.
fn conflict(said: &[&BTreeMap<Kind, Scope>]) -> bool {
    Kind::ALL.into_iter().any(|kind| {
        let mut assigned = said.iter().filter_map(|assigned| assigned.get(&kind));
        let first = assigned.next();
        assigned.any(|other| Some(other) != first)
    })
}

fn counted<'a>(
    said: &'a [Says],
    of: impl Fn(&'a Says) -> &'a BTreeMap<Kind, Scope>,
) -> Vec<&'a BTreeMap<Kind, Scope>> {
    let enforced = said.iter().filter(|says| says.mode == Mode::Enforce);
    enforced.map(of).collect()
}

fn is_below(ceiling: Option<Width>, scope: &Scope) -> bool {
    ceiling.is_none_or(|widest| scope.width() <= widest)
}

/// Both plugins, by name, and both scopes.
fn names_both(denied: &Denied) -> bool {
    let Denied::Conflict {
        first,
        second,
        first_scope,
        second_scope,
        ..
    } = denied
    else {
        return false;
    };
    let text = denied.to_string();
    let words = [
        first.clone(),
        second.clone(),
        first_scope.to_string(),
        second_scope.to_string(),
    ];
    first != second && first_scope != second_scope && words.iter().all(|word| text.contains(word))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_container_stays_below_the_ceiling(
        said in vec(says(), 1..4),
        requested in scopes(),
        config in config(),
    ) {
        let mut container = common::container();
        container.requested = requested.clone();
        let outcome = chain(&said).scopes(&common::pod(), Some(&container));
        let counted = counted(&said, |says| &says.container);
        match outcome.result {
            Err(denied) => {
                prop_assert!(conflict(&counted), "{denied}");
                prop_assert!(names_both(&denied), "{denied}");
            }
            Ok(assigned) => {
                prop_assert!(!conflict(&counted));
                let planned =
                    decide::container_plan(&config, "app", &requested, assigned, Vec::new());
                if let Ok(plan) = planned {
                    for (kind, planned) in plan.iter() {
                        let ceiling = config.ceiling.widest(kind);
                        prop_assert!(
                            !planned.is_assigned() || is_below(ceiling, &planned.scope),
                            "{kind}: {planned:?} above {ceiling:?}"
                        );
                        let wanted = counted.iter().find_map(|assigned| assigned.get(&kind));
                        prop_assert_eq!(wanted.unwrap_or(&requested[kind]), &planned.scope);
                    }
                } else {
                    let nothing_counts = counted.iter().all(|assigned| assigned.is_empty());
                    let bare = husk_scope::Plan::new(&requested, &[], &config.ceiling);
                    prop_assert!(!nothing_counts || bare.is_err());
                }
            }
        }
    }

    #[test]
    fn a_sandbox_stays_below_the_ceiling(
        said in vec(says(), 1..4),
        network in any::<bool>(),
        ipc in any::<bool>(),
        pid in select(vec![Scope::Container, Scope::Pod, Scope::Node]),
        config in config(),
    ) {
        let requested = decide::sandbox_requested(network, ipc, false, pid);
        let mut pod = (*common::pod()).clone();
        pod.requested = requested.clone();
        let outcome = chain(&said).scopes(&Arc::new(pod), None);
        let counted = counted(&said, |says| &says.sandbox);
        match outcome.result {
            Err(denied) => prop_assert!(conflict(&counted) && names_both(&denied), "{denied}"),
            Ok(assigned) => {
                prop_assert!(!conflict(&counted));
                if let Ok(plan) = decide::sandbox_plan(&config, &requested, &assigned) {
                    for (kind, planned) in plan.iter() {
                        let ceiling = config.ceiling.widest(kind);
                        prop_assert!(
                            !planned.is_assigned() || is_below(ceiling, &planned.scope),
                            "{kind}: {planned:?} above {ceiling:?}"
                        );
                        let is_sandboxs = matches!(planned.scope, Scope::Pod | Scope::Node);
                        prop_assert!(is_sandboxs || !planned.is_changed());
                    }
                }
            }
        }
    }
}
