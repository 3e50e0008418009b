//! The handler's plugins, loaded for one pod.
//!
//! They are read, verified and fixed by digest when the sandbox is made: replacing a file changes
//! later pods only. Machine code comes from the cache; what is not there yet is compiled once for
//! the node by a confined run of `husk policy compile`, because no compiler is linked into the shim.
mod compiler;
mod lines;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use husk_plugin_host::artifact::{self, Cache};
use husk_plugin_host::{
    Chain, Clock, Host, Outcome, Plugin, Settings, TICK, seccomp_profiles, subject,
};
use husk_sandbox::daemon::give_back_memory;
use husk_scope::config::{self, Config};
use log::{log, warn};
use oci_spec::runtime::LinuxSeccomp;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::audit::Audit;
use crate::background::in_background;
use crate::children::Children;
use crate::failure::Failure;
use crate::sync::lock;

use lines::Lines;

/// A call that held as much, in bytes, or failed, may have left the heap in pieces.
const MUCH: usize = 4 << 20;

/// The plugins of one pod.
pub(crate) struct Plugins {
    chain: Arc<Chain>,
    clock: Clock,
    audit: Arc<Audit>,
    lines: Mutex<Lines>,
}

impl Plugins {
    /// Loads the plugins of a configuration, for a pod; none when it has none, and keeps no questions.
    pub(crate) async fn load(
        pod: &Arc<subject::Pod>,
        config: &Config,
        audit: &Arc<Audit>,
        children: &Arc<Children>,
    ) -> Result<Option<Self>, Failure> {
        if config.plugins.is_empty() && audit.keeps().is_none() {
            return Ok(None);
        }
        let (host, clock) =
            Host::timed_by_caller().map_err(|error| Failure::internal(error.to_string()))?;
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
            clock,
            audit: Arc::clone(audit),
            lines: Mutex::new(Lines::new(Instant::now())),
        };
        let (audit, facts) = (Arc::clone(audit), Arc::clone(pod));
        let recorded = in_background(move || {
            let mut outcome = Chain::of(loaded);
            let recorded = audit.record(&facts, &outcome);
            if let Some(env) = audit.keeps() {
                outcome.result = outcome.result.map(|chain| chain.keeping(env));
            }
            Ok((outcome, recorded))
        });
        let (outcome, recorded) = recorded
            .await
            .map_err(|error| Failure::internal(error.to_string()))?;
        plugins.chain = Arc::new(plugins.settle(&pod.id, outcome, recorded)?);
        Ok(Some(plugins))
    }

    /// Whether any decides scopes: what nobody would hear need not be asked.
    pub(crate) fn decide_scopes(&self) -> bool {
        self.chain.decides_scopes()
    }

    /// Whether any decides links.
    pub(crate) fn decide_links(&self) -> bool {
        self.chain.decides_links()
    }

    /// Whether any takes part in the lifecycle.
    pub(crate) fn follow_lifecycle(&self) -> bool {
        self.chain.follows_lifecycle()
    }

    /// Calls the plugins, and records what they answer, off the thread that serves the other
    /// containers of `pod`.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        pod: &Arc<subject::Pod>,
        ask: impl FnOnce(&Chain) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (chain, clock) = (Arc::clone(&self.chain), self.clock.clone());
        let (audit, facts) = (Arc::clone(&self.audit), Arc::clone(pod));
        let mut asked = spawn_blocking(move || {
            let outcome = ask(&chain);
            let recorded = audit.record(&facts, &outcome);
            (outcome, recorded)
        });
        // In a task of its own: deadlines pass also when nobody waits for the answer any more.
        let answered = tokio::spawn(async move {
            loop {
                match timeout(TICK, &mut asked).await {
                    Ok(outcome) => return outcome,
                    Err(_) => clock.tick(),
                }
            }
        });
        let pod = &pod.id;
        let outcome = answered.await.flatten();
        let (outcome, recorded) = outcome.map_err(|error| {
            Failure::internal(format!("asking the plugins of pod {pod}: {error}"))
        })?;
        // A failure that is ignored, or only monitored, is one too.
        let failed = outcome.decisions.iter().any(|said| said.denied);
        let tidy = outcome.held > MUCH || failed;
        let result = self.settle(pod, outcome, recorded);
        if tidy {
            give_back_memory();
        }
        result
    }

    /// Logs what the plugins logged; gives the result, unless it had to be recorded and is not.
    fn settle<T>(
        &self,
        pod: &str,
        outcome: Outcome<T>,
        recorded: Result<(), Failure>,
    ) -> Result<T, Failure> {
        for (plugin, level, line) in &outcome.log {
            let (admitted, dropped) = lock(&self.lines).admit(Instant::now());
            if dropped > 0 {
                warn!("plugins of pod {pod}: {dropped} lines dropped: they write too many");
            }
            if admitted {
                log!(log_level(*level), "plugin {plugin}, pod {pod}: {line}");
            }
        }
        let result = outcome.result;
        let result = result.map_err(|denied| Failure::denied(denied.to_string()))?;
        recorded.map(|()| result)
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
