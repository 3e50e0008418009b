//! A lab: the part of the machine that belongs to one run of the suite.
//!
//! Its mount namespace has its own `/run/containerd`, `/run/husk`, `/run/netns`, `/etc/husk` and
//! `/var/log/husk`; its network namespace is, for the pods in it, the node's. So a containerd that the machine already runs
//! sees nothing of the suite, and the suite nothing of it.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::{image, process as proc, residue};

const PROGRAMS: &str = "HUSK_LAB";
const RUN: &str = "HUSK_LAB_RUN";
const SHIM_DIR: &str = "HUSK_SHIM_DIR";
const RUNTIME: &str = "HUSK_TEST_RUNTIME";

/// The places and names of this run.
#[derive(Clone, Debug)]
pub struct Lab {
    /// containerd, runc, crun (`bin`) and CNI plugins (`cni`), as `tests/lab/get` unpacked them.
    pub programs: PathBuf,
    /// A tmpfs for all that this run writes.
    pub run: PathBuf,
    /// The folder of the shim under test.
    pub shim_dir: PathBuf,
    /// The runtime under test, `io.containerd.husk.v2`; another one proves the tests themselves.
    pub runtime: String,
}

impl Lab {
    /// The lab this test runs in.
    ///
    /// # Panics
    /// Outside of a lab.
    #[must_use]
    pub fn get() -> Self {
        let run = env::var_os(RUN).unwrap_or_else(|| {
            panic!("this test needs a lab: use `tests/run`, or `target/debug/lab cargo test ...`")
        });
        Self::new(run.into()).unwrap()
    }

    fn new(run: PathBuf) -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the repository's folder")?;
        let folder = |name: &str, default: &str| {
            env::var_os(name).map_or_else(|| repository.join(default), PathBuf::from)
        };
        let programs = folder(PROGRAMS, "target/lab");
        ensure!(
            programs.join("bin/containerd").exists(),
            "there is no containerd in {}/bin; `tests/lab/get {0}` unpacks one",
            programs.display()
        );
        Ok(Self {
            programs,
            run,
            shim_dir: folder(SHIM_DIR, "target/debug"),
            runtime: env::var(RUNTIME).unwrap_or_else(|_| "io.containerd.husk.v2".into()),
        })
    }

    /// Enters a new lab; must be called before the process has a second thread.
    ///
    /// # Errors
    /// Without root, or when a mount is refused.
    pub fn enter() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a lab makes namespaces and mounts: run it as root"
        );
        let run = PathBuf::from(format!("/tmp/husk-lab-{}", process::id()));
        let lab = Self::new(run)?;
        // Orphans (shims, then what shims leave behind) become our children, so that `leave` finds them.
        nix::sys::prctl::set_child_subreaper(true)?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("unshare mount and network namespaces")?;
        change_propagation("/", MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
        hide_hybrid_cgroup2()?;
        fs::create_dir(&lab.run).with_context(|| format!("create {}", lab.run.display()))?;
        tmpfs(&lab.run)?;
        for dir in [
            "/run/containerd",
            "/run/husk",
            "/run/netns",
            "/etc/husk",
            "/var/log/husk",
        ] {
            fs::create_dir_all(dir)?;
            tmpfs(Path::new(dir))?;
        }
        // As on a node that systemd booted: mounts made in a shared volume propagate.
        change_propagation("/", MsFlags::MS_SHARED | MsFlags::MS_REC)?;
        let loopback = Command::new(image::busybox()?)
            .args(["ip", "link", "set", "lo", "up"])
            .status()?;
        ensure!(loopback.success(), "bring the lab's loopback device up");
        Ok(lab)
    }

    /// The environment by which a program finds this lab.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            (PROGRAMS, self.programs.clone()),
            (RUN, self.run.clone()),
            (SHIM_DIR, self.shim_dir.clone()),
        ]
    }

    /// The name under which this run's containers have their cgroups: a containerd namespace for
    /// `ctr`, the parent of the pods' cgroups for CRI.
    #[must_use]
    pub fn tag(&self) -> String {
        let run = self.run.file_name().unwrap_or_default().to_string_lossy();
        run.replace('-', "")
    }

    /// Whether the tests run against husk rather than a peer that proves the tests.
    #[must_use]
    pub fn tests_husk(&self) -> bool {
        self.runtime == "io.containerd.husk.v2"
    }

    /// Ends all that is left of the lab, and says what that was.
    ///
    /// # Errors
    /// If the lab's folder cannot be removed.
    pub fn leave(self) -> Result<BTreeSet<String>> {
        let mut left = BTreeSet::new();
        let descendants = proc::descendants(nix::unistd::getpid());
        for pid in descendants.into_iter().filter(|pid| proc::is_alive(*pid)) {
            left.insert(format!("process {pid}: {}", proc::cmdline(pid)));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
        proc::reap_all();
        left.extend(residue::remove_cgroups(&self.tag()));
        left.extend(residue::mounts_below(&self.run));
        left.extend(residue::files_in_run());
        umount2(&self.run, MntFlags::MNT_DETACH)?;
        fs::remove_dir(&self.run)?;
        Ok(left)
    }
}

fn tmpfs(dir: &Path) -> Result<()> {
    mount(
        Some("tmpfs"),
        dir,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .with_context(|| format!("mount a tmpfs at {}", dir.display()))
}

fn change_propagation(dir: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("change the propagation of {dir}"))
}

/// A machine with cgroup v1 may have an empty v2 hierarchy beside it, which crun refuses.
fn hide_hybrid_cgroup2() -> Result<()> {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() {
        umount2(unified, MntFlags::MNT_DETACH).context("unmount the hybrid cgroup v2 hierarchy")?;
        // crun makes its cgroups there all the same, as plain directories.
        tmpfs(unified)?;
    }
    Ok(())
}
