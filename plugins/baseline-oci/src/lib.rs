//! Refuses what the Baseline Pod Security Standard forbids, as far as an OCI spec shows it.
use husk_plugin::{Configurable, Hooks, Verdict};
use pod_security::{Level, Settings, judge_container, judge_exec, judge_sandbox};

struct BaselineOci;

impl Hooks for BaselineOci {
    fn sandbox_starting() -> Verdict {
        judge_sandbox(Level::Baseline)
    }

    fn container_creating() -> Verdict {
        judge_container(Level::Baseline)
    }

    fn exec_starting() -> Verdict {
        judge_exec(Level::Baseline)
    }
}

impl Configurable for BaselineOci {
    fn validate_settings(settings: String) -> Result<(), String> {
        Settings::parse(&settings).map(drop)
    }
}

husk_plugin::hooks!(BaselineOci);
husk_plugin::configurable!(BaselineOci);
