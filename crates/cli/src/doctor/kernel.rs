//! What the kernel has, and how it was booted.
use std::fs;
use std::path::Path;

use husk_scope::Kind;
use nix::sys::utsname::uname;

use super::Finding;

/// Where each thing that husk cannot do without came last: mount_setattr(2).
const OLDEST: (u32, u32) = (5, 12);
/// The controllers that a pod's limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const CGROUP: &str = "/sys/fs/cgroup";

pub(super) fn findings() -> Vec<Finding> {
    vec![
        release(),
        namespaces(),
        user_namespaces(),
        seccomp(),
        security_modules(),
        cgroups(),
    ]
}

fn release() -> Finding {
    let found = uname().map_or_else(
        |_| String::new(),
        |it| it.release().to_string_lossy().into_owned(),
    );
    let mut numbers = found.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    let version: Option<(u32, u32)> = (|| Some((next()?, next()?)))();
    match version {
        Some(version) if version >= OLDEST => Finding::ok("kernel", found),
        _ => Finding::error(
            "kernel",
            found,
            format!(
                "husk needs mount_setattr(2): boot Linux {}.{} or newer",
                OLDEST.0, OLDEST.1
            ),
        ),
    }
}

fn namespaces() -> Finding {
    let missing: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind.proc_name()).exists())
        .map(|kind| kind.to_string())
        .collect();
    if missing.is_empty() {
        return Finding::ok("namespaces", "all eight kinds");
    }
    let fix = "pods that ask for these are refused: boot a kernel that has them";
    Finding::warning("namespaces", format!("without {}", missing.join(", ")), fix)
}

fn user_namespaces() -> Finding {
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    match most.as_deref().map(str::trim) {
        Ok("0") | Err(_) => Finding::warning(
            "user ids",
            "no user namespaces may be made",
            "containers cannot have ids of their own: sysctl user.max_user_namespaces=15000",
        ),
        Ok(most) => Finding::ok("user ids", format!("up to {most} user namespaces")),
    }
}

fn seccomp() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("user_notif") => {
            Finding::ok("seccomp", "filters and listeners")
        }
        Ok(_) => Finding::warning(
            "seccomp",
            "filters, no listeners",
            "profiles with SCMP_ACT_NOTIFY are refused: boot Linux 5.0 or newer",
        ),
        Err(_) => Finding::error(
            "seccomp",
            "the kernel has none",
            "every pod of Kubernetes asks for a profile: boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn security_modules() -> Finding {
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let has = |name| list.split(',').any(|it| it.trim() == name);
    let enforcing = fs::read_to_string("/sys/fs/selinux/enforce");
    let found = match (has("apparmor"), enforcing.as_deref().map(str::trim)) {
        (true, _) => "AppArmor",
        (_, Ok("1")) => "SELinux, enforcing",
        (_, Ok(_)) => "SELinux, permissive",
        _ => "neither AppArmor nor SELinux: pods that name a profile or a label are refused",
    };
    Finding::ok("confinement", found)
}

fn cgroups() -> Finding {
    let driver = if Path::new("/run/systemd/system").exists() {
        "systemd runs: set SystemdCgroup where the kubelet's cgroupDriver is systemd"
    } else {
        "no systemd: the kubelet's cgroupDriver is to be cgroupfs"
    };
    let Ok(controllers) = fs::read_to_string(format!("{CGROUP}/cgroup.controllers")) else {
        let missing: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|it| !Path::new(CGROUP).join(it).exists())
            .collect();
        if missing.is_empty() {
            return Finding::warning(
                "cgroups",
                format!("v1; {driver}"),
                "containers cannot be given their cgroup to manage, and Kubernetes has given v1 up: boot \
                 with systemd.unified_cgroup_hierarchy=1",
            );
        }
        return Finding::error(
            "cgroups",
            format!("without {} below {CGROUP}", missing.join(", ")),
            "mount cgroup v2 there, or the controllers of v1",
        );
    };
    let missing: Vec<_> = CONTROLLERS
        .into_iter()
        .filter(|it| !controllers.split_whitespace().any(|has| has == *it))
        .collect();
    if missing.is_empty() {
        return Finding::ok("cgroups", format!("v2; {driver}"));
    }
    Finding::error(
        "cgroups",
        format!("v2 without {}", missing.join(", ")),
        "limits need them: the kernel may have been booted with cgroup_disable, or they are mounted as v1",
    )
}
