//! The controls of the standards, one function each.
use husk_plugin::{Assignment, Kind, Mount, Scope, scope_of};

use crate::settings::Settings;
use crate::{Facts, Rights};

/// What Baseline lets a pod add, and what containerd gives without being asked: NET_RAW, which
/// Baseline does not list, is among these, and a spec does not tell the two apart.
const BASELINE_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const RESTRICTED_CAPABILITIES: [&str; 1] = ["CAP_NET_BIND_SERVICE"];

/// Sysctls that are confined to the pod's own namespaces.
const SAFE_SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// SELinux types that confine a container.
const SELINUX_TYPES: [&str; 4] = [
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// A path that every default of `procMount` masks.
const MASKED: &str = "/proc/kcore";

/// What Baseline forbids of a container.
pub(crate) fn baseline(facts: &Facts, settings: &Settings) -> Vec<String> {
    let mut violations = host_namespaces(&facts.requested);
    if facts.privileged {
        violations.push("it is privileged".to_owned());
    }
    violations.extend(baseline_rights(&facts.rights));
    violations.extend(host_paths(facts, settings));
    if facts.apparmor_profile == "unconfined" {
        violations.push("its AppArmor profile is unconfined".to_owned());
    }
    violations.extend(selinux(&facts.selinux_label));
    if !facts.masked_paths.iter().any(|path| path == MASKED) {
        violations.push(format!("{MASKED} is not masked (procMount)"));
    }
    violations.extend(sysctls(&facts.sysctls));
    violations
}

/// What Restricted forbids beyond Baseline.
pub(crate) fn restricted(facts: &Facts) -> Vec<String> {
    let mut violations = restricted_rights(&facts.rights);
    if !facts.seccomp {
        violations.push("it has no seccomp profile".to_owned());
    }
    violations
}

/// Baseline: Host Namespaces.
pub(crate) fn host_namespaces(requested: &[Assignment]) -> Vec<String> {
    [
        (Kind::Network, "hostNetwork"),
        (Kind::Pid, "hostPID"),
        (Kind::Ipc, "hostIPC"),
    ]
    .into_iter()
    .filter(|(kind, _)| scope_of(requested, *kind) == Some(&Scope::Node))
    .map(|(_, field)| format!("it asks for {field}"))
    .collect()
}

/// Baseline: Capabilities.
pub(crate) fn baseline_rights(rights: &Rights) -> Vec<String> {
    beyond(&rights.capabilities, &BASELINE_CAPABILITIES)
}

/// Restricted: Capabilities, Privilege Escalation, Running as Non-root.
pub(crate) fn restricted_rights(rights: &Rights) -> Vec<String> {
    let mut violations = beyond(&rights.capabilities, &RESTRICTED_CAPABILITIES);
    if !rights.no_new_privileges {
        violations.push("it may gain privileges (allowPrivilegeEscalation)".to_owned());
    }
    if rights.uid == 0 {
        violations.push("it runs as root".to_owned());
    }
    violations
}

fn beyond(capabilities: &[String], allowed: &[&str]) -> Vec<String> {
    let beyond: Vec<&str> = capabilities
        .iter()
        .map(String::as_str)
        .filter(|capability| !allowed.contains(capability))
        .collect();
    match beyond.is_empty() {
        true => vec![],
        false => vec![format!("it has the capabilities {}", beyond.join(", "))],
    }
}

/// Baseline: HostPath Volumes. A bind mount is one unless its source is of this pod.
fn host_paths(facts: &Facts, settings: &Settings) -> Vec<String> {
    let kubelet = format!("{}/pods/{}", settings.kubelet_root, facts.pod_uid);
    let sandboxes: Vec<String> = settings
        .sandbox_roots
        .iter()
        .map(|root| format!("{root}/{}", facts.sandbox_id))
        .collect();
    let of_the_pod = |source: &str| {
        // `..` could lead out of any directory.
        !source.split('/').any(|part| part == "..")
            && ((!facts.pod_uid.is_empty() && is_below(source, &kubelet))
                || sandboxes
                    .iter()
                    .chain(&settings.allowed_sources)
                    .any(|root| is_below(source, root)))
    };
    facts
        .mounts
        .iter()
        .filter(|mount| is_bind(mount) && !of_the_pod(&mount.source))
        .map(|mount| format!("it mounts {} of the node (hostPath)", mount.source))
        .collect()
}

fn is_bind(mount: &Mount) -> bool {
    let named = |option: &String| option == "bind" || option == "rbind";
    mount.kind == "bind" || mount.options.iter().any(named)
}

fn is_below(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Baseline: SELinux. A label is `user:role:type:level`.
fn selinux(label: &str) -> Option<String> {
    let mut parts = label.split(':');
    let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let confined = user == "system_u" && role == "system_r" && SELINUX_TYPES.contains(&kind);
    (!confined).then(|| format!("its SELinux label is {label}"))
}

/// Baseline: Sysctls.
fn sysctls(names: &[String]) -> Vec<String> {
    names
        .iter()
        .filter(|name| !SAFE_SYSCTLS.contains(&name.as_str()))
        .map(|name| format!("it sets the sysctl {name}"))
        .collect()
}
