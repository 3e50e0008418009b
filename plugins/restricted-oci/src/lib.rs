//! Refuses what the Restricted Pod Security Standard forbids, as far as an OCI spec shows it.
use husk_plugin::{Configurable, Hooks, Verdict};
use pod_security::{Level, Settings, judge_container, judge_exec, judge_sandbox};

struct RestrictedOci;

impl Hooks for RestrictedOci {
    fn sandbox_starting() -> Verdict {
        judge_sandbox(Level::Restricted)
    }

    fn container_creating() -> Verdict {
        judge_container(Level::Restricted)
    }

    fn exec_starting() -> Verdict {
        judge_exec(Level::Restricted)
    }
}

impl Configurable for RestrictedOci {
    fn validate_settings(settings: String) -> Result<(), String> {
        Settings::parse(&settings).map(drop)
    }
}

husk_plugin::hooks!(RestrictedOci);
husk_plugin::configurable!(RestrictedOci);
