//! `husk policy test`.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use husk_plugin_host::case::{Case, Outcome};
use husk_plugin_host::{Host, Plugin, Settings, seccomp_profiles};
use husk_scope::config::Config;

use super::{Subject, line};

/// How long a call may take where no handler says so: the longest that one may allow. What else the
/// machine does should not fail a case, whose cost is told in fuel.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often `--watch` looks for a change.
const LOOK: Duration = Duration::from_millis(300);

#[derive(clap::Args)]
pub(super) struct Args {
    /// The component
    file: PathBuf,
    /// The folder of cases, one TOML file each
    #[arg(default_value = "cases")]
    cases: PathBuf,
    /// Judge as the handler of this configuration would: its ceiling, and the deadline, the memory
    /// and the seccomp profiles that it gives the plugin of this component
    #[arg(long)]
    config: Option<PathBuf>,
    /// Test again whenever the component, a case or the configuration changes
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if !args.watch {
        return test(args);
    }
    loop {
        let tested = changed(args);
        match test(args) {
            Ok(_) => {}
            // A component that is being built, a case that is being written: wait for the next.
            Err(error) => line(format_args!("{error:#}"))?,
        }
        line("waiting for a change")?;
        while changed(args) == tested {
            sleep(LOOK);
        }
    }
}

/// When what is tested was last changed, file by file.
fn changed(args: &Args) -> Vec<(PathBuf, Option<SystemTime>)> {
    let cases = fs::read_dir(&args.cases).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = cases.map(|entry| entry.path()).collect();
    files.sort();
    files.push(args.file.clone());
    files.extend(args.config.clone());
    let when = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    files
        .into_iter()
        .map(|path| {
            let when = when(&path);
            (path, when)
        })
        .collect()
}

/// What the handler gives the plugin, and the handler's configuration.
fn handler(args: &Args, subject: &Subject) -> Result<(Settings, Config)> {
    let mut settings = subject.settings("{}");
    settings.config.deadline = PATIENCE;
    let Some(path) = &args.config else {
        return Ok((settings, Config::default()));
    };
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading the configuration {}", path.display()))?;
    let config = Config::parse(&path.display().to_string(), &text)?;
    settings.seccomp_profiles = Arc::new(seccomp_profiles(&config.seccomp_profiles)?);
    let file_name = subject.path.file_name();
    let mut plugins = config.plugins.iter();
    let plugin = plugins
        .find(|plugin| plugin.path.file_name() == file_name || plugin.name == subject.name)
        .with_context(|| {
            format!(
                "{} has no [[plugin]] whose file or name is that of {}",
                path.display(),
                subject.path.display()
            )
        })?;
    if let Some(expected) = &plugin.sha256 {
        ensure!(
            *expected == subject.digest,
            "{} has the sha256 {}, but {} says {expected} for `{}`",
            subject.path.display(),
            subject.digest,
            path.display(),
            plugin.name
        );
    }
    settings.config = plugin.clone();
    Ok((settings, config))
}

fn test(args: &Args) -> Result<ExitCode> {
    let subject = Subject::read(&args.file)?;
    let host = Host::counting_fuel()?;
    let component = subject.component(&host)?;
    let (settings, config) = handler(args, &subject)?;
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for case in Case::read_all(&args.cases)? {
        let mut settings = settings.clone();
        // A case has settings of its own, or none; where it has none, the handler's count.
        if case.has_settings() || args.config.is_none() {
            settings.config.settings = case.settings();
            settings.config.settings_at = case.has_settings().then(|| case.place());
        }
        let plugin = Plugin::new(&host, &component, &subject.digest, settings)?;
        let Outcome {
            mismatch,
            asked,
            reply,
        } = case.ask_for(&plugin, &config)?;
        let name = case.name();
        match mismatch {
            None => {
                passed = passed.saturating_add(1);
                line(format_args!("ok      {name} ({} fuel)", reply.fuel))?;
            }
            Some(mismatch) => {
                failed = failed.saturating_add(1);
                line(format_args!("FAILED  {name}"))?;
                line(format_args!("        asked: {asked}"))?;
                for difference in mismatch.lines() {
                    line(format_args!("        {difference}"))?;
                }
            }
        }
        for (_, said) in reply.log {
            line(format_args!("        log: {said}"))?;
        }
    }
    line(format_args!("{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
