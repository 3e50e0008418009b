//! Named containers get a network of their own; the rest share the pod's.
use husk_plugin::{Answer, Kind, Policy, Scope, assign, container};

struct Isolate;

impl Policy for Isolate {
    fn scope_container() -> Answer {
        match container::name().as_str() {
            "agent" => Ok(vec![assign(Kind::Network, Scope::Container)]),
            _ => Ok(vec![]),
        }
    }
}

husk_plugin::policy!(Isolate);
