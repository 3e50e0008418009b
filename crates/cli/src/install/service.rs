//! containerd as a service of systemd: made to read its configuration anew.
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::containerd::run;

const UNIT: &str = "containerd.service";
/// There while systemd is process 1; see sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// How long containerd may take to listen, and must run then to count as started.
const PATIENCE: Duration = Duration::from_secs(30);
const STEADY: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// The unit, where it runs.
pub(crate) struct Service(());

impl Service {
    /// Nothing where there is no systemd, no such unit, or where it does not run.
    pub(crate) fn running() -> Option<Self> {
        Path::new(BOOTED).exists().then_some(())?;
        let unit = Self(());
        (unit.property("ActiveState").ok()? == "active").then_some(unit)
    }

    fn property(&self, name: &str) -> Result<String> {
        let said = run(Command::new("systemctl").args(["show", "--value", "-p", name, UNIT]))?;
        Ok(said.trim().to_owned())
    }

    /// Where its process looks for programs, shims among them.
    pub(crate) fn search_path(&self) -> Result<Vec<PathBuf>> {
        let pid = self.property("MainPID")?;
        let path = format!("/proc/{pid}/environ");
        let environment = std::fs::read(&path).with_context(|| format!("reading {path}"))?;
        let found = environment
            .split(|byte| *byte == 0)
            .find_map(|it| it.strip_prefix(b"PATH="))
            .unwrap_or_default();
        let found = String::from_utf8_lossy(found).into_owned();
        Ok(std::env::split_paths(&found).collect())
    }

    /// Restarts it, and waits until it listens and goes on to run.
    ///
    /// # Errors
    /// It does not; with what it has said last.
    pub(super) fn restart(&self, socket: &Path) -> Result<()> {
        let restarted = run(Command::new("systemctl").args(["restart", UNIT])).map(drop);
        let done = restarted.and_then(|()| self.wait(socket));
        done.map_err(|error| error.context(self.last_words()))
    }

    fn wait(&self, socket: &Path) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        while let Err(error) = UnixStream::connect(socket) {
            if Instant::now() > patience {
                return Err(error)
                    .with_context(|| format!("connecting to containerd at {}", socket.display()));
            }
            thread::sleep(POLL);
        }
        let pid = self.property("MainPID")?;
        thread::sleep(STEADY);
        let now = self.property("MainPID")?;
        if now != pid || now == "0" {
            bail!("{UNIT} has ended again");
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let mut journal = Command::new("journalctl");
        let said = run(journal.args(["-u", UNIT, "-n", "10", "-o", "cat", "--no-pager"]));
        format!("{UNIT} said: {}", said.unwrap_or_default().trim())
    }
}
