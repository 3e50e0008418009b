//! The system call filter.
use std::path::Path;

use serde_json::{Value, json};

use super::Error;
use crate::manifest::SeccompProfile;

/// Names by condition: `[always]`, `[x86_64]`, `[CAP_…]`.
const ALLOWED: &str = include_str!("seccomp.txt");

/// AF_VSOCK reaches the hypervisor, past every network namespace.
const VSOCK: u64 = 40;

/// The personalities that change nothing a container could use against the node: PER_LINUX,
/// PER_LINUX32, each with UNAME26, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// clone(2)'s flags that make namespaces.
const CLONE_NEW: u64 = 0x7e02_0000;

/// ENOSYS: libraries then use clone, whose flags a filter can see.
const NO_SUCH_CALL: u32 = 38;

/// The profile as the spec has it; null for none.
pub(super) fn profile(profile: &SeccompProfile, capabilities: &[String]) -> Result<Value, Error> {
    match profile {
        SeccompProfile::Unconfined => Ok(Value::Null),
        SeccompProfile::RuntimeDefault => Ok(runtime_default(capabilities)),
        SeccompProfile::Localhost(path) => localhost(path),
    }
}

fn localhost(path: &Path) -> Result<Value, Error> {
    let failed = |problem: String| Error::Seccomp {
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let profile: oci_spec::runtime::LinuxSeccomp =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok(serde_json::to_value(profile)?)
}

fn runtime_default(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let names: Vec<_> = allowed(|condition| {
        condition == "always" || condition == std::env::consts::ARCH || has(condition)
    })
    .collect();
    let mut calls = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        when("socket", VSOCK, "SCMP_CMP_NE"),
    ];
    calls.extend(PERSONALITIES.map(|value| when("personality", value, "SCMP_CMP_EQ")));
    if !has("CAP_SYS_ADMIN") {
        calls.push(when("clone", CLONE_NEW, "SCMP_CMP_MASKED_EQ"));
        calls.push(json!({
            "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NO_SUCH_CALL,
        }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": architectures(),
        "syscalls": calls,
    })
}

/// One call, allowed when its first argument compares to `value`; with a mask, when none of its
/// bits is set.
fn when(name: &str, value: u64, comparison: &str) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "valueTwo": 0, "op": comparison}],
    })
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

/// The names in the sections whose condition holds.
fn allowed(holds: impl Fn(&str) -> bool) -> impl Iterator<Item = &'static str> {
    let mut held = false;
    ALLOWED.lines().filter(move |line| {
        if let Some(condition) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            held = holds(condition);
            return false;
        }
        held && !line.is_empty() && !line.starts_with('#')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(capabilities: &[&str]) -> String {
        let capabilities: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
        runtime_default(&capabilities)["syscalls"][0]["names"].to_string()
    }

    #[test]
    fn capabilities_widen_the_filter() {
        assert!(names(&[]).contains("\"openat\""));
        assert!(!names(&[]).contains("\"mount\""));
        assert!(names(&["CAP_SYS_ADMIN"]).contains("\"mount\""));
        assert!(!names(&[]).contains("\"chroot\""));
        assert!(names(&["CAP_SYS_CHROOT"]).contains("\"chroot\""));
    }

    #[test]
    fn a_bad_local_profile_is_named() {
        let error = localhost(Path::new("/nonexistent/profile.json"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/profile.json"), "{error}");
    }
}
