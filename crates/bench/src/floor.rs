//! The floor: `husk-floor`, asked for a container's life over its standard streams.
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use husk_engine::account::Account;
use husk_engine::spec;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::bed::Bed;
use crate::pod::END;
use crate::shims::times;
use crate::stats::Sample;

/// A floor that waits for containers.
pub(crate) struct Floor<'a> {
    bed: &'a Bed,
    pub(crate) account: Account,
    /// Killed when dropped.
    _child: Child,
    count: usize,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl<'a> Floor<'a> {
    /// Starts it with the spec that every candidate's containers have.
    pub(crate) fn start(bed: &'a Bed, program: &Path, account: Account) -> Result<Self> {
        let bundle = bed.write_bundle("floor", Some(&spec::alone("", "", &END)?))?;
        let guest = account.enter()?;
        let spawned = Command::new(program)
            .arg(bundle.join("config.json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        guest.leave()?;
        let mut child = spawned.with_context(|| format!("run {}", program.display()))?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.context("the floor has no output")?;
        Ok(Self {
            bed,
            account,
            requests: requests.context("the floor has no input")?,
            answers: BufReader::new(answers).lines(),
            _child: child,
            count: 0,
        })
    }

    /// A container's life.
    pub(crate) async fn life(&mut self) -> Result<Sample> {
        self.count += 1;
        let id = format!("floor-{}", self.count);
        let root = self.bed.write_bundle(&id, None)?.join("rootfs");
        let used = self.account.used()?;
        let begun = Instant::now();
        let line = format!("{} {}/{id}\n", root.display(), self.account.path());
        self.requests.write_all(line.as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        let wall = begun.elapsed();
        ensure!(
            answer.as_deref() == Some("0"),
            "the floor's container {id} ended with {}",
            answer.as_deref().unwrap_or("no answer; it has said why")
        );
        let cpu = self.account.settled().await?.saturating_sub(used);
        self.bed.remove_bundle(&id)?;
        Ok(times(wall, cpu))
    }
}
