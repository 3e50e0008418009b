//! What a run needs to know before it begins.
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::FLOOR;
use crate::candidate::{Candidate, program};

/// Whom the others are compared with; also checks that the names tell the candidates apart.
pub(super) fn baseline(wanted: Option<&str>, candidates: &[Candidate]) -> Result<String> {
    let names: Vec<_> = candidates.iter().map(|one| one.name.as_str()).collect();
    let first = names
        .first()
        .context("there is nothing to measure: no shim is in PATH; name one with --candidate")?;
    for (at, name) in names.iter().enumerate() {
        let taken = names.iter().take(at).any(|other| other == name) || *name == FLOOR;
        ensure!(!taken, "the name {name} of a candidate is taken");
    }
    let usual = names.iter().find(|name| **name == "runc").unwrap_or(first);
    let baseline = wanted.unwrap_or(usual);
    ensure!(
        names.contains(&baseline),
        "the baseline {baseline} is none of the candidates {}",
        names.join(", ")
    );
    Ok(baseline.to_owned())
}

/// The program `husk-floor`; `None` if it was not asked for and is not there.
pub(super) fn floor(asked: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    if let Some(path) = asked {
        return program(&path.to_string_lossy()).map(Some);
    }
    let own = std::env::current_exe().context("find husk's own binary")?;
    let beside = own.with_file_name("husk-floor");
    if beside.is_file() {
        return Ok(Some(beside));
    }
    Ok(program("husk-floor").ok())
}

/// Turns true at the first SIGINT or SIGTERM.
pub(super) fn interruption() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_replace(true);
        // Whoever waits for it must not take the end of this task for the end of its hope.
        sender.closed().await;
    });
    Ok(receiver)
}
