//! Runs the compiler, in a process of its own.
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use husk_sandbox::process::Ended;
use husk_sandbox::spawn;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::children;
use crate::children::Children;

/// The program that has the compiler: beside the shim, else on PATH.
const PROGRAM: &str = "husk";

/// The largest known guest takes 10 s of one CPU; a hundred pods that start at once wait for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much of what the compiler says is kept, in bytes.
const WORDS: u64 = 4096;

const SIGKILL: i32 = 9;

/// Compiles a component into the node's cache. Of several at once, one compiles and the others wait.
pub(super) async fn run(component: &Path, children: &Arc<Children>) -> Result<(), String> {
    let program = program();
    let failed = |error: io::Error| {
        format!(
            "it is not compiled yet, and {} cannot be run to do so: {error}; install husk beside \
             the shim, or run `husk policy compile {}` once",
            program.display(),
            component.display()
        )
    };
    let (said, stderr) = io::pipe().map_err(failed)?;
    let mut command = Command::new(&program);
    command
        .args(["policy", "compile", "--confined"])
        .arg(component)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let process = Arc::new(spawn::with_descriptors(command, []).map_err(failed)?);
    children.claim(process.pid);
    let ended = timeout(PATIENCE, outcome(&process, said)).await;
    if ended.is_err() {
        // ESRCH: it has ended meanwhile.
        let _ = process.signal(SIGKILL);
        let _ = children::ended(&process).await;
    }
    children.release(process.pid);
    match ended {
        Ok(Ok((Ended::Exited(0), _))) => Ok(()),
        Ok(Ok((_, words))) => Err(format!("it does not compile: {}", words.trim())),
        Ok(Err(error)) => Err(format!("the compiler cannot be waited for: {error}")),
        Err(_) => Err(format!(
            "it was not compiled within {} s",
            PATIENCE.as_secs()
        )),
    }
}

/// How it ended, and what it said.
async fn outcome(
    process: &Arc<husk_sandbox::process::Pidfd>,
    said: PipeReader,
) -> io::Result<(Ended, String)> {
    let mut words = Vec::new();
    pipe::Receiver::from_owned_fd(said.into())?
        .take(WORDS)
        .read_to_end(&mut words)
        .await?;
    Ok((
        children::ended(process).await?,
        String::from_utf8_lossy(&words).into_owned(),
    ))
}

fn program() -> PathBuf {
    // Not /proc/self/exe: that is on a mount of its own.
    let beside = std::env::args_os()
        .next()
        .and_then(|shim| std::fs::canonicalize(shim).ok())
        .and_then(|shim| Some(shim.parent()?.join(PROGRAM)));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PROGRAM.into())
}
