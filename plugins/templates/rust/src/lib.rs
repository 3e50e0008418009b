//! The container `agent` gets a network of its own.
use husk_plugin::{Answer, Kind, Policy, Scope, assign, container};

struct MyPolicy;

impl Policy for MyPolicy {
    fn scope_container() -> Answer {
        match container::name().as_str() {
            "agent" => Ok(vec![assign(Kind::Network, Scope::Container)]),
            _ => Ok(vec![]),
        }
    }
}

husk_plugin::policy!(MyPolicy);
