//! `[[plugin]]`: which plugins decide, in which order, within which limits.
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::amounts::{duration, size};
use super::reader::{ConfigError, Table, Value};

/// The keys of `[[plugin]]`.
pub(super) const PLUGIN_KEYS: [&str; 8] = [
    "name", "path", "sha256", "mode", "on-error", "deadline", "memory", "settings",
];

/// The values of `mode`.
pub(super) const MODES: [&str; 2] = ["enforce", "monitor"];

/// The values of `on-error`.
pub(super) const ON_ERROR: [&str; 2] = ["deny", "ignore"];

/// How long a call may take where nothing is said.
const DEADLINE: Duration = Duration::from_millis(50);

/// The deadlines there may be: containerd's own patience with a shim ends before a longer one.
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(5);

/// How much memory an instance may have where nothing is said, in bytes.
const MEMORY: u64 = 64 << 20;

/// What an instance may be given: 32-bit WebAssembly can address no more.
const MEMORIES: RangeInclusive<u64> = 1..=4 << 30;

/// A plugin, as the handler's configuration runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name in errors, logs and the audit record; unique in the configuration.
    pub name: String,
    /// The file of the component.
    pub path: PathBuf,
    /// The sha256 that the file must have, in lower-case hex.
    pub sha256: Option<String>,
    /// What its answers count for.
    pub mode: Mode,
    /// What happens when it fails.
    pub on_error: OnError,
    /// How long a call may take.
    pub deadline: Duration,
    /// How much memory an instance may have, in bytes.
    pub memory: u64,
    /// Its own settings, as a JSON object.
    pub settings: String,
    /// Where the settings stand, as `FILE:LINE`; none where there are no settings.
    pub settings_at: Option<String>,
}

/// What a plugin's answers count for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They decide.
    #[default]
    Enforce,
    /// They are recorded and decide nothing.
    Monitor,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "enforce" => Ok(Self::Enforce),
            "monitor" => Ok(Self::Monitor),
            _ => Err(()),
        }
    }
}

/// What happens when a plugin fails (traps, takes too long, is missing or is not the configured one),
/// or when its answer cannot be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// What it was asked about is denied.
    #[default]
    Deny,
    /// It is as if it had not been asked; what it answered holds, whether or not it is on record.
    Ignore,
}

impl FromStr for OnError {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "deny" => Ok(Self::Deny),
            "ignore" => Ok(Self::Ignore),
            _ => Err(()),
        }
    }
}

/// Reads `[[plugin]]`.
pub(super) fn plugins(value: Value<'_>) -> Result<Vec<Plugin>, ConfigError> {
    let mut plugins: Vec<Plugin> = Vec::new();
    for value in value.array("an array of tables, each headed [[plugin]]")? {
        let plugin = plugin(value)?;
        if plugins.iter().any(|earlier| earlier.name == plugin.name) {
            let name = &plugin.name;
            return Err(value.senseless(format!("two plugins are called `{name}`")));
        }
        plugins.push(plugin);
    }
    Ok(plugins)
}

fn plugin(value: Value<'_>) -> Result<Plugin, ConfigError> {
    let table = value.table("[plugin]".to_owned())?;
    table.only(&PLUGIN_KEYS)?;
    let name = table.get("name").ok_or_else(|| value.lacks("name"))?;
    let path = table.get("path").ok_or_else(|| value.lacks("path"))?;
    Ok(Plugin {
        name: self::name(name)?,
        path: absolute(path)?,
        sha256: table.get("sha256").map(sha256).transpose()?,
        mode: word(&table, "mode", &MODES)?,
        on_error: word(&table, "on-error", &ON_ERROR)?,
        deadline: table.get("deadline").map_or(Ok(DEADLINE), |value| {
            duration(value, DEADLINES, "a deadline is from \"1ms\" to \"5s\"")
        })?,
        memory: table.get("memory").map_or(Ok(MEMORY), |value| {
            size(value, MEMORIES, "a size up to 4GiB")
        })?,
        settings: match table.get("settings") {
            Some(settings) => {
                settings.table("plugin.settings".to_owned())?;
                settings.json()?.to_string()
            }
            None => "{}".to_owned(),
        },
        settings_at: table.get("settings").map(Value::place),
    })
}

/// Reads `[seccomp-profiles]`.
pub(super) fn seccomp_profiles(value: Value<'_>) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
    let table = value.table("seccomp-profiles".to_owned())?;
    table
        .entries()
        .map(|entry| Ok((entry.key.to_owned(), absolute(entry)?)))
        .collect()
}

fn word<T: FromStr + Default>(
    table: &Table<'_>,
    key: &'static str,
    valid: &[&str],
) -> Result<T, ConfigError> {
    table
        .get(key)
        .map_or_else(|| Ok(T::default()), |value| value.one_of(key, valid))
}

fn name(value: Value<'_>) -> Result<String, ConfigError> {
    let name = value.string("a name in quotes")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Err(value.senseless("a plugin's name is 1 to 63 letters, digits, `-`, `_` or `.`"));
    }
    Ok(name.to_owned())
}

pub(super) fn absolute(value: Value<'_>) -> Result<PathBuf, ConfigError> {
    let path = Path::new(value.string("a path in quotes")?);
    if !path.is_absolute() {
        let path = path.display();
        return Err(value.senseless(format!("`{path}` is not an absolute path")));
    }
    Ok(path.to_owned())
}

fn sha256(value: Value<'_>) -> Result<String, ConfigError> {
    let digest = value.string("a sha256 in quotes")?;
    if digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(value.senseless("a sha256 is 64 hexadecimal digits, as `sha256sum` prints it"));
    }
    Ok(digest.to_ascii_lowercase())
}
