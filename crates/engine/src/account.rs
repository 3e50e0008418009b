//! What something costs: a cgroup whose use of the processor the kernel adds up.
//!
//! A cgroup's time is that of every process that was ever in it or below it, those that ended
//! included, so nothing that a shim starts escapes: not its daemon, not the runtime it calls, not
//! what its subreaper reaps or never reaps. getrusage(2) would lose the last of these. What it
//! does not count is what the kernel's own threads do later, such as taking a network namespace
//! down.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cgroup::{self, ROOT, in_hierarchy, is_v2, named};

/// The hierarchy that counts processor time where each controller has its own (cgroups(7)).
const CPUACCT: &str = "cpuacct";

/// What pods' cgroups below may need.
const CONTROLLERS: [&str; 4] = ["+cpu", "+io", "+memory", "+pids"];

/// The cgroup that processes enter; with v2 one that has cgroups below must be empty itself.
const LEAF: &str = "shim";

/// How often a settling account is looked at, and how many looks in a row must find it unchanged.
const LOOK: Duration = Duration::from_millis(3);
const QUIET_LOOKS: u32 = 4;

/// How long an account may take to settle.
const PATIENCE: Duration = Duration::from_secs(2);

/// A cgroup that counts, and those below it. Remove it with [`Account::remove`].
#[derive(Clone, Debug)]
pub struct Account {
    path: String,
}

/// The calling process is in an account's cgroup until [`Guest::leave`].
#[derive(Debug)]
#[must_use = "the process stays in the cgroup until it leaves"]
pub struct Guest {
    home: PathBuf,
}

impl Account {
    /// Makes the cgroup `path`, such as `/husk-bench-7/runc`.
    ///
    /// # Errors
    /// The file and what the kernel answered.
    pub fn create(path: &str) -> io::Result<Self> {
        let account = Self {
            path: path.to_owned(),
        };
        let leaf = account.directory().join(LEAF);
        fs::create_dir_all(&leaf).map_err(|error| named(&leaf, &error))?;
        if is_v2() {
            let mut parents: Vec<_> = leaf.ancestors().skip(1).collect();
            parents.retain(|parent| parent.starts_with(ROOT));
            for parent in parents.iter().rev() {
                for controller in CONTROLLERS {
                    // A controller that this machine has not got is one that no container needs.
                    let _ = fs::write(parent.join("cgroup.subtree_control"), controller);
                }
            }
        }
        Ok(account)
    }

    /// The cgroup, as an OCI `cgroupsPath` names it. Cgroups below it count too.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Moves the calling process into the account, so that what it starts is counted.
    ///
    /// # Errors
    /// The file and what the kernel answered.
    pub fn enter(&self) -> io::Result<Guest> {
        let home = directory(&of_this_process()?);
        join(&self.directory().join(LEAF))?;
        Ok(Guest { home })
    }

    /// Processor time, user's and system's, of all that was ever in the cgroup or below.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub fn used(&self) -> io::Result<Duration> {
        used(&self.directory())
    }

    /// The processor time once nothing has been going on for a while: what is put off until
    /// after the answer counts too. A process that never rests is counted for two seconds.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub async fn settled(&self) -> io::Result<Duration> {
        settled(&[self.directory()]).await
    }

    /// The processes in the cgroup and below.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        collect(&self.directory(), &mut found)?;
        Ok(found)
    }

    /// Kills what is still in the cgroup and removes it, in every hierarchy.
    ///
    /// # Errors
    /// A cgroup that stays busy.
    pub async fn remove(&self) -> io::Result<()> {
        cgroup::remove(&self.path).await
    }

    /// The cgroup's directory in the hierarchy that counts.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        directory(&self.path)
    }
}

impl Guest {
    /// Moves the process back to where it was.
    ///
    /// # Errors
    /// The file and what the kernel answered.
    pub fn leave(self) -> io::Result<()> {
        join(&self.home)
    }
}

/// The cgroup that counts for a process that somebody else started, `None` for the root: there,
/// its time cannot be told from everything else's.
///
/// # Errors
/// The process is gone.
pub fn of_process(pid: i32) -> io::Result<Option<PathBuf>> {
    let path = of(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
    Ok((path != "/").then(|| directory(&path)))
}

/// The processor time of all of these cgroups, once nothing has been going on for a while.
///
/// # Errors
/// The file that cannot be read.
pub async fn settled(cgroups: &[PathBuf]) -> io::Result<Duration> {
    let sum = || {
        cgroups
            .iter()
            .map(|cgroup| used(cgroup))
            .sum::<io::Result<Duration>>()
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut quiet) = (sum()?, 0);
    while quiet < QUIET_LOOKS && Instant::now() < deadline {
        sleep(LOOK).await;
        let now = sum()?;
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn used(cgroup: &Path) -> io::Result<Duration> {
    if is_v2() {
        let file = cgroup.join("cpu.stat");
        let text = fs::read_to_string(&file).map_err(|error| named(&file, &error))?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        return number(&file, value).map(Duration::from_micros);
    }
    let file = cgroup.join("cpuacct.usage");
    let text = fs::read_to_string(&file).map_err(|error| named(&file, &error))?;
    number(&file, Some(&text)).map(Duration::from_nanos)
}

fn number(file: &Path, text: Option<&str>) -> io::Result<u64> {
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("{} holds no number", file.display())))
}

fn of_this_process() -> io::Result<String> {
    of(Path::new("/proc/self/cgroup"))
}

/// The path in the hierarchy that counts, from a file as in cgroups(7).
fn of(file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file).map_err(|error| named(file, &error))?;
    let path = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let counts = if is_v2() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == CPUACCT)
        };
        counts.then(|| path.to_owned())
    });
    path.ok_or_else(|| {
        io::Error::other(format!(
            "{} names no cgroup that counts processor time: mount cgroup v2, or v1's cpuacct",
            file.display()
        ))
    })
}

fn directory(path: &str) -> PathBuf {
    let root = if is_v2() {
        PathBuf::from(ROOT)
    } else {
        Path::new(ROOT).join(CPUACCT)
    };
    in_hierarchy(&root, path)
}

fn join(cgroup: &Path) -> io::Result<()> {
    let file = cgroup.join("cgroup.procs");
    fs::write(&file, "0").map_err(|error| named(&file, &error))
}

fn collect(cgroup: &Path, found: &mut Vec<i32>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(cgroup) else {
        // Removed meanwhile, as those of ended containers are.
        return Ok(());
    };
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}
