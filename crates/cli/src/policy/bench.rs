//! `husk policy bench`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use husk_plugin_host::Host;
use husk_plugin_host::case::{Case, Outcome};

use super::{Subject, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The component
    file: PathBuf,
    /// The case that is asked again and again
    case: PathBuf,
    /// How often it is asked
    #[arg(long, short = 'n', default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    times: u32,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let subject = Subject::read(&args.file)?;
    let case = Case::read(&args.case)?;
    let settings = case.settings();
    let counting = subject.plugin(&Host::counting_fuel()?, &settings)?;
    // What fails fast would look cheap.
    let Outcome {
        mismatch, reply, ..
    } = case.ask(&counting)?;
    if let Some(mismatch) = mismatch {
        bail!(
            "the case `{}` fails, so its cost means nothing:\n{mismatch}",
            case.name()
        );
    }
    let fuel = reply.fuel;

    let host = Host::new()?;
    let started = Instant::now();
    let plugin = subject.plugin(&host, &settings)?;
    let compiled = started.elapsed();
    let mut took: Vec<Duration> = case.with_question(|pod, question| {
        (0..args.times)
            .map(|_| plugin.ask(pod, question).took)
            .collect()
    })?;
    let first = *took.first().context("nothing was measured")?;
    took.sort_unstable();
    let at = |hundredths: usize| {
        let index = took.len().saturating_sub(1).saturating_mul(hundredths) / 100;
        took.get(index).copied().unwrap_or_default().as_micros()
    };
    line(format_args!(
        "{}: {} calls in fresh instances: first {} µs, p50 {} µs, p99 {} µs; {fuel} fuel each; compiled in {} ms",
        args.file.display(),
        took.len(),
        first.as_micros(),
        at(50),
        at(99),
        compiled.as_millis(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
