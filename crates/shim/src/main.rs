//! A containerd shim v2 for pods.
//!
//! containerd runs this program with an action: `start` answers with the address of the pod's
//! shim, becoming that shim if there is none yet; `delete` clears away what a dead shim left;
//! `-info` and `-v` describe it.
#![forbid(unsafe_code)]

mod audit;
mod background;
mod children;
mod cleanup;
mod clock;
mod connections;
mod context;
mod daemon;
mod delete;
mod failure;
mod group;
mod handler;
mod ids;
mod info;
mod io;
mod logger;
mod metrics;
mod placement;
mod plugins;
mod pod;
mod publisher;
mod ready;
mod sandbox_files;
mod serve;
mod service;
mod shutdown;
mod socket;
mod start;
mod store;
mod sync;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "containerd-shim-husk-v2: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if daemon::is_asked_for() {
        return daemon::run();
    }
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let flags = containerd_shim::parse(&args)?;
    if flags.version {
        return info::print_version();
    }
    if flags.info {
        return info::print();
    }
    match flags.action.as_str() {
        "start" => start::run(&flags),
        "delete" => delete::run(&flags),
        "" => bail!("no action: containerd runs this program with `start` or `delete`"),
        other => bail!("unknown action `{other}`: expected `start` or `delete`"),
    }
}
