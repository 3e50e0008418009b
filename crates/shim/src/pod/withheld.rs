//! What plugins took from a container, and its execs must not get back.
use husk_plugin_host::adjust::without_capabilities;
use oci_spec::runtime::{Capability, Process, Spec};

/// The difference that plugins made. containerd knows nothing of it: an exec's process has the rights
/// of the container as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Withheld {
    capabilities: Vec<Capability>,
    new_privileges: bool,
}

impl Withheld {
    /// What the container has before and not after.
    pub(super) fn between(before: &Spec, after: &Spec) -> Self {
        let (had, has) = (bounding(before), bounding(after));
        Self {
            capabilities: had
                .into_iter()
                .filter(|capability| !has.contains(capability))
                .collect(),
            new_privileges: may_gain(before) && !may_gain(after),
        }
    }

    /// Takes it from an exec.
    pub(super) fn take_from(&self, process: &mut Process) {
        without_capabilities(process, &self.capabilities);
        if self.new_privileges {
            process.set_no_new_privileges(Some(true));
        }
    }
}

fn bounding(spec: &Spec) -> Vec<Capability> {
    let process = spec.process().as_ref();
    let sets = process.and_then(|process| process.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().as_ref());
    bounding.into_iter().flatten().copied().collect()
}

fn may_gain(spec: &Spec) -> bool {
    let process = spec.process().as_ref();
    !process.is_some_and(|process| process.no_new_privileges().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(capabilities: &str, no_new_privileges: bool) -> Spec {
        let text = format!(
            r#"{{"ociVersion": "1.2.0", "process": {{"cwd": "/", "user": {{"uid": 0, "gid": 0}},
                "noNewPrivileges": {no_new_privileges}, "capabilities":
                {{"bounding": {capabilities}, "effective": {capabilities}}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_exec_does_not_get_back_what_was_taken() {
        let asked = spec(r#"["CAP_KILL", "CAP_NET_RAW"]"#, false);
        let withheld = Withheld::between(&asked, &spec(r#"["CAP_KILL"]"#, true));
        // As `exec --privileged` asks for it.
        let mut exec = spec(r#"["CAP_SYS_ADMIN", "CAP_NET_RAW"]"#, false);
        let exec = exec.process_mut().as_mut().unwrap();
        withheld.take_from(exec);
        assert_eq!(exec.no_new_privileges(), Some(true));
        let sets = exec.capabilities().as_ref().unwrap();
        for set in [sets.bounding(), sets.effective()] {
            let left: Vec<_> = set.iter().flatten().collect();
            assert_eq!(left, [&Capability::SysAdmin]);
        }
    }

    #[test]
    fn where_nothing_was_taken_an_exec_is_what_was_asked_for() {
        let asked = spec(r#"["CAP_KILL"]"#, false);
        let withheld = Withheld::between(&asked, &asked);
        assert_eq!(withheld, Withheld::default());
        let mut exec = spec(r#"["CAP_KILL"]"#, false);
        withheld.take_from(exec.process_mut().as_mut().unwrap());
        assert_eq!(exec, asked);
    }
}
