//! `husk plan`: what a handler's configuration and its plugins would make of a pod.
//!
//! The questions are those of the shim, in its order, to the same code; nothing is made, and no
//! machine code is written.
use std::fs;
use std::io::{ErrorKind, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use husk_engine::pod::{self, Paths};
use husk_plugin_host::artifact::{self, Cache};
use husk_plugin_host::{Chain, Host, Outcome, Plugin, Settings, seccomp_profiles};
use husk_scope::config::{Config, DEFAULT_PATH};
use nix::unistd::geteuid;

use crate::inspect::Color;
use crate::run;

mod ask;
mod links;
mod picture;
mod report;
mod text;
mod view;

/// The exit status when the pod or one of its containers would be refused.
const DENIED: u8 = 3;

/// Show what a handler's configuration and its plugins would make of a pod; nothing is done
///
/// For the sandbox and each container: what is requested, what each plugin says, what the plan would
/// be. The exit status is 3 when something would be refused, 1 when there is no answer.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The manifest; `-` reads stdin
    file: PathBuf,
    /// The handler's configuration [default: /etc/husk/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON; its fields are only ever added to
    #[arg(long)]
    json: bool,
    /// As a picture of before and after, an SVG document
    #[arg(long, conflicts_with = "json")]
    svg: bool,
    /// When to use colours
    #[arg(long, value_enum, default_value_t)]
    color: Color,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let pod = run::read(&args.file)?;
    let config = configuration(args.config.as_deref())?;
    let (id, cgroup, containers) = pod::preview(paths, &run::manifests(&args.file)?, &pod)?;
    let loaded = load(&config)?;
    let report = ask::ask(&config, &pod, id, cgroup, containers, loaded);
    let text = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else if args.svg {
        crate::picture::svg(&picture::picture(&report))
    } else {
        text::render(&report, args.color.wanted())
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(if report.denied {
        ExitCode::from(DENIED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The configuration that was named, else the default one; that need not be there.
fn configuration(named: Option<&Path>) -> Result<Config> {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    match fs::read_to_string(path) {
        Ok(text) => Ok(Config::parse(&path.display().to_string(), &text)?),
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {
            Ok(Config::default())
        }
        Err(error) => {
            Err(error).with_context(|| format!("reading the configuration {}", path.display()))
        }
    }
}

/// The plugins of a configuration, as the shim loads them.
pub(crate) fn load(config: &Config) -> Result<Outcome<Chain>> {
    let host = Host::new()?;
    let profiles = Arc::new(seccomp_profiles(&config.seccomp_profiles)?);
    let loaded = config.plugins.iter().map(|plugin| {
        let settings = Settings {
            config: plugin.clone(),
            seccomp_profiles: Arc::clone(&profiles),
        };
        let loaded = load_one(&host, settings).map_err(|error| format!("{error:#}"));
        (plugin.clone(), loaded)
    });
    Ok(Chain::of(loaded.collect()))
}

/// From the node's cache, as the shim does; what is not there is compiled and not kept.
fn load_one(host: &Host, settings: Settings) -> Result<Plugin> {
    let config = &settings.config;
    let (bytes, digest) = artifact::read(&config.path, config.sha256.as_deref())?;
    // Root's cache is closed to others.
    let kept = if geteuid().is_root() {
        Cache::new(artifact::DIR).load(host, &digest)?
    } else {
        None
    };
    let component = match kept {
        Some(component) => component,
        None => host.compile(&bytes)?,
    };
    Ok(Plugin::new(host, &component, digest, settings)?)
}
