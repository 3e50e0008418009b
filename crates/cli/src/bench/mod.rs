//! `husk bench`: shims side by side.
//!
//! Each candidate has a cgroup of its own; its processor time is that of everything that was ever
//! in there, containers included ([`husk_engine::account`]). Memory is that of the processes in
//! there without the containers' own.
mod bed;
mod candidate;
mod floor;
mod machine;
mod measure;
mod memory;
mod pod;
mod policies;
mod report;
mod shims;
mod stats;
mod table;
mod turns;
mod run;

use std::fs;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use candidate::Candidate;
use measure::Measure;
use report::Report;

use crate::terminal::wants_colour;

/// Measure shims side by side: time, processor time, memory.
///
/// Candidates take turns (A B C A B C); what is shown is the median of the rounds, with the least
/// and the most. CPU is the processor time of everything a candidate ran: the shim, the runtimes it
/// calls, the containers, and whatever ended meanwhile; not the kernel's own threads. Memory is
/// that of all processes that stay for a pod (shim, zygote, holder, pause), without the containers'.
/// Containers run busybox. They share nothing, so that all are made alike, and have the seccomp
/// profile, the masked paths and the capabilities that Kubernetes gives them.
///
/// `floor` is what a container's life takes at least on this machine: a program that makes the same
/// cgroup, namespaces, mounts and filter with no more calls than that takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure; all but pods, policies and CRI if nothing is named
    measures: Vec<Measure>,
    /// A shim v2, by path, file name or runtime type, with the OCI runtime that it is to call or the
    /// handler's configuration [default: husk's and runc's shims, the latter with runc and with crun,
    /// as far as they are in PATH]
    #[arg(long = "candidate", value_name = "NAME=SHIM[,runtime=PATH][,config=FILE]")]
    candidates: Vec<Candidate>,
    /// Whom to compare the others with [default: runc, else the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// How many rounds count; measures of many pods have fewer
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: u16,
    /// How many rounds come before those that count
    #[arg(long, default_value_t = 3)]
    warmups: u16,
    /// How many pods are made at once
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_value = "1,10,50")]
    pods: Vec<u16>,
    /// The program `husk-floor` [default: beside husk or in PATH; without it there is no floor]
    #[arg(long, value_name = "PATH")]
    floor: Option<PathBuf>,
    /// Where `plugins/build` put the plugins
    #[arg(long, value_name = "DIR", default_value = "plugins/target/components")]
    plugins: PathBuf,
    /// Show a report that --json wrote, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measures", "candidates"])]
    from: Option<PathBuf>,
    /// Write the report, for programs
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let report = match &args.from {
        Some(file) => read(file)?,
        None => measure(args)?,
    };
    if let Some(file) = &args.json {
        write(file, &serde_json::to_string_pretty(&report)?)?;
    }
    write!(stdout().lock(), "{}", table::text(&report, wants_colour(stdout().is_terminal())))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> Result<Report> {
    ensure!(
        geteuid().is_root(),
        "husk bench makes cgroups, mounts and containers: run it as root"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run::all(args))
}

fn read(file: &PathBuf) -> Result<Report> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no report of husk bench --json", file.display()))
}

fn write(file: &PathBuf, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
