//! `husk-floor`: the least that running a container takes on this machine.
//!
//! Does for the container of a spec what no runtime can leave out, the cgroup, clone(2) into new
//! namespaces, the mounts, pivot_root(2), the masked and read-only paths, the seccomp filter and
//! execve(2), and no more: no device nodes but those that the masks need, no device rules, no
//! change of capabilities, no record, no state between create and start. What can be done once,
//! reading the spec and compiling the filter, is done before the first container.
//!
//! `husk-floor CONFIG` reads from its standard input a line `ROOTFS CGROUP` for each container,
//! and answers each with the container's exit status once nothing is left of it. It stays between
//! containers, as a shim does.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the answers of a program that is spoken to on its standard streams"
)]

mod cgroup;
mod filter;
mod mounts;

use std::ffi::CString;
use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use husk_sandbox::daemon::Side;
use husk_sandbox::floor::{Filter, fork_into};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, execve, sethostname};
use oci_spec::runtime::Spec;

use crate::cgroup::Cgroups;

/// What the exit status of a container says whose program never ran.
const NOT_RUN: i32 = 125;

/// All that is known before a container comes.
struct Floor {
    spec: Spec,
    args: Vec<CString>,
    environment: Vec<CString>,
    filter: Filter,
    cgroups: Cgroups,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("husk-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = std::env::args_os()
        .nth(1)
        .context("usage: husk-floor CONFIG (an OCI config.json)")?;
    let mut floor = Floor::new(Path::new(&config))?;
    for line in stdin().lock().lines() {
        let line = line.context("read a container's line")?;
        let (rootfs, cgroup) = line
            .split_once(' ')
            .with_context(|| format!("`{line}` is not ROOTFS CGROUP"))?;
        let status = floor.live(Path::new(rootfs), cgroup)?;
        writeln!(stdout().lock(), "{status}").context("answer")?;
    }
    Ok(())
}

impl Floor {
    fn new(config: &Path) -> Result<Self> {
        let spec = Spec::load(config).with_context(|| format!("read {}", config.display()))?;
        let process = spec.process().as_ref().context("the spec has no process")?;
        let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
            let list = list.iter().flatten();
            Ok(list
                .map(|text| CString::new(text.as_str()))
                .collect::<Result<_, _>>()?)
        };
        Ok(Self {
            args: strings(process.args())?,
            environment: strings(process.env())?,
            filter: filter::compile(&spec).context("compile the seccomp profile")?,
            cgroups: Cgroups::find()?,
            spec,
        })
    }

    /// A container's whole life. Returns its exit status.
    fn live(&mut self, rootfs: &Path, cgroup: &str) -> Result<i32> {
        let places = self.cgroups.make(cgroup)?;
        let namespaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        let status = match fork_into(namespaces).context("clone")? {
            Side::Child => {
                if let Err(error) = self.become_the_container(rootfs, &places) {
                    eprintln!("husk-floor: {error:#}");
                }
                std::process::exit(NOT_RUN)
            }
            Side::Parent(child) => waitpid(Pid::from_raw(child), None).context("wait")?,
        };
        cgroup::remove(&places)?;
        match status {
            WaitStatus::Exited(_, NOT_RUN) => bail!("the container's program did not run"),
            WaitStatus::Exited(_, status) => Ok(status),
            WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
            other => bail!("the container ended as {other:?}"),
        }
    }

    fn become_the_container(&mut self, rootfs: &Path, places: &[cgroup::Place]) -> Result<()> {
        cgroup::join(places)?;
        if self.cgroups.unified() {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).context("unshare the cgroups")?;
        }
        if let Some(name) = self.spec.hostname() {
            sethostname(name).context("set the host name")?;
        }
        mounts::make(&self.spec, rootfs, places)?;
        prctl::set_no_new_privs().context("set no_new_privs")?;
        self.filter.load().context("load the seccomp filter")?;
        let program = self.args.first().context("the spec has no args")?;
        execve(program, &self.args, &self.environment)
            .with_context(|| format!("execute {}", program.to_string_lossy()))?;
        Ok(())
    }
}
