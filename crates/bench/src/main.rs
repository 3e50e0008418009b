//! `husk-bench`, which `husk bench` runs: shims side by side.
//!
//! Each candidate has a cgroup of its own; its processor time is that of everything that was ever
//! in there, containers included ([`husk_engine::account`]). Memory is that of the processes in
//! there without the containers' own.
#![forbid(unsafe_code)]

mod bed;
mod candidate;
mod cri;
mod floor;
mod handler;
mod limits;
mod links;
mod machine;
mod maker;
mod markdown;
mod measure;
mod memory;
mod pod;
mod pods_over_cri;
mod policies;
mod report;
mod run;
mod shims;
mod stats;
mod svg;
mod table;
mod turns;

use std::fs;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use husk_terminal::{messages, wants_colour};
use nix::unistd::geteuid;

use candidate::Candidate;
use handler::Handler;
use limits::Limits;
use measure::Measure;
use report::Report;

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
#[derive(Parser)]
#[command(name = "husk bench", version)]
struct Args {
    /// Say more: once for what the engine does, twice for what its libraries do
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// What to measure; all but pods, policies, links and CRI if nothing is named
    measures: Vec<Measure>,
    /// A shim v2, by path, file name or runtime type, with the OCI runtime that it is to call or the
    /// handler's configuration [default: husk's and runc's shims, the latter with runc and with crun,
    /// as far as they are in PATH]
    #[arg(
        long = "candidate",
        value_name = "NAME=SHIM[,runtime=PATH][,config=FILE]"
    )]
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
    #[arg(
        long,
        value_name = "COUNT,...",
        value_delimiter = ',',
        default_value = "1,10,50"
    )]
    pods: Vec<u16>,
    /// The program `husk-floor` [default: beside husk or in PATH; without it there is no floor]
    #[arg(long, value_name = "PATH")]
    floor: Option<PathBuf>,
    /// The socket of a containerd, for the measures over CRI; its processor time counts too, so it
    /// must be in a cgroup of its own
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// A runtime handler of that containerd; `network=cni` for one whose pods cannot be on the
    /// node's network
    #[arg(
        long = "handler",
        value_name = "NAME=HANDLER[,network=cni]",
        requires = "containerd"
    )]
    handlers: Vec<Handler>,
    /// The image of pods over CRI; it must be there, and have `sleep` and `true`
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "docker.io/library/busybox:latest"
    )]
    image: String,
    /// Where `plugins/build` put the plugins
    #[arg(long, value_name = "DIR", default_value = "plugins/target/components")]
    plugins: PathBuf,
    /// Show a report that --json wrote, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measures", "candidates"])]
    from: Option<PathBuf>,
    /// Write the report, for programs
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a page in Markdown that shows the plot
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The command that the page names as its author [default: the words of this one]
    #[arg(long, value_name = "COMMAND", requires = "markdown")]
    command: Option<String>,
    /// Fail if a ratio is worse than the file stores, by more than its margin
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    messages::init("husk bench", args.verbose);
    run(&args).unwrap_or_else(|error| {
        messages::error("husk bench", &error);
        ExitCode::FAILURE
    })
}

fn run(args: &Args) -> Result<ExitCode> {
    let limits = args.limits.as_deref().map(Limits::read).transpose()?;
    let (report, complete) = match &args.from {
        Some(file) => (read(file)?, true),
        None => measure(args)?,
    };
    if let Some(file) = &args.json {
        write(file, &serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(file) = &args.svg {
        write(file, &svg::plot(&report))?;
    }
    if let Some(file) = &args.markdown {
        let words: Vec<_> = std::env::args().skip(1).collect();
        let command = || format!("husk bench {}", words.join(" "));
        let command = args.command.clone().unwrap_or_else(command);
        let page = markdown::page(&report, &command, args.svg.as_deref());
        write(file, &page)?;
    }
    let colours = wants_colour(stdout().is_terminal());
    write!(stdout().lock(), "{}", table::text(&report, colours))?;
    let mut kept = true;
    if let Some(limits) = limits.filter(|_| complete) {
        let verdict = limits.judge(&report)?;
        write!(stdout().lock(), "\nLIMITS\n{}", verdict.text)?;
        kept = verdict.kept;
    }
    Ok(if complete && kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn measure(args: &Args) -> Result<(Report, bool)> {
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
