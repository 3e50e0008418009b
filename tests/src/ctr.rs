//! Plain containers, by containerd's own client.
use std::fs;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{Output, poll, run, run_with_input, until};
use crate::containerd::Containerd;
use crate::{image, residue, spec};

/// A name that no other container of this run has, nor begins with.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}x", process::id())
}

/// `ctr` in the containerd namespace of this run.
#[derive(Clone, Debug)]
pub struct Ctr<'a> {
    containerd: &'a Containerd,
    namespace: String,
}

impl<'a> Ctr<'a> {
    pub(crate) fn new(containerd: &'a Containerd) -> Self {
        let namespace = containerd.lab().tag();
        Self {
            containerd,
            namespace,
        }
    }

    /// The command, to which the caller adds its words.
    #[must_use]
    pub fn command(&self) -> Command {
        self.containerd.ctr_command(&self.namespace)
    }

    /// The containerd namespace of this run.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs it with these words.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        run(self.command().args(words))
    }

    /// A container of the busybox image, not yet made.
    #[must_use]
    pub fn container(&self) -> Container<'a> {
        Container {
            ctr: self.clone(),
            id: unique("ctr"),
            flags: Vec::new(),
            source: Some(image::BUSYBOX.into()),
        }
    }
}

/// One container of `ctr`'s. Dropping it ends and removes it, and then nothing may be left.
#[derive(Debug)]
pub struct Container<'a> {
    ctr: Ctr<'a>,
    /// Its id.
    pub id: String,
    flags: Vec<String>,
    /// An image, or a folder; nothing where a spec says all.
    source: Option<String>,
}

impl Container<'_> {
    /// Adds a flag of `ctr run`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Takes its files from this folder instead of the image.
    #[must_use]
    pub fn rootfs(mut self, folder: &str) -> Self {
        self.source = Some(folder.into());
        self.flag("--rootfs")
    }

    /// Makes it from an OCI spec, of a busybox in a folder of its own, after this change. No words
    /// are added when it is run.
    ///
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn spec(mut self, args: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let folder = self.folder();
        let rootfs = folder.join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        image::rootfs(&rootfs).unwrap();
        let cgroup = format!("/{}/{}", self.ctr.namespace, self.id);
        let mut spec = spec::of(&cgroup, &rootfs, args);
        change(&mut spec);
        let config = folder.join("config.json");
        fs::write(&config, spec.to_string()).unwrap();
        self.source = None;
        self.flag("--config").flag(&config.to_string_lossy())
    }

    /// `ctr run` with these words of its own and the command, not yet started.
    #[must_use]
    pub fn command(&self, flags: &[&str], words: &[&str]) -> Command {
        let mut command = self.ctr.command();
        command
            .args(["run", "--runtime", &self.ctr.containerd.lab().runtime])
            .args(flags)
            .args(&self.flags)
            .args(&self.source)
            .arg(&self.id)
            .args(words);
        command
    }

    /// Runs it in the foreground, to its end.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        run(&mut self.command(&["--rm"], words))
    }

    /// Runs it in the foreground with this and no more to read.
    #[track_caller]
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Output {
        // ctr forgets the end of its input if that comes before the task runs.
        run_with_input(&mut self.command(&["--rm"], words), input, || {
            self.until_status("RUNNING");
        })
    }

    /// Starts it in the foreground of another thread, and gives it back once it runs.
    ///
    /// # Panics
    /// If it does not run by the deadline.
    #[must_use]
    #[track_caller]
    pub fn spawn(&self, words: &[&str]) -> JoinHandle<Output> {
        let mut command = self.command(&[], words);
        let running = thread::spawn(move || run(&mut command));
        until(&format!("{} is RUNNING", self.id), || {
            running.is_finished() || self.status().as_deref() == Some("RUNNING")
        });
        running
    }

    /// Starts it in the background, its output going to this log, such as `file:///PATH`.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn start_with_log(&self, log: &str, words: &[&str]) {
        let _ = run(&mut self.command(&["--detach", "--log-uri", log], words)).ok();
    }

    /// Starts it in the background, its output going nowhere.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn start(&self, words: &[&str]) {
        let _ = run(&mut self.command(&["--detach", "--null-io"], words)).ok();
    }

    /// Runs a further process in it.
    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> Output {
        run(&mut self.exec_command(&[], words))
    }

    /// `ctr task exec` with these flags and this command, not yet started.
    #[must_use]
    pub fn exec_command(&self, flags: &[&str], words: &[&str]) -> Command {
        let mut command = self.ctr.command();
        command.args(["task", "exec"]);
        if !flags.contains(&"--exec-id") {
            command.args(["--exec-id", &unique("exec")]);
        }
        command.args(flags).arg(&self.id).args(words);
        command
    }

    /// A file as the container sees it.
    ///
    /// # Panics
    /// If there is no such file, or no such container any more.
    #[must_use]
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let path = format!("/proc/{}/root{path}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"))
    }

    /// A folder of the lab that is this container's alone.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let folder = self.ctr.containerd.lab().run.join("files").join(&self.id);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The folder that containerd made for its shim.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        let bundles = self.ctr.containerd.bundles(&self.ctr.namespace);
        bundles.join(&self.id)
    }

    /// Runs `ctr task VERB ... ID`.
    #[track_caller]
    pub fn task(&self, words: &[&str]) -> Output {
        run(self.ctr.command().arg("task").args(words).arg(&self.id))
    }

    /// The status that `ctr task list` shows, such as `RUNNING`; `None` without a task.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Option<String> {
        self.listed().map(|(_, status)| status)
    }

    /// The pid of its init.
    ///
    /// # Panics
    /// If it has no task.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> Pid {
        self.listed().expect("a task").0
    }

    fn listed(&self) -> Option<(Pid, String)> {
        let list = self.ctr.run(&["task", "list"]);
        let line = list
            .stdout
            .lines()
            .find(|line| line.starts_with(&self.id))?;
        let mut fields = line.split_whitespace().skip(1);
        let pid = fields.next()?.parse().ok()?;
        Some((Pid::from_raw(pid), fields.next()?.into()))
    }

    /// Waits until its status is this one.
    ///
    /// # Panics
    /// If it never is.
    #[track_caller]
    pub fn until_status(&self, wanted: &str) {
        until(&format!("{} is {wanted}", self.id), || {
            self.status().as_deref() == Some(wanted)
        });
    }

    /// Sends its init a signal.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn kill(&self, signal: &str) {
        let _ = self.task(&["kill", "--signal", signal]).ok();
    }

    /// Runs the shim's `delete` for it, which containerd leaves out when `start` has failed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn delete_by_hand(&self) {
        let containerd = self.ctr.containerd;
        let mut delete = Command::new(containerd.lab().shim_dir.join("containerd-shim-husk-v2"));
        delete
            .args(["-namespace", &self.ctr.namespace, "-id", &self.id])
            .arg("-address")
            .arg(containerd.socket())
            .arg("-bundle")
            .arg(self.bundle())
            .arg("delete");
        let _ = run(&mut delete).ok();
    }

    /// Ends and removes all of it; whatever is already gone is no error.
    pub fn remove(&self) {
        self.task(&["kill", "--signal", "KILL", "--all"]);
        poll(Duration::from_secs(10), || {
            let status = self.status();
            matches!(status.as_deref(), None | Some("STOPPED")).then_some(())
        });
        self.task(&["delete", "--force"]);
        self.ctr.run(&["container", "delete", &self.id]);
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let ids = [self.id.clone()];
        if thread::panicking() {
            eprintln!("containerd said:\n{}", self.ctr.containerd.log_about(&ids));
            self.remove();
            return;
        }
        self.remove();
        residue::assert_none(&self.ctr.containerd.socket(), &self.ctr.namespace, &ids);
    }
}
