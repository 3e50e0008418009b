//! What follows from a rule that holds.
use husk_plugin::{Assignment, Denial, Kind, Scope, deny, edit};

use crate::settings::Rule;

/// The words for the kinds of namespace.
pub(crate) const KINDS: [(&str, Kind); 8] = [
    ("network", Kind::Network),
    ("pid", Kind::Pid),
    ("ipc", Kind::Ipc),
    ("uts", Kind::Uts),
    ("user", Kind::User),
    ("mount", Kind::Mount),
    ("cgroup", Kind::Cgroup),
    ("time", Kind::Time),
];

/// The scopes that a rule gives.
pub(crate) fn assignments(rule: &Rule) -> Result<Vec<Assignment>, Denial> {
    let assignment = |(kind, word): (&String, &String)| {
        let known = KINDS.iter().find(|(name, _)| name == kind);
        let (_, kind) = known.ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            deny(format!(
                "scopes: there is no namespace `{kind}`; there are {}",
                names.join(", ")
            ))
        })?;
        Ok(husk_plugin::assign(*kind, scope(word)?))
    };
    rule.scopes.iter().map(assignment).collect()
}

fn scope(word: &str) -> Result<Scope, Denial> {
    Ok(match word.split_once(':') {
        None if word == "container" => Scope::Container,
        None if word == "pod" => Scope::Pod,
        None if word == "node" => Scope::Node,
        Some(("target", name)) => Scope::Target(name.to_owned()),
        Some(("group", name)) => Scope::Group(name.to_owned()),
        _ => {
            return Err(deny(format!(
                "scopes: `{word}` is not a scope: container, pod, node, target:NAME or group:NAME"
            )));
        }
    })
}

/// A scope, as a configuration writes it.
pub(crate) fn word(scope: &Scope) -> String {
    match scope {
        Scope::Container => "container".to_owned(),
        Scope::Pod => "pod".to_owned(),
        Scope::Node => "node".to_owned(),
        Scope::Target(name) => format!("target:{name}"),
        Scope::Group(name) => format!("group:{name}"),
    }
}

/// Changes the container that is about to be made.
pub(crate) fn change(rule: &Rule) -> Result<(), Denial> {
    let Some(change) = &rule.change else {
        return Ok(());
    };
    for (name, value) in &change.env {
        edit::set_env(name, value);
    }
    for name in &change.drop_capabilities {
        // As Kubernetes and as capabilities(7) write them.
        match name.starts_with("CAP_") {
            true => edit::drop_capability(name),
            false => edit::drop_capability(&format!("CAP_{name}")),
        }
    }
    if change.no_new_privileges {
        edit::set_no_new_privileges();
    }
    if let Some(profile) = &change.seccomp_profile {
        edit::set_seccomp_profile(profile);
    }
    if let Some(bytes) = change.memory_limit {
        edit::set_memory_limit(bytes);
    }
    if let Some(thousandths) = change.cpu_limit {
        edit::set_cpu_limit(thousandths);
    }
    if let Some(count) = change.pids_limit {
        edit::set_pids_limit(count);
    }
    for path in &change.mask_paths {
        edit::mask_path(path);
    }
    for path in &change.read_only_paths {
        edit::make_path_read_only(path);
    }
    for (key, value) in &change.annotations {
        edit::set_annotation(key, value);
    }
    Ok(())
}
