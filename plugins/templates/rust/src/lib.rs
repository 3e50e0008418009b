//! The container `agent` gets a network of its own; pods that ask for the node's processes are refused.
use husk_plugin::{Answer, Kind, Policy, Scope, assign, container, deny, pod, scope_of};

struct MyPolicy;

impl Policy for MyPolicy {
    fn scope_sandbox() -> Answer {
        if scope_of(&pod::requested_scopes(), Kind::Pid) == Some(&Scope::Node) {
            // A refusal; the reason reaches whoever asked for the pod.
            let name = pod::name();
            return Err(deny(format!(
                "pod {name} would see the node's processes: leave out hostPID"
            )));
        }
        Ok(vec![])
    }

    fn scope_container() -> Answer {
        match container::name().as_str() {
            "agent" => Ok(vec![assign(Kind::Network, Scope::Container)]),
            _ => Ok(vec![]),
        }
    }
}

husk_plugin::policy!(MyPolicy);
