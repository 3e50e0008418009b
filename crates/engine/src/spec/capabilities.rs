//! Linux capabilities.
use super::Error;
use crate::manifest::Security;

/// What a container gets that asks for nothing: the set of containerd and Docker.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability, by number: capabilities(7), Linux 5.9.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities of a container, in the kernel's order and with `CAP_`. Of `add` and `drop`
/// the named one outranks `ALL`, as in CRI.
pub(super) fn granted(security: &Security) -> Result<Vec<String>, Error> {
    let (add, drop) = (&security.capabilities.add, &security.capabilities.drop);
    let unknown = |name: &&String| *name != "ALL" && !ALL.contains(&name.as_str());
    if let Some(name) = add.iter().chain(drop).find(unknown) {
        return Err(Error::NoSuchCapability(name.clone()));
    }
    let named = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
    let granted = available().filter(|name| {
        if security.privileged || named(add, name) && !named(drop, name) {
            return true;
        }
        let wide = named(add, "ALL") || DEFAULT.contains(name) && !named(drop, "ALL");
        wide && !named(drop, name)
    });
    Ok(granted.map(|name| format!("CAP_{name}")).collect())
}

/// What this process may grant: a privileged container gets no more than the engine has, since
/// the kernel refuses the rest.
fn available() -> impl Iterator<Item = &'static str> {
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = own
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    ALL.into_iter()
        .enumerate()
        .filter(move |(bit, _)| bounding >> bit & 1 == 1)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Capabilities;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let capabilities = Capabilities {
            add: strings(add),
            drop: strings(drop),
        };
        granted(&Security {
            capabilities,
            ..Security::default()
        })
        .unwrap()
    }

    #[test]
    fn add_and_drop() {
        assert_eq!(set(&[], &["ALL"]), Vec::<String>::new());
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert!(!set(&[], &["CHOWN"]).contains(&String::from("CAP_CHOWN")));
        assert!(!set(&["ALL"], &["NET_ADMIN"]).contains(&String::from("CAP_NET_ADMIN")));
        assert_eq!(set(&[], &[]).len(), DEFAULT.len());
    }

    #[test]
    fn an_unknown_one_is_refused() {
        let capabilities = Capabilities {
            add: vec!["FLY".into()],
            drop: vec![],
        };
        let security = Security {
            capabilities,
            ..Security::default()
        };
        assert!(granted(&security).unwrap_err().to_string().contains("FLY"));
    }
}
