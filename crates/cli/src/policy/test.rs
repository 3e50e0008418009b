//! `husk policy test`.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use husk_plugin_host::Host;

use super::case::Case;
use super::{Subject, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The component
    file: PathBuf,
    /// The folder of cases, one TOML file each
    #[arg(default_value = "cases")]
    cases: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let subject = Subject::read(&args.file)?;
    let host = Host::counting_fuel()?;
    let component = host.compile(&subject.bytes)?;
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for path in case_files(&args.cases)? {
        let case = Case::read(&path)?;
        let settings = subject.settings(&case.settings()?);
        let plugin = husk_plugin_host::Plugin::new(&host, &component, &subject.digest, settings)?;
        let prepared = case.prepare().with_context(|| path.display().to_string())?;
        let question = prepared
            .question()
            .with_context(|| path.display().to_string())?;
        let reply = plugin.ask(&prepared.pod, &question);
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .replace('-', " ");
        match case.expect.mismatch(&reply.answer) {
            None => {
                passed = passed.saturating_add(1);
                line(format_args!("ok      {name} ({} fuel)", reply.fuel))?;
            }
            Some(mismatch) => {
                failed = failed.saturating_add(1);
                line(format_args!("FAILED  {name}: {mismatch}"))?;
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

/// The cases, in the order of their names.
fn case_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(dir).with_context(|| format!("reading the cases in {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} has no case: a case is a .toml file", dir.display());
    }
    files.sort();
    Ok(files)
}
