//! The handler's plugins, loaded for one pod.
//!
//! They are read, verified and fixed by digest when the sandbox is made: replacing a file changes
//! later pods only. Machine code comes from the cache; what is not there yet is compiled once for
//! the node by a confined run of `husk policy compile`, because no compiler is linked into the shim.
mod compiler;
mod lines;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use husk_plugin_host::artifact::{self, Cache};
use husk_plugin_host::{Chain, Decision, Host, Outcome, Plugin, Settings, seccomp_profiles};
use husk_scope::config::{self, Config};
use log::{log, warn};
use oci_spec::runtime::LinuxSeccomp;

use crate::failure::Failure;
use crate::pod::children::Children;
use crate::pod::clean::in_background;
use crate::pod::lock;

use lines::Lines;

/// The file in a pod's directory that holds its audit record: one JSON line for each decision.
const AUDIT: &str = "audit.jsonl";

/// The plugins of one pod, and its audit record.
pub(crate) struct Plugins {
    pub(crate) chain: Arc<Chain>,
    audit: PathBuf,
    lines: Mutex<Lines>,
}

impl Plugins {
    /// Loads the plugins of a configuration; none when it has none. `dir` is the directory of `pod`.
    pub(crate) async fn load(
        pod: &str,
        config: &Config,
        dir: &Path,
        children: &Arc<Children>,
    ) -> Result<Option<Self>, Failure> {
        if config.plugins.is_empty() {
            return Ok(None);
        }
        let host = Host::new().map_err(|error| Failure::internal(error.to_string()))?;
        let profiles = seccomp_profiles(&config.seccomp_profiles)
            .map_err(|error| Failure::invalid(error.to_string()))?;
        let profiles = Arc::new(profiles);
        let mut loaded = Vec::with_capacity(config.plugins.len());
        for plugin in &config.plugins {
            let outcome = load(&host, plugin, &profiles, children).await;
            loaded.push((plugin.clone(), outcome));
        }
        let mut plugins = Self {
            chain: Arc::default(),
            audit: dir.join(AUDIT),
            lines: Mutex::new(Lines::new(Instant::now())),
        };
        plugins.chain = Arc::new(plugins.settle(pod, Chain::of(loaded))?);
        Ok(Some(plugins))
    }

    /// Logs what the plugins logged and adds their decisions to the audit record; gives the result.
    pub(crate) fn settle<T>(&self, pod: &str, outcome: Outcome<T>) -> Result<T, Failure> {
        for (plugin, level, line) in &outcome.log {
            let (admitted, dropped) = lock(&self.lines).admit(Instant::now());
            if dropped > 0 {
                warn!("plugins of pod {pod}: {dropped} lines dropped: they write too many");
            }
            if admitted {
                log!(log_level(*level), "plugin {plugin}, pod {pod}: {line}");
            }
        }
        if let Err(error) = self.append(&outcome.decisions) {
            warn!(
                "the audit record {} is not complete: {error}",
                self.audit.display()
            );
        }
        outcome
            .result
            .map_err(|denied| Failure::denied(denied.to_string()))
    }

    fn append(&self, decisions: &[Decision]) -> io::Result<()> {
        if decisions.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for decision in decisions {
            serde_json::to_writer(&mut lines, decision)?;
            lines.push(b'\n');
        }
        // One write to a file opened for appending: lines of two decisions never mix.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.audit)?
            .write_all(&lines)
    }
}

async fn load(
    host: &Host,
    config: &config::Plugin,
    profiles: &Arc<BTreeMap<String, LinuxSeccomp>>,
    children: &Arc<Children>,
) -> Result<Plugin, String> {
    let (path, expected) = (config.path.clone(), config.sha256.clone());
    let read = move || artifact::digest(&path, expected.as_deref()).map_err(io::Error::other);
    let digest = in_background(read)
        .await
        .map_err(|error| error.to_string())?;
    let cache = Cache::new(artifact::DIR);
    let load = || cache.load(host, &digest).map_err(|error| error.to_string());
    let component = match load()? {
        Some(component) => component,
        None => {
            compiler::run(&config.path, children).await?;
            load()?.ok_or_else(|| {
                format!(
                    "{} was compiled by a `husk` of another version, or changed meanwhile",
                    config.path.display()
                )
            })?
        }
    };
    let settings = Settings {
        config: config.clone(),
        seccomp_profiles: Arc::clone(profiles),
    };
    Plugin::new(host, &component, digest, settings).map_err(|error| error.to_string())
}

fn log_level(level: husk_plugin_host::Level) -> log::Level {
    use husk_plugin_host::Level;
    match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    }
}
