//! `husk bench`: the program `husk-bench`, which is built apart: it alone needs gRPC and its compiler.
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};

/// The program, beside this one or in PATH.
const PROGRAM: &str = "husk-bench";

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What `husk-bench` is told; `husk bench --help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Becomes `husk-bench`; returns only when that failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let beside = std::env::current_exe().map(|own| own.with_file_name(PROGRAM));
    let program = beside
        .ok()
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(PROGRAM));
    let error = Command::new(&program).args(&args.words).exec();
    Err(match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "{PROGRAM} is neither beside husk nor in PATH: `crates/build release husk-bench` builds it"
        ),
        _ => anyhow!("cannot run {}: {error}", program.display()),
    })
}
