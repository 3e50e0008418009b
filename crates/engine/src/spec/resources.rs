//! Limits of a container's cgroup.
use serde_json::{Value, json};

use super::devices;
use crate::cgroup::{PERIOD, quota};
use crate::manifest::Resources;

/// The kernel's smallest CPU share, cgroup v1's cpu.shares; what Kubernetes gives a container that
/// requests no CPU.
pub(super) const FEWEST_SHARES: u64 = 2;

/// What one core is in shares.
const SHARES_PER_CORE: u64 = 1024;

/// The kernel's largest share.
const MOST_SHARES: u64 = 1 << 18;

pub(super) fn resources(resources: Resources, privileged: bool) -> Value {
    let mut cpu = json!({"shares": shares(resources)});
    if let (Some(limit), Some(cpu)) = (resources.cpu_limit, cpu.as_object_mut()) {
        cpu.insert("quota".into(), quota(limit).into());
        cpu.insert("period".into(), PERIOD.into());
    }
    let mut all = json!({"cpu": cpu, "devices": devices::rules(privileged)});
    if let (Some(limit), Some(all)) = (resources.memory_limit, all.as_object_mut()) {
        all.insert("memory".into(), json!({"limit": limit}));
    }
    all
}

/// A limit without a request is a request too, as in Kubernetes.
fn shares(resources: Resources) -> u64 {
    let request = resources
        .cpu_request
        .or(resources.cpu_limit)
        .unwrap_or_default();
    let cores = u128::from(request) * u128::from(SHARES_PER_CORE) / 1000;
    u64::try_from(cores)
        .unwrap_or(MOST_SHARES)
        .clamp(FEWEST_SHARES, MOST_SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_and_shares() {
        let half = Resources {
            cpu_limit: Some(500),
            memory_limit: Some(1 << 20),
            cpu_request: None,
        };
        let written = resources(half, false);
        assert_eq!(
            written["cpu"],
            json!({"shares": 512, "quota": 50_000, "period": 100_000})
        );
        assert_eq!(written["memory"]["limit"], 1 << 20);
        let all = Resources {
            cpu_limit: Some(u64::MAX),
            ..half
        };
        let written = resources(all, false);
        assert_eq!(
            written["cpu"],
            json!({"shares": 1 << 18, "quota": (1_u64 << 44) - 1, "period": 100_000})
        );
        let none = resources(Resources::default(), false);
        assert_eq!(none["cpu"], json!({"shares": 2}));
        assert!(none.get("memory").is_none());
    }
}
