//! `husk`: runs pods without containerd, and shows what pods are made of.
#![forbid(unsafe_code)]

mod audit;
mod bench;
mod detach;
mod doctor;
mod exec;
mod inspect;
mod install;
mod logs;
mod manual;
mod node;
mod paths;
mod picture;
mod plan;
mod policy;
mod printer;
mod ps;
mod rm;
mod run;
mod shims;
mod tail;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use husk_engine::pod::PAUSE;
use husk_terminal::messages;

use paths::PathArgs;

/// Runs Kubernetes pods without Kubernetes and without containerd.
#[derive(Parser)]
#[command(name = "husk", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    paths: PathArgs,
    /// Say more: once for what the engine does, twice for what its libraries do
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the pod of a Kubernetes manifest
    Run(run::Args),
    /// List pods, those of containerd under husk's shim too
    Ps(ps::Args),
    /// Show what a pod is made of: who shares which namespace with whom, cgroups, processes
    Inspect(inspect::InspectArgs),
    /// Run a command in a container of a running pod
    Exec(exec::Args),
    /// Print what containers have written
    Logs(logs::Args),
    /// Remove a pod
    Rm(rm::Args),
    /// Show what a handler's configuration and its plugins would make of a pod; nothing is done
    Plan(plan::Args),
    /// Make, build, check, test, measure and compile plugins
    Policy(policy::Args),
    /// Show what plugins have answered on this node, and what was refused
    Audit(audit::Args),
    /// Look at what this node has of what husk needs
    Doctor(doctor::Args),
    /// Make husk a runtime of this node's containerd
    Install(install::Args),
    /// Take away what `husk install` has put on this node
    Uninstall(install::UninstallArgs),
    /// Install husk on this node, keep it as a directory says, and tell how the node is
    Node(node::Args),
    /// Measure shims side by side: time, processor time, memory
    Bench(bench::Args),
    /// Print what completes husk's commands in a shell
    Completions(manual::CompletionsArgs),
    /// Write a manual page for every command
    #[command(hide = true)]
    Manual(manual::ManualArgs),
    /// Wait for ever: the pause container of shims without the Sandbox API
    #[command(name = PAUSE, hide = true)]
    Pause,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    messages::init("husk", cli.verbose);
    let paths = cli.paths.paths();
    let done = match cli.command {
        Command::Run(args) => run::run(&paths, &args, cli.verbose),
        Command::Ps(args) => ps::run(&paths, &args),
        Command::Inspect(args) => inspect::run(args).map(|()| ExitCode::SUCCESS),
        Command::Exec(args) => exec::run(&paths, &args),
        Command::Logs(args) => logs::run(&paths, &args),
        Command::Plan(args) => plan::run(&paths, &args),
        Command::Policy(args) => policy::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Install(args) => install::install(&paths.data, &args),
        Command::Uninstall(args) => install::uninstall(&paths.data, &args),
        Command::Node(args) => node::run(&paths.data, &args),
        Command::Rm(args) => rm::run(paths, &args),
        Command::Completions(args) => manual::completions(&args),
        Command::Manual(args) => manual::manual(&args),
        Command::Pause => pause(),
    };
    done.unwrap_or_else(|error| {
        messages::error("husk", &error);
        ExitCode::FAILURE
    })
}

/// Waits for ever, reaping what a shared pid namespace leaves to its pid 1.
fn pause() -> anyhow::Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut child = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = child.recv() => {
                    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
                    let reaped = || waitpid(None, Some(WaitPidFlag::WNOHANG));
                    while reaped().is_ok_and(|status| status != WaitStatus::StillAlive) {}
                }
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            }
        }
    })
}
