//! `husk policy compile`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use husk_plugin_host::artifact::{self, Cache};

use super::{Subject, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The components
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the machine code is kept; shims read the default
    #[arg(long, default_value = artifact::DIR)]
    cache: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let cache = Cache::new(&args.cache);
    for file in &args.files {
        let subject = Subject::read(file)?;
        let _lock = cache.lock(&subject.digest)?;
        let started = Instant::now();
        let code = artifact::compile(file, &subject.bytes)?;
        let path = cache.store(&subject.digest, &code)?;
        line(format_args!(
            "{}: {} kB of component, {} kB of machine code in {} ms: {}",
            file.display(),
            subject.bytes.len() / 1000,
            code.len() / 1000,
            started.elapsed().as_millis(),
            path.display(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
