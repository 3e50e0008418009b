//! The settings: a list of rules.
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::effects;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// In the order in which they are asked; their effects add up.
    pub(crate) rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rule {
    /// By which refusals and errors name it.
    pub(crate) name: String,
    /// What it is about.
    #[serde(default)]
    pub(crate) on: On,
    /// When it holds; always, if it does not say.
    #[serde(default = "always", rename = "if")]
    pub(crate) condition: String,
    /// Why it refuses, if it does.
    pub(crate) deny: Option<String>,
    /// Whose namespaces the container, or the sandbox, gets: kind to scope.
    #[serde(default)]
    pub(crate) scopes: BTreeMap<String, String>,
    /// What else changes in the container.
    pub(crate) change: Option<Change>,
}

fn always() -> String {
    "true".to_owned()
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum On {
    /// A pod, before anything of it exists.
    Sandbox,
    /// A container, before it exists.
    #[default]
    Container,
    /// A further process in a container.
    Exec,
    /// New limits for a container.
    Update,
}

/// Changes to a container, each a function of the interface `edit`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Change {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) drop_capabilities: Vec<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp_profile: Option<String>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu_limit: Option<u64>,
    pub(crate) pids_limit: Option<u64>,
    pub(crate) mask_paths: Vec<String>,
    pub(crate) read_only_paths: Vec<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Settings {
    /// Says what makes no sense about the rules but for their conditions.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for rule in &self.rules {
            if !names.insert(&rule.name) {
                return Err(format!("two rules have the name `{}`", rule.name));
            }
            rule.check()
                .map_err(|error| format!("rule {}: {error}", rule.name))?;
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.deny.is_none() && self.scopes.is_empty() && self.change.is_none() {
            return Err("it has no effect: set `deny`, `scopes` or `change`".to_owned());
        }
        if !self.scopes.is_empty() && !matches!(self.on, On::Sandbox | On::Container) {
            return Err("scopes are for `on = \"container\"` and `on = \"sandbox\"`".to_owned());
        }
        if self.change.is_some() && self.on != On::Container {
            return Err("changes are for `on = \"container\"`".to_owned());
        }
        effects::assignments(self)
            .map(drop)
            .map_err(|denial| denial.reason)
    }
}
