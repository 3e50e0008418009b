//! `husk policy`: the workbench of a plugin's author.
mod bench;
mod build;
mod case;
mod check;
mod compile;
mod describe;
mod new;
mod replay;
mod test;

use std::fmt::Display;
use std::fs;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use husk_plugin_host::artifact::Cache;
use husk_plugin_host::{Component, Host, Plugin, Settings, artifact};
use husk_scope::config::{self, Mode, OnError};

/// Makes, builds, checks, tests, measures and compiles plugins.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a project for a plugin
    New(new::Args),
    /// Build a project to a component
    Build(build::Args),
    /// Say whether a component is a plugin, and what is wrong if it is not
    Check(check::Args),
    /// Show what a component exports and imports
    Inspect(describe::Args),
    /// Ask a plugin the questions of a folder of cases
    Test(test::Args),
    /// Measure what a plugin's decisions cost
    Bench(bench::Args),
    /// Ask the policies of a configuration what was asked on this node, and show what would change
    Replay(replay::Args),
    /// Make a test case of a question that was asked on this node
    Case(case::Args),
    /// Compile plugins ahead, so that no pod waits for it
    Compile(compile::Args),
}

/// Runs `husk policy`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::New(args) => new::run(args),
        Command::Build(args) => build::run(args),
        Command::Check(args) => check::run(args),
        Command::Inspect(args) => describe::run(args),
        Command::Test(args) => test::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Case(args) => case::run(args),
        Command::Compile(args) => compile::run(args),
    }
}

/// Prints a line of the result.
fn line(text: impl Display) -> Result<()> {
    Ok(writeln!(stdout().lock(), "{text}")?)
}

/// How many compiled components are kept for authors: the largest guests take 35 MB each.
const KEPT: usize = 16;

/// Where this user's compiled components are. Not the node's place: what is tried on the way to a
/// plugin is no plugin of the node.
fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(base.join("husk"))
}

/// Leaves the newest of the compiled components there.
fn forget_the_oldest(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut compiled: Vec<_> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|is| is == "cwasm"))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    compiled.sort();
    compiled.reverse();
    for (_, path) in compiled.iter().skip(KEPT) {
        // Somebody else may have done so.
        let _ = fs::remove_file(path);
    }
}

/// A component and what it is called.
struct Subject {
    name: String,
    path: PathBuf,
    bytes: Vec<u8>,
    digest: String,
}

impl Subject {
    fn read(path: &Path) -> Result<Self> {
        let (bytes, digest) = artifact::read(path, None)?;
        let name = path
            .file_stem()
            .map_or_else(|| "plugin".into(), |stem| stem.to_string_lossy());
        Ok(Self {
            name: name.into_owned(),
            path: path.to_owned(),
            bytes,
            digest,
        })
    }

    /// The plugin with default limits and these settings (JSON).
    fn plugin(&self, host: &Host, settings: &str) -> Result<Plugin> {
        let component = self.component(host)?;
        let settings = self.settings(settings);
        Ok(Plugin::new(host, &component, &self.digest, settings)?)
    }

    /// Its machine code, compiled once: a large guest takes half a minute.
    fn component(&self, host: &Host) -> Result<Component> {
        let Some(dir) = cache() else {
            return host
                .compile(&self.bytes)
                .with_context(|| self.path.display().to_string());
        };
        let cache = Cache::new(&dir);
        if let Ok(Some(component)) = cache.load(host, &self.digest) {
            return Ok(component);
        }
        let code = host
            .precompile(&self.bytes)
            .with_context(|| self.path.display().to_string())?;
        // A cache that cannot be written to is none.
        let kept = cache.store_for(host, &self.digest, &code);
        forget_the_oldest(&dir);
        match kept.and_then(|_| cache.load(host, &self.digest)) {
            Ok(Some(component)) => Ok(component),
            _ => Ok(host.compile(&self.bytes)?),
        }
    }

    fn settings(&self, settings: &str) -> Settings {
        Settings {
            config: config::Plugin {
                name: self.name.clone(),
                path: self.path.clone(),
                sha256: Some(self.digest.clone()),
                mode: Mode::Enforce,
                on_error: OnError::Deny,
                deadline: Duration::from_millis(50),
                memory: 64 << 20,
                settings: settings.to_owned(),
                settings_at: None,
            },
            seccomp_profiles: Arc::default(),
        }
    }
}
