//! `husk completions` and `husk manual`: what packages ship beside the program, made from its own help.
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Cli;

/// Print what completes husk's commands in a shell
///
/// For bash: `husk completions bash > /etc/bash_completion.d/husk`.
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write a manual page for every command
#[derive(clap::Args)]
pub(crate) struct ManualArgs {
    /// Where to, a directory that is made
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "husk", &mut text);
    io::stdout()
        .write_all(&text)
        .context("cannot write the completions")?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn manual(args: &ManualArgs) -> Result<ExitCode> {
    let dir = &args.dir;
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("cannot write the manual to {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManualArgs {
            dir: dir.path().join("man1"),
        };
        manual(&args).unwrap();
        let page = |name: &str| fs::read_to_string(args.dir.join(name)).unwrap();
        assert!(page("husk.1").contains("husk\\-run(1)"));
        assert!(page("husk-run.1").contains("manifest"));
        assert!(page("husk-policy-test.1").contains("cases"));
        let pages = fs::read_dir(&args.dir).unwrap().flatten();
        let hidden = pages.filter(|page| page.file_name().to_string_lossy().contains("pause"));
        assert_eq!(hidden.count(), 0);
    }
}
