//! Runs a command in a lab: `lab cargo test -p husk-tests`.
//!
//! Starts the lab's containerd first; stops it afterwards, and fails if the command left anything
//! behind: a process, a mount, a cgroup, a socket, a pod's record.
#![allow(
    clippy::print_stderr,
    reason = "a program of the suite, which reports on the terminal"
)]
use std::env;
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, ensure};
use husk_tests::containerd::Containerd;
use husk_tests::lab::Lab;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().context("usage: lab COMMAND [ARG...]")?;
    let lab = Lab::enter()?;
    let containerd = Containerd::start(&lab, "suite");
    let mut command = Command::new(&program)
        .args(arguments)
        .envs(lab.environment())
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    let status = wait(&mut command, &containerd)?;
    if !status.success() {
        containerd.keep_log();
    }
    drop(containerd);
    let left = lab.leave()?;
    for what in &left {
        eprintln!("lab: left behind: {what}");
    }
    Ok(if status.success() && left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Waits for the command, and reaps what shims orphan meanwhile, as a machine's init does.
fn wait(command: &mut Child, containerd: &Containerd) -> Result<ExitStatus> {
    loop {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let ended = waitid(Id::All, peek)?.pid().context("a child that ended")?;
        if ended.as_raw() == command.id().cast_signed() {
            return Ok(command.wait()?);
        }
        ensure!(
            containerd.pid() != Some(ended),
            "containerd ended:\n{}",
            containerd.log()
        );
        waitpid(ended, None)?;
    }
}
