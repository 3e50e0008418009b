//! A handler's configuration: a TOML file, checked to the last key.
//!
//! `examples/config.toml` documents every key. The default, no file at all, assigns nothing and
//! bounds nothing: every container gets what containerd requests.
mod amounts;
mod audit;
mod links;
mod plugin;
mod reader;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::links::{Link, REACHES};
use crate::plan::impossible;
use crate::scope::SCOPE_WORDS;
use crate::{
    Assignment, Ceiling, Kind, Offset, Offsets, Plan, PlanError, Ranges, Scope, Scopes, Width,
};
pub use audit::{AUDIT_DIR, Audit, Record};
pub use plugin::{Mode, OnError, Plugin};
use plugin::{plugins, seccomp_profiles};
pub use reader::{ConfigError, Problem};
use reader::{Source, Table, Value};

/// Where the configuration is when a handler names none.
pub const DEFAULT_PATH: &str = "/etc/husk/config.toml";

/// Who decided, where the configuration did.
pub const BY: &str = "configuration";

/// The keys of the document.
const KEYS: [&str; 8] = [
    "scopes",
    "containers",
    "time",
    "users",
    "ceiling",
    "plugin",
    "audit",
    "seccomp-profiles",
];
/// The keys of `[containers.NAME]`.
const CONTAINER_KEYS: [&str; 2] = ["scopes", "links"];
/// The keys of `[time]`.
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];
/// The keys of `[users]`.
const USERS: [&str; 3] = ["first", "count", "ranges"];
/// The keys of `[ceiling]` that are not kinds.
const REQUESTS: &str = "requests";
const LINKS: &str = "links";

/// A handler's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The most any assignment may grant.
    pub ceiling: Ceiling,
    /// The clocks of the time namespaces that are assigned: CONTAINER, POD and GROUP.
    pub offsets: Offsets,
    /// The ids of the user namespaces that are assigned.
    pub users: Ranges,
    /// The plugins, in the order in which they are asked.
    pub plugins: Vec<Plugin>,
    /// Where what the plugins answer is recorded.
    pub audit: Audit,
    /// The files of the seccomp profiles that plugins may name.
    pub seccomp_profiles: BTreeMap<String, PathBuf>,
    scopes: BTreeMap<Kind, Scope>,
    containers: BTreeMap<String, Container>,
}

/// What the configuration says of the containers of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Container {
    scopes: BTreeMap<Kind, Scope>,
    links: Vec<Link>,
}

impl Config {
    /// Reads a configuration; `file` is its name in errors.
    ///
    /// # Errors
    /// A syntax error, an unknown key, a bad value: with file, line, column and the nearest valid key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let document = source.parse()?;
        let root = Table::root(source, &document);
        root.only(&KEYS)?;
        // The ceiling comes first: what the configuration assigns must be below it too.
        let mut config = Self {
            ceiling: root
                .get("ceiling")
                .map(ceiling)
                .transpose()?
                .unwrap_or_default(),
            ..Self::default()
        };
        if let Some(value) = root.get("scopes") {
            config.scopes = scopes(value, "scopes".to_owned(), &config.ceiling)?;
        }
        if let Some(value) = root.get("containers") {
            config.containers = containers(value, &config.ceiling)?;
        }
        if let Some(value) = root.get("time") {
            config.offsets = config.time(value)?;
        }
        if let Some(value) = root.get("users") {
            config.users = users(value)?;
        }
        if let Some(value) = root.get("plugin") {
            config.plugins = plugins(value)?;
        }
        if let Some(value) = root.get("audit") {
            config.audit = audit::audit(value)?;
        }
        if let Some(value) = root.get("seccomp-profiles") {
            config.seccomp_profiles = seccomp_profiles(value)?;
        }
        Ok(config)
    }

    /// What the configuration assigns to the container of this name.
    ///
    /// A container's own table is stronger than `[scopes]`. A TARGET in `[scopes]` leaves out the
    /// container it names: nobody is their own target. Do not ask for the sandbox's own container
    /// (a pause container): it *is* the sandbox, and stays as containerd requests it.
    #[must_use]
    pub fn assignments(&self, container: &str) -> Vec<Assignment> {
        let itself = Scope::Target(container.to_owned());
        let mut scopes: BTreeMap<Kind, &Scope> = self
            .scopes
            .iter()
            .filter(|(_, scope)| **scope != itself)
            .map(|(kind, scope)| (*kind, scope))
            .collect();
        if let Some(own) = self.containers.get(container) {
            scopes.extend(own.scopes.iter().map(|(kind, scope)| (*kind, scope)));
        }
        scopes
            .into_iter()
            .map(|(kind, scope)| Assignment {
                kind,
                scope: scope.clone(),
                by: BY.to_owned(),
            })
            .collect()
    }

    /// The links that the configuration gives the container of this name.
    #[must_use]
    pub fn links(&self, container: &str) -> &[Link] {
        self.containers
            .get(container)
            .map_or(&[], |own| own.links.as_slice())
    }

    /// The plan for the container of this name, when nobody but the configuration assigns.
    ///
    /// # Errors
    /// See [`Plan::new`].
    pub fn plan(&self, container: &str, requested: &Scopes) -> Result<Plan, PlanError> {
        let plan = Plan::new(requested, &self.assignments(container), &self.ceiling)?;
        Ok(plan.with_offsets(self.offsets))
    }

    /// The POD and GROUP namespaces that some container may be assigned. What the sandbox does not
    /// have by request, the shim makes before the first container that is assigned it.
    #[must_use]
    pub fn sandbox_kinds(&self) -> Vec<(Kind, Scope)> {
        let mut shared = Vec::new();
        for (kind, scope) in self.assigned() {
            let entry = (kind, scope.clone());
            let is_made = match scope {
                Scope::Pod => kind != Kind::User,
                Scope::Group(_) => true,
                _ => false,
            };
            if is_made && !shared.contains(&entry) {
                shared.push(entry);
            }
        }
        shared
    }

    fn assigned(&self) -> impl Iterator<Item = (Kind, &Scope)> {
        let of_all = self.scopes.iter();
        let of_one = self.containers.values().flat_map(|own| &own.scopes);
        of_all.chain(of_one).map(|(kind, scope)| (*kind, scope))
    }

    fn time(&self, value: Value<'_>) -> Result<Offsets, ConfigError> {
        let table = value.table("time".to_owned())?;
        table.only(&CLOCKS)?;
        if !self.assigned().any(|(kind, scope)| {
            kind == Kind::Time && matches!(scope, Scope::Container | Scope::Pod | Scope::Group(_))
        }) {
            return Err(value.senseless(
                "[time] sets clocks, but no container is assigned a time namespace of its own, \
                 its pod or a group; add `time = \"container\"` or `\"pod\"` to [scopes]",
            ));
        }
        Ok(Offsets {
            monotonic: table.get("monotonic").map(offset).transpose()?,
            boottime: table.get("boottime").map(offset).transpose()?,
        })
    }
}

fn kind_names() -> [&'static str; 8] {
    Kind::ALL.map(Kind::name)
}

/// Reads a table of kind to scope.
fn scopes(
    value: Value<'_>,
    name: String,
    ceiling: &Ceiling,
) -> Result<BTreeMap<Kind, Scope>, ConfigError> {
    let table = value.table(name)?;
    table.only(&kind_names())?;
    let mut scopes = BTreeMap::new();
    for kind in Kind::ALL {
        if let Some(value) = table.get(kind.name()) {
            scopes.insert(kind, scope(kind, value, ceiling)?);
        }
    }
    Ok(scopes)
}

fn scope(kind: Kind, value: Value<'_>, ceiling: &Ceiling) -> Result<Scope, ConfigError> {
    let scope = value.one_of("a scope", &SCOPE_WORDS)?;
    if let Some(reason) = impossible(kind, &scope) {
        return Err(value.senseless(format!("{kind} cannot be {scope}: {reason}")));
    }
    if let Some(widest) = ceiling.exceeded_by(kind, &scope) {
        return Err(value.senseless(format!(
            "{kind} cannot be {scope}: [ceiling] allows no more than {widest}"
        )));
    }
    Ok(scope)
}

fn containers(
    value: Value<'_>,
    ceiling: &Ceiling,
) -> Result<BTreeMap<String, Container>, ConfigError> {
    let mut containers = BTreeMap::new();
    for value in value.table("containers".to_owned())?.entries() {
        let name = value.key;
        let table = value.table(format!("containers.{name}"))?;
        table.only(&CONTAINER_KEYS)?;
        let mut container = Container::default();
        if let Some(value) = table.get("scopes") {
            let scopes = scopes(value, format!("containers.{name}.scopes"), ceiling)?;
            if let Some((kind, _)) = scopes
                .iter()
                .find(|(_, scope)| **scope == Scope::Target(name.to_owned()))
            {
                return Err(value.senseless(format!(
                    "container {name} cannot be its own target for {kind}"
                )));
            }
            container.scopes = scopes;
        }
        if let Some(value) = table.get("links") {
            container.links = links::links(value, name, ceiling)?;
        }
        containers.insert(name.to_owned(), container);
    }
    Ok(containers)
}

fn ceiling(value: Value<'_>) -> Result<Ceiling, ConfigError> {
    let table = value.table("ceiling".to_owned())?;
    let mut keys = kind_names().to_vec();
    keys.extend([REQUESTS, LINKS]);
    table.only(&keys)?;
    let mut ceiling = Ceiling::default();
    for kind in Kind::ALL {
        if let Some(value) = table.get(kind.name()) {
            let widest = value.one_of("a ceiling", &Width::ALL.map(Width::name))?;
            ceiling.set(kind, widest);
        }
    }
    if let Some(value) = table.get(LINKS) {
        ceiling.set_links(value.one_of("a ceiling of links", &REACHES)?);
    }
    if let Some(value) = table.get(REQUESTS) {
        for element in value.array("an array of kinds of namespace")? {
            let kind = element.one_of("a kind of namespace", &kind_names())?;
            if ceiling.widest(kind).is_none() {
                return Err(element.senseless(format!(
                    "requests for {kind} have no ceiling; add `{kind} = …` to [ceiling]"
                )));
            }
            ceiling.bind_requests(kind);
        }
    }
    Ok(ceiling)
}

fn users(value: Value<'_>) -> Result<Ranges, ConfigError> {
    let table = value.table("users".to_owned())?;
    table.only(&USERS)?;
    let mut ranges = Ranges::default();
    for (key, number) in
        USERS
            .into_iter()
            .zip([&mut ranges.first, &mut ranges.count, &mut ranges.ranges])
    {
        if let Some(value) = table.get(key) {
            *number = value.number()?;
        }
    }
    let end = u64::from(ranges.first) + u64::from(ranges.count) * u64::from(ranges.ranges);
    // (uid_t) -1 is nobody's.
    if end > u64::from(u32::MAX) {
        return Err(value.senseless(format!(
            "the last of these {} ranges of {} ids, from {} on, ends at {end}, but ids end at {}",
            ranges.ranges,
            ranges.count,
            ranges.first,
            u32::MAX
        )));
    }
    Ok(ranges)
}

fn offset(value: Value<'_>) -> Result<Offset, ConfigError> {
    value
        .string("a duration in quotes, such as \"7d\"")?
        .parse()
        .map_err(|message: String| value.senseless(message))
}

#[cfg(test)]
mod tests;
