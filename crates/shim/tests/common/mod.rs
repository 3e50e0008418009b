//! Runs the shim's program as containerd would, and clears away whatever a test leaves.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use containerd_shim::api::DeleteResponse;
use containerd_shim::bootstrap::{BootstrapParams, Extension};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use husk_scope::record;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_containerd-shim-husk-v2");

static NODES: AtomicU32 = AtomicU32::new(0);

/// A containerd namespace of its own, and a directory for bundles and sockets. At the end every
/// pod in it is deleted.
pub(crate) struct Node {
    pub(crate) namespace: String,
    directory: tempfile::TempDir,
}

/// A bundle as containerd makes it.
pub(crate) struct Bundle<'a> {
    pub(crate) node: &'a Node,
    pub(crate) id: String,
    pub(crate) path: PathBuf,
}

impl Node {
    pub(crate) fn new() -> Self {
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        Self {
            namespace: format!("husk-test-{}-{number}", std::process::id()),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn bundle(&self, id: &str) -> Bundle<'_> {
        let path = self.path().join(id);
        fs::create_dir_all(path.join("rootfs")).unwrap();
        nix::unistd::mkfifo(&path.join("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Bundle {
            node: self,
            id: id.to_owned(),
            path,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        Path::new(record::STATE_DIR).join(&self.namespace)
    }

    pub(crate) fn record(&self, pod: &str) -> Option<record::Pod> {
        let text = fs::read(self.state().join(pod).join(record::FILE)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Waits for the record of a daemon that has made its zygote.
    pub(crate) fn live_record(&self, pod: &str) -> record::Pod {
        wait_for(|| self.record(pod).filter(|record| record.zygote.is_some()))
    }

    pub(crate) fn save(&self, record: &record::Pod) {
        let directory = self.state().join(&record.id);
        fs::create_dir_all(&directory).unwrap();
        let text = serde_json::to_vec(record).unwrap();
        fs::write(directory.join(record::FILE), text).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let pods = fs::read_dir(self.state()).into_iter().flatten().flatten();
        for pod in pods.filter_map(|entry| entry.file_name().into_string().ok()) {
            let _ = self.delete(&pod, self.path());
        }
        let _ = fs::remove_dir_all(self.state());
    }
}

impl Node {
    fn flags(&self, id: &str) -> Vec<String> {
        let address = self.path().join("containerd.sock");
        [
            "-namespace",
            &self.namespace,
            "-address",
            address.to_str().unwrap(),
            "-publish-binary",
            "/bin/false",
            "-id",
            id,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(crate) fn delete(&self, id: &str, bundle: &Path) -> Output {
        Command::new(PROGRAM)
            .args(self.flags(id))
            .args(["-bundle", bundle.to_str().unwrap(), "delete"])
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Bundle<'_> {
    pub(crate) fn config(&self, json: &str) {
        fs::write(self.path.join("config.json"), json).unwrap();
    }

    /// `start` as containerd 2.3 runs it, with sockets below the node's directory.
    pub(crate) fn start(&self) -> Output {
        self.start_with(Vec::new())
    }

    pub(crate) fn start_with(&self, options: Vec<Any>) -> Output {
        let params = BootstrapParams {
            instance_id: self.id.clone(),
            namespace: self.node.namespace.clone(),
            socket_dir: Some(self.node.path().join("s").display().to_string()),
            extensions: options
                .into_iter()
                .map(|any| Extension {
                    value: Some(any).into(),
                    ..Extension::default()
                })
                .collect(),
            ..BootstrapParams::default()
        };
        self.start_from(&params.write_to_bytes().unwrap())
    }

    pub(crate) fn start_from(&self, stdin: &[u8]) -> Output {
        let mut child = Command::new(PROGRAM)
            .args(self.node.flags(&self.id))
            .arg("start")
            .env_remove("TTRPC_ADDRESS")
            .current_dir(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that refuses its flags ends without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// The socket that a successful `start` answered with.
    pub(crate) fn started(&self) -> PathBuf {
        let output = self.start();
        assert!(output.status.success(), "{output:?}");
        socket(&output)
    }

    pub(crate) fn delete(&self) -> DeleteResponse {
        let output = self.node.delete(&self.id, &self.path);
        assert!(output.status.success(), "{output:?}");
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert_eq!(warnings, "", "no warnings");
        DeleteResponse::parse_from_bytes(&output.stdout).unwrap()
    }
}

/// The socket in a reply to `start`.
pub(crate) fn socket(output: &Output) -> PathBuf {
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let address = reply["address"].as_str().unwrap();
    PathBuf::from(address.strip_prefix("unix://").unwrap())
}

pub(crate) fn connects(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

pub(crate) fn signal(process: record::Process, signal: Signal) {
    kill(Pid::from_raw(process.pid), signal).unwrap();
}

/// Whether it lives; a zombie does not.
pub(crate) fn lives(process: record::Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let alive = stat
        .rsplit_once(") ")
        .is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']));
    alive
        && husk_sandbox::process::start_time(process.pid)
            .is_ok_and(|start| start == process.start_time)
}

pub(crate) fn process(pid: u32) -> record::Process {
    let pid = i32::try_from(pid).unwrap();
    record::Process {
        pid,
        start_time: husk_sandbox::process::start_time(pid).unwrap(),
    }
}

/// Waits until the daemon listens for signals, which it does before it serves.
pub(crate) fn wait_until_serving(shim: record::Process) {
    wait_until(|| {
        let status = fs::read_to_string(format!("/proc/{}/status", shim.pid)).unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        caught & (1 << (Signal::SIGUSR1 as u32 - 1)) != 0
    });
}

/// Waits at most 10 s.
pub(crate) fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn wait_until(mut holds: impl FnMut() -> bool) {
    wait_for(|| holds().then_some(()));
}
