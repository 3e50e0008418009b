//! `husk policy compile`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use husk_plugin_host::artifact::{self, Cache};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};

use super::{Subject, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The components
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the machine code is kept; shims read the default
    #[arg(long, default_value = artifact::DIR)]
    cache: PathBuf,
    /// Give up what compiling does not need first, and leave alone what is compiled already: how
    /// the shim runs this
    #[arg(long)]
    confined: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.confined {
        confine().context("giving up what compiling does not need")?;
    }
    let cache = Cache::new(&args.cache);
    for file in &args.files {
        let subject = Subject::read(file)?;
        let _lock = cache.lock(&subject.digest)?;
        if args.confined && cache.path(&subject.digest).exists() {
            // Somebody else compiled it while this process waited for the lock.
            continue;
        }
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

/// A component is somebody else's file and the compiler large: no network, no new rights, bounded
/// time, memory and files.
fn confine() -> Result<()> {
    set_no_new_privs()?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    for (resource, limit) in [
        // Seconds of CPU: ten times what the largest known guest takes.
        (Resource::RLIMIT_CPU, 100),
        // Bytes: ten times what the largest known guest takes.
        (Resource::RLIMIT_AS, 4 << 30),
        (Resource::RLIMIT_FSIZE, 512 << 20),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, 64),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}
