//! Chosen containers of a pod see each other's processes; the others do not.
use std::collections::BTreeMap;

use husk_plugin::{Answer, Configurable, Kind, Policy, Scope, assign, container};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The names of the containers of each group.
    groups: BTreeMap<String, Vec<String>>,
}

impl Settings {
    /// The group of a container, if it is in one.
    fn group_of(&self, container: &str) -> Option<&str> {
        self.groups_of(container).next()
    }

    fn groups_of(&self, container: &str) -> impl Iterator<Item = &str> {
        self.groups
            .iter()
            .filter(move |(_, containers)| containers.iter().any(|name| name == container))
            .map(|(group, _)| group.as_str())
    }

    /// A group has a name that husk takes; a container has one pid namespace, so it is in one group.
    fn check(&self) -> Result<(), String> {
        if let Some(group) = self.groups.keys().find(|group| !is_name(group)) {
            return Err(format!(
                "groups: `{group}` is not a name: use 1 to 253 letters, digits, `-`, `_` and `.`, and \
                 no `.` first"
            ));
        }
        for container in self.groups.values().flatten() {
            let mut groups = self.groups_of(container);
            if let (Some(first), Some(second)) = (groups.next(), groups.next()) {
                return Err(format!(
                    "groups: `{container}` is in `{first}` and in `{second}`; a container has one pid \
                     namespace, so name it once"
                ));
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.')
}

struct PidGroup;

impl Policy for PidGroup {
    fn scope_container() -> Answer {
        let settings: Settings = husk_plugin::settings()?;
        let group = settings.group_of(&container::name());
        Ok(group
            .map(|group| assign(Kind::Pid, Scope::Group(group.to_owned())))
            .into_iter()
            .collect())
    }
}

impl Configurable for PidGroup {
    fn validate_settings(settings: String) -> Result<(), String> {
        husk_plugin::parse_settings::<Settings>(&settings)?.check()
    }
}

husk_plugin::policy!(PidGroup);
husk_plugin::configurable!(PidGroup);
