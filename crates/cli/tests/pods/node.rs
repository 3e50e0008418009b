//! What a test has of the machine: directories of its own, a root filesystem, `husk`.
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shim {
    Husk,
    Runc,
}

pub(crate) struct Node {
    shim: Shim,
    state: TempDir,
    data: TempDir,
}

impl Node {
    pub(crate) fn new(shim: Shim) -> Self {
        let node = Self {
            shim,
            state: tempfile::tempdir_in("/run").expect("tests run as root"),
            data: tempfile::tempdir().unwrap(),
        };
        node.make_rootfs();
        node
    }

    fn make_rootfs(&self) {
        let root = self.rootfs();
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let busybox = env::split_paths(&path)
            .map(|dir| dir.join("busybox"))
            .find(|file| file.is_file())
            .expect("busybox is not in PATH: `apt-get install busybox-static` provides it");
        fs::copy(&busybox, root.join("bin/busybox")).unwrap();
        let list = Command::new(&busybox).arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines() {
            if applet != "busybox" {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nme:x:7:8::/me:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nme:x:8:\nmore:x:9:me\n").unwrap();
    }

    /// A directory with busybox, for `image: rootfs:DIR`.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.data.path().join("rootfs")
    }

    /// A directory for the test's own files.
    pub(crate) fn scratch(&self) -> PathBuf {
        let scratch = self.data.path().join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        scratch
    }

    fn shim(&self) -> PathBuf {
        match self.shim {
            Shim::Runc => lab().join("bin/containerd-shim-runc-v2"),
            Shim::Husk => {
                let own = Path::new(env!("CARGO_BIN_EXE_husk"));
                let shim = own.with_file_name("containerd-shim-husk-v2");
                assert!(
                    shim.exists(),
                    "{} is not built: cargo build --workspace",
                    shim.display()
                );
                shim
            }
        }
    }

    /// `husk` with this node's directories.
    pub(crate) fn husk(&self, args: &[&str]) -> Command {
        let mut path = vec![lab().join("bin")];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_husk"));
        command
            .env("PATH", env::join_paths(path).unwrap())
            .arg("--root")
            .arg(self.state.path().join("pods"))
            .arg("--data")
            .arg(self.data.path().join("husk"))
            .args(args);
        command
    }

    /// Runs `husk` to its end.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        finish(
            self.husk(args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// What `husk` wrote to stdout; it must succeed.
    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(
            output.status.success(),
            "husk {args:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }

    /// Where [`Node::start`] writes the manifest.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.data.path().join("pod.yaml")
    }

    /// Starts `husk run` of a pod named `test` with this spec; `ROOTFS` stands for an image.
    pub(crate) fn start(&self, spec: &str, args: &[&str]) -> Child {
        let manifest = self.manifest();
        let image = format!("rootfs:{}", self.rootfs().display());
        let spec = spec.replace("ROOTFS", &image);
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: test}}\nspec:\n{spec}");
        fs::write(&manifest, text).unwrap();
        self.start_manifest(&manifest, args)
    }

    /// Starts `husk run` of a manifest.
    pub(crate) fn start_manifest(&self, manifest: &Path, args: &[&str]) -> Child {
        let shim = self.shim();
        let mut all = vec!["run", "--shim", shim.to_str().unwrap()];
        // Where it does not matter, nothing that would have to be installed.
        let chosen = ["--network", "--publish", "-p"];
        let is_chosen = args.iter().any(|arg| chosen.contains(arg));
        let text = fs::read_to_string(manifest).unwrap_or_default();
        if !is_chosen && !text.contains("hostNetwork: true") {
            all.extend(["--network", "none"]);
        }
        all.extend(args);
        all.push(manifest.to_str().unwrap());
        self.husk(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a pod to its end.
    pub(crate) fn run(&self, spec: &str) -> Output {
        self.run_with(spec, &[])
    }

    /// The same, with these further arguments.
    pub(crate) fn run_with(&self, spec: &str, args: &[&str]) -> Output {
        finish(self.start(spec, args))
    }

    /// Starts a pod that stays when this returns; the answer is its id.
    pub(crate) fn detach(&self, spec: &str) -> String {
        self.detach_with(spec, &[])
    }

    /// What the engine has on record of a pod.
    pub(crate) fn record(&self, id: &str) -> serde_json::Value {
        let file = self.state.path().join("pods").join(id).join("pod.json");
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    /// The same as [`Node::detach`], with these further arguments.
    pub(crate) fn detach_with(&self, spec: &str, args: &[&str]) -> String {
        let mut all = vec!["--detach"];
        all.extend(args);
        let output = finish(self.start(spec, &all));
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    }

    /// Asserts that of every pod of this node nothing is left: no file, mount, process, cgroup.
    pub(crate) fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        for dir in [
            self.state.path().join("pods"),
            self.data.path().join("husk/pods"),
        ] {
            left.extend(
                fs::read_dir(dir)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path()),
            );
        }
        assert_eq!(left, Vec::<PathBuf>::new(), "files");
        let own = self.state.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(own)).collect();
        assert_eq!(mounts, Vec::<&str>::new(), "mounts");
        // A shim exits after it has answered.
        eventually("processes end", || self.processes().is_empty());
    }

    /// Shims and supervisors of this node: its directory is in their command lines.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let own = self.state.path().to_str().unwrap();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(own))
        })
        .collect()
    }
}

impl Drop for Node {
    /// Removes what a failed test has left.
    fn drop(&mut self) {
        for pod in ["test", "web", "agent"] {
            let mut remove = self.husk(&["rm", "-f", pod]);
            let _ = remove.stderr(Stdio::null()).status();
        }
    }
}

pub(crate) fn lab() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab");
    let lab = env::var_os("HUSK_LAB").map_or_else(default, PathBuf::from);
    assert!(
        lab.join("bin/containerd-shim-runc-v2").exists(),
        "{} has no bin/containerd-shim-runc-v2: `tests/lab/get {0}` unpacks one, HUSK_LAB names it",
        lab.display()
    );
    lab
}

/// Waits for the end of a process, or fails the test.
pub(crate) fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    // Read as it comes, or the process could block on a full pipe.
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut text).unwrap();
            }
            text
        })
    };
    let out = read(child.stdout.take().map(|s| Box::new(s) as _));
    let err = read(child.stderr.take().map(|s| Box::new(s) as _));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "no end within {PATIENCE:?}: {}",
                String::from_utf8_lossy(&err.join().unwrap())
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output {
        status,
        stdout: out.join().unwrap(),
        stderr: err.join().unwrap(),
    }
}

/// Waits for something to become true, or fails the test.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines that one container wrote, without the prefix.
pub(crate) fn lines_of(output: &Output, container: &str) -> Vec<String> {
    let text = stdout(output);
    let own = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" | ")?;
        (name.trim_end() == container).then(|| rest.to_owned())
    });
    own.collect()
}
