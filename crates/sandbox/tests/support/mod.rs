//! What the tests of this crate share: a zygote, a busybox rootfs, containers made by them, and a
//! runner with one thread (cargo's own has many, and a threaded process must not fork a zygote).
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
#![allow(
    dead_code,
    reason = "every test binary uses its own part of this module"
)]
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use husk_sandbox::cgroup::Driver;
use husk_sandbox::error::JobError;
use husk_sandbox::job::{Create, Done, Exec, Inherited, Job, Namespaces, Stdio};
use husk_sandbox::process::{Ended, Pidfd, reap_orphans};
use husk_sandbox::rootfs::{Mount, unmount_all};
use husk_sandbox::zygote::Zygote;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::{LinuxSeccomp, Process};
use serde_json::{Value, json};

/// Longer than anything here takes, on a busy machine or a slow guest.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The descriptors of an idle zygote: /dev/null three times, and its socket.
const IDLE: usize = 4;

pub(crate) type Test = (&'static str, fn(&Lab));

/// Runs the tests one after the other; after each, nothing it made may be left.
pub(crate) fn run(tests: &[Test]) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests make namespaces: run them as root"
    );
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if std::env::args().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let lab = Lab::new();
    let mut failed = 0;
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let before = lab.census();
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            test(&lab);
            lab.assert_unchanged(&before);
        }));
        let took = began.elapsed().as_millis();
        println!(
            "test {name} ... {} ({took} ms)",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        if outcome.is_err() {
            failed += 1;
            lab.clean_up();
        }
    }
    lab.close();
    assert_eq!(failed, 0, "tests failed");
}

/// What must be the same before and after a test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census {
    mounts: Vec<String>,
    children: BTreeSet<i32>,
    children_of_the_zygote: BTreeSet<i32>,
    descriptors: usize,
    descriptors_of_the_zygote: usize,
    cgroups: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

pub(crate) struct Lab {
    pub(crate) zygote: Zygote,
    dir: tempfile::TempDir,
    next: Cell<u64>,
}

/// A container that was created, and what came with it.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) init: Pidfd,
    pub(crate) started: Option<OwnedFd>,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) stdout: File,
}

impl Lab {
    fn new() -> Self {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let zygote = Zygote::fork().unwrap();
        let dir = tempfile::Builder::new()
            .prefix("husk-sandbox-")
            .tempdir()
            .unwrap();
        make_rootfs(&dir.path().join("image"));
        fs::create_dir(dir.path().join("run")).unwrap();
        let lab = Self {
            zygote,
            dir,
            next: Cell::new(1),
        };
        // Once it answers it has shed what it inherited, and soon what it had for this job.
        lab.perform(Job::Namespaces(Namespaces::default())).unwrap();
        let patience = Instant::now() + LONG;
        while lab.census().descriptors_of_the_zygote > IDLE {
            assert!(Instant::now() < patience, "an idle zygote holds more");
            std::thread::sleep(Duration::from_millis(1));
        }
        lab
    }

    /// Removes what a failed test has left: no more than what descends from this process.
    fn clean_up(&self) {
        let zygote = self.zygote.process().pid;
        let me = nix::unistd::getpid().as_raw();
        for _ in 0..100 {
            for child in children(me).into_iter().chain(children(zygote)) {
                if child != zygote {
                    let child = nix::unistd::Pid::from_raw(child);
                    let _ = nix::sys::signal::kill(child, nix::sys::signal::SIGKILL);
                }
            }
            let _ = reap_orphans(&|pid| pid == zygote);
            std::thread::sleep(Duration::from_millis(10));
        }
        while let Ok(Some(_)) = self.zygote.receive() {}
        unmount_all(&self.run_dir()).unwrap();
        fs::remove_dir_all(self.run_dir()).unwrap();
        fs::create_dir(self.run_dir()).unwrap();
        for cgroup in cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
    }

    fn close(self) {
        let process = Pidfd::open(self.zygote.process().pid).unwrap();
        let run_dir = self.run_dir();
        drop(self.zygote);
        assert_eq!(
            wait(&process),
            Ended::Exited(0),
            "the zygote ends with its shim"
        );
        unmount_all(self.dir.path()).unwrap();
        for root in cgroup_roots() {
            let _ = fs::remove_dir(root.join(cgroup_name()));
        }
        assert!(
            run_dir.read_dir().unwrap().next().is_none(),
            "all was removed"
        );
    }

    /// The image all containers are made from.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A directory of this lab that is not a container's.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// A job that makes a container from the default spec, changed by `edit`. Its directory is
    /// there; its standard output is the second of the pair.
    pub(crate) fn create_job(&self, edit: impl FnOnce(&mut Value)) -> (Create, File) {
        let id = format!("c{}", self.next_id());
        let dir = self.run_dir().join(&id);
        fs::create_dir(&dir).unwrap();
        let rootfs = dir.join("rootfs");
        let mut spec = default_spec(&id, &rootfs);
        edit(&mut spec);
        fs::write(dir.join("config.json"), spec.to_string()).unwrap();
        let mounts = vec![Mount {
            kind: "bind".to_owned(),
            source: self.image().display().to_string(),
            target: String::new(),
            options: vec!["rbind".to_owned()],
        }];
        let (reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let stdio = Stdio {
            stdin: None,
            stdout: Some(writer.try_clone().unwrap()),
            stderr: Some(writer),
        };
        let driver = Driver::Cgroupfs;
        let job = Create {
            id,
            bundle: dir.clone(),
            dir,
            rootfs,
            mounts,
            maps_rootfs: false,
            stdio,
            driver,
            loopback: false,
        };
        (job, File::from(OwnedFd::from(reader)))
    }

    pub(crate) fn create(&self, edit: impl FnOnce(&mut Value)) -> Container {
        self.try_create(edit)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_create(&self, edit: impl FnOnce(&mut Value)) -> Result<Container, JobError> {
        let (job, stdout) = self.create_job(edit);
        let dir = job.dir.clone();
        self.created(job, stdout).inspect_err(|_| {
            fs::remove_file(dir.join("config.json")).unwrap();
            let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap()).collect();
            assert!(
                left.iter().all(|entry| entry.file_name() == "rootfs"),
                "{left:?}"
            );
            let _ = fs::remove_dir(dir.join("rootfs"));
            fs::remove_dir(&dir).unwrap();
        })
    }

    pub(crate) fn created(&self, job: Create, stdout: File) -> Result<Container, JobError> {
        let (id, dir) = (job.id.clone(), job.dir.clone());
        let done = self.perform(Job::Create(job))?;
        Ok(Container {
            id,
            dir,
            init: done.process.unwrap(),
            started: done.started,
            console: done.console,
            stdout,
        })
    }

    /// Creates and starts a container that runs a shell script.
    pub(crate) fn shell(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Container {
        let mut container = self.create(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", script]);
            edit(spec);
        });
        container.start().unwrap();
        container
    }

    pub(crate) fn exec(
        &self,
        container: &Container,
        process: Value,
    ) -> Result<(Pidfd, File), JobError> {
        let (done, stdout) = self.try_exec(container, process, None)?;
        Ok((done.process.unwrap(), stdout))
    }

    pub(crate) fn try_exec(
        &self,
        container: &Container,
        process: Value,
        seccomp: Option<LinuxSeccomp>,
    ) -> Result<(Done, File), JobError> {
        let (job, stdout) = exec_job(&container.id, container.init.pid, process, seccomp);
        self.perform(Job::Exec(job)).map(|done| (done, stdout))
    }

    /// Runs a shell script in a container: how it ended and what it said.
    pub(crate) fn exec_shell(&self, container: &Container, script: &str) -> (Ended, String) {
        let process = shell_process(script);
        let (process, stdout) = self
            .exec(container, process)
            .unwrap_or_else(|error| panic!("{error}"));
        (wait(&process), read_all(stdout))
    }

    pub(crate) fn send(&self, job: Job) -> u64 {
        let id = self.next_id();
        self.zygote.send(id, job).unwrap();
        id
    }

    pub(crate) fn receive(&self) -> (u64, Result<Done, JobError>) {
        loop {
            if let Some(result) = self.zygote.receive().unwrap() {
                return result;
            }
            assert!(readable(&self.zygote, LONG), "the zygote answers");
        }
    }

    pub(crate) fn perform(&self, job: Job) -> Result<Done, JobError> {
        let id = self.send(job);
        let (answered, result) = self.receive();
        assert_eq!(answered, id);
        result
    }

    pub(crate) fn census(&self) -> Census {
        let dir = self.dir.path().display().to_string();
        let zygote = self.zygote.process().pid;
        let me = nix::unistd::getpid().as_raw();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Census {
            mounts: mounts
                .lines()
                .filter(|line| line.contains(&dir))
                .map(str::to_owned)
                .collect(),
            children: children(me),
            children_of_the_zygote: children(zygote),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            descriptors_of_the_zygote: fs::read_dir(format!("/proc/{zygote}/fd")).unwrap().count(),
            cgroups: cgroups(),
            files: files(&self.run_dir()),
        }
    }

    fn assert_unchanged(&self, before: &Census) {
        // Orphans of a failed job have been killed: they are reaped as the shim would.
        let zygote = self.zygote.process().pid;
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            reap_orphans(&|pid| pid == zygote).unwrap();
            let now = self.census();
            if now == *before {
                return;
            }
            if Instant::now() > patience {
                assert_eq!(now, *before, "left behind");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Container {
    pub(crate) fn start(&mut self) -> Result<(), String> {
        husk_sandbox::start(&self.dir).map_err(|error| error.to_string())?;
        let mut reason = String::new();
        let mut started = File::from(self.started.take().unwrap());
        started.read_to_string(&mut reason).unwrap();
        if reason.is_empty() {
            Ok(())
        } else {
            Err(reason)
        }
    }

    /// Starts it and waits for its end: how it ended and what it said.
    pub(crate) fn run(mut self) -> (Ended, String) {
        self.start().unwrap();
        self.finish()
    }

    /// Waits for the end of init, and undoes what `delete` would: how it ended and what it said.
    pub(crate) fn finish(self) -> (Ended, String) {
        let ended = wait(&self.init);
        (ended, self.finish_reaped())
    }

    /// Undoes what `delete` would, of a container whose init was waited for: what it said.
    pub(crate) fn finish_reaped(self) -> String {
        let output = read_all(self.stdout);
        unmount_all(&self.dir.join("rootfs")).unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
        remove_cgroups(&self.id);
        output
    }

    /// Processes executed in the container must have been waited for, or init does not end.
    pub(crate) fn kill(self) -> (Ended, String) {
        self.init.signal(libc::SIGKILL).unwrap();
        self.finish()
    }

    /// Waits until the container's output has said so much.
    pub(crate) fn expect(&mut self, text: &str) {
        self.read_until(text);
    }

    /// Waits until the container's output has said so much: all of it so far.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let mut byte = [0; 1];
        while !seen.contains(text) {
            assert!(readable(&self.stdout, LONG), "saw only {seen:?}");
            assert_eq!(self.stdout.read(&mut byte).unwrap(), 1, "saw only {seen:?}");
            seen.push(char::from(byte[0]));
        }
        seen
    }
}

pub(crate) fn exec_job(
    container: &str,
    init: i32,
    process: Value,
    seccomp: Option<LinuxSeccomp>,
) -> (Exec, File) {
    let process: Process = serde_json::from_value(process).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let stdio = Stdio {
        stdin: None,
        stdout: Some(writer.try_clone().unwrap()),
        stderr: Some(writer),
    };
    (
        Exec {
            container: Box::new(Inherited {
                id: container.to_owned(),
                seccomp,
                ..Inherited::default()
            }),
            init,
            process,
            stdio,
        },
        File::from(OwnedFd::from(reader)),
    )
}

pub(crate) fn shell_process(script: &str) -> Value {
    json!({
        "args": ["sh", "-c", script],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    })
}

pub(crate) fn wait(process: &Pidfd) -> Ended {
    assert!(readable(&process.fd, LONG), "process {} ends", process.pid);
    process.try_wait().unwrap().unwrap()
}

pub(crate) fn readable(fd: &impl AsFd, patience: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(patience).unwrap();
    poll(&mut fds, patience).unwrap() == 1
}

pub(crate) fn read_all(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// The spec of a container with namespaces of its own.
pub(crate) fn default_spec(id: &str, rootfs: &Path) -> Value {
    let caps = json!([
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_NET_BIND_SERVICE"
    ]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": caps, "effective": caps, "permitted": caps,
            },
            "noNewPrivileges": true,
        },
        "root": {"path": rootfs, "readonly": false},
        "hostname": id,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{}/{id}", cgroup_name()),
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"},
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

/// The cgroup of all containers of this test binary.
pub(crate) fn cgroup_name() -> String {
    format!("husk-sandbox-test-{}", std::process::id())
}

fn cgroup_roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
        .collect()
}

/// The cgroups below that of this test binary, deepest first.
pub(crate) fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in cgroup_roots() {
        let top = root.join(cgroup_name());
        if top.is_dir() {
            found.extend(directories(&top));
        }
    }
    found
}

pub(crate) fn remove_cgroups(id: &str) {
    for root in cgroup_roots() {
        let _ = fs::remove_dir(root.join(cgroup_name()).join(id));
    }
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(directories(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

pub(crate) fn children(of: i32) -> BTreeSet<i32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
    list.split_ascii_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// A root filesystem of busybox and little else.
fn make_rootfs(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "srv"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let list = std::process::Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines() {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n",
    )
    .unwrap();
}

/// The name of what a descriptor of this process is.
pub(crate) fn name_of(fd: &impl AsRawFd) -> String {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .unwrap()
        .display()
        .to_string()
}
