//! `husk policy test`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use husk_plugin_host::case::{Case, Outcome};
use husk_plugin_host::{Host, Plugin};

use super::{Subject, line};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(60);

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
    for case in Case::read_all(&args.cases)? {
        let mut settings = subject.settings(&case.settings());
        // What else the machine does must not fail a case: the cost is told in fuel.
        settings.config.deadline = PATIENCE;
        let plugin = Plugin::new(&host, &component, &subject.digest, settings)?;
        let Outcome { mismatch, reply } = case.ask(&plugin)?;
        let name = case.name();
        match mismatch {
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
