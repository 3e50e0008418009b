//! Runs a command in a lab: `lab cargo test -p husk-tests`, or for measuring `lab --bench COMMAND`.
//!
//! Starts the lab's containerd first; stops it afterwards, and fails if the command left anything
//! behind: a process, a mount, a cgroup, a socket, a pod's record.
#![allow(
    clippy::print_stderr,
    reason = "a program of the suite, which reports on the terminal"
)]
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::{env, thread};

use anyhow::{Context, Result, ensure};
use husk_tests::containerd::{Containerd, Purpose};
use husk_tests::lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

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
    let lab = Lab::enter()?;
    let status = run_in(&lab);
    let left = lab.leave()?;
    for what in &left {
        eprintln!("lab: left behind: {what}");
    }
    Ok(if status?.success() && left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the command beside a containerd.
fn run_in(lab: &Lab) -> Result<ExitStatus> {
    let mut arguments = env::args_os().skip(1).peekable();
    let bench = arguments.next_if(|argument| argument == "--bench");
    let purpose = bench.map_or(Purpose::Tests, |_| Purpose::Bench);
    let program = arguments
        .next()
        .context("usage: lab [--bench] COMMAND [ARG...]")?;
    let containerd = Containerd::start(lab, "suite", purpose);
    let mut command = Command::new(&program)
        .args(arguments)
        .envs(lab.environment())
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    pass_on_signals(&command)?;
    let status = wait(&mut command, &containerd);
    if !status.as_ref().is_ok_and(ExitStatus::success) {
        containerd.keep_log();
    }
    status
}

/// Ends the command when this program is told to end, which so gets to clean up.
fn pass_on_signals(command: &Child) -> Result<()> {
    let command = Pid::from_raw(command.id().cast_signed());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _guard = runtime.enter();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupted.recv() => (),
                    _ = terminated.recv() => (),
                }
                kill(command, Signal::SIGTERM).ok();
            }
        });
    });
    Ok(())
}

/// Waits for the command, and reaps what shims orphan meanwhile, as a machine's init does.
fn wait(command: &mut Child, containerd: &Containerd) -> Result<ExitStatus> {
    loop {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let ended = waitid(Id::All, peek)?.pid().context("a child that ended")?;
        if ended.as_raw() == command.id().cast_signed() {
            return Ok(command.wait()?);
        }
        ensure!(containerd.pid() != Some(ended), "containerd ended");
        waitpid(ended, None)?;
    }
}
