//! `husk node` makes a node as a directory says, again when that changes, and tells how the node is.
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use husk_tests::command::{DEADLINE, poll, until, wait};
use husk_tests::containerd::Containerd;
use husk_tests::lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const SHIM: &str = "containerd-shim-husk-v2";

/// A node, and what `husk node` is given for it.
struct Node {
    dir: TempDir,
}

/// `husk node`, as it runs.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let node = Self { dir };
        for name in ["node/containerd", "source", "from"] {
            fs::create_dir_all(node.path(name)).unwrap();
        }
        for program in [SHIM, "husk"] {
            fs::write(node.path("from").join(program), [0x7f, 0xff]).unwrap();
        }
        fs::write(node.path("node/containerd/config.toml"), "version = 3\n").unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// As kubelet replaces a ConfigMap: by a link, at once.
    fn config_map(&self, version: &str, files: &[(&str, &[u8])]) {
        let source = self.path("source");
        let data = source.join(version);
        fs::create_dir(&data).unwrap();
        for (name, content) in files {
            fs::write(data.join(name), content).unwrap();
            let _ = symlink(format!("..data/{name}"), source.join(name));
        }
        symlink(version, source.join("..data_tmp")).unwrap();
        fs::rename(source.join("..data_tmp"), source.join("..data")).unwrap();
        for entry in fs::read_dir(&source).unwrap().flatten() {
            // It leads to what is no more.
            if !entry.path().exists() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn words(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let containerd = Lab::get().programs.join("bin/containerd");
        let mut words = vec![format!("--data={}", path("node/data")), "node".to_owned()];
        words.extend([
            format!("--source={}", path("source")),
            format!("--from={}", path("from")),
            format!("--bin={}", path("node/bin")),
            format!("--configs={}", path("node/husk")),
            format!("--containerd={}", containerd.display()),
            format!(
                "--containerd-config={}",
                path("node/containerd/config.toml")
            ),
            format!("--audit={}", path("node/audit.jsonl")),
        ]);
        let others = [
            "--no-restart",
            "--listen=127.0.0.1:0",
            "--interval=1",
            "--examine=1",
        ];
        words.extend(others.map(str::to_owned));
        words
    }

    fn run(&self, more: &[&str]) -> Running {
        let mut command = Command::new(Lab::get().shim_dir.join("husk"));
        command.args(self.words()).args(more);
        self.started(command)
    }

    fn started(&self, mut command: Command) -> Running {
        let log = self.path("log");
        let bin = self.path("node/bin");
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        Running { child, log }
    }
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn address(&self) -> String {
        let found = poll(DEADLINE, || {
            let said = self.said();
            let rest = said.split_once("are at ")?.1;
            rest.split_once('\n').map(|(address, _)| address.to_owned())
        });
        found.unwrap_or_else(|| panic!("it says no address: {}", self.said()))
    }

    /// The whole answer.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[track_caller]
    fn says(&self, path: &str, words: &str) {
        let mut answer = String::new();
        let found = poll(DEADLINE, || {
            answer = self.get(path);
            answer.contains(words).then_some(())
        });
        assert!(
            found.is_some(),
            "{words} is not in {answer}\n{}",
            self.said()
        );
    }

    fn ends(mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(wait(&mut self.child, DEADLINE), Some(0), "{}", self.said());
    }
}

/// A test that fails leaves no process behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn what_is_in_order_reaches_the_node_and_nothing_else() {
    let node = Node::new();
    let (first, second) = (
        component("(component)"),
        component("(component (type string))"),
    );
    let open = b"# one\n";
    node.config_map("..1", &[("husk.toml", open), ("p.wasm", &first)]);
    let husk = node.run(&[]);
    husk.says("/metrics", "husk_refused_files 0");
    until("the handler is there", || {
        node.text("node/husk/husk.toml") == "# one\n"
            && node
                .text("node/containerd/conf.d/husk.toml")
                .contains("runtimes.husk]")
    });
    let plugin = node.path("node/husk/plugins/p.wasm");
    assert_eq!(fs::read(&plugin).unwrap(), first);
    let digest = |text: &[u8]| {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(text);
        digest
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect::<String>()
    };
    let info = |text: &[u8]| {
        let digest = digest(text);
        format!("husk_handler_configuration_info{{handler=\"husk\",sha256=\"{digest}\"}} 1")
    };
    husk.says("/metrics", &info(open));

    // All of it is another.
    let closed = b"[ceiling]\nnetwork = \"pod\"\n";
    node.config_map(
        "..2",
        &[
            ("husk.toml", closed),
            ("strict.toml", b""),
            ("p.wasm", &second),
        ],
    );
    husk.says("/metrics", &info(closed));
    until("the second handler is there", || {
        let drop_in = node.text("node/containerd/conf.d/husk.toml");
        drop_in.contains("runtimes.strict]")
    });
    assert_eq!(fs::read(&plugin).unwrap(), second);

    // What is broken is not taken; one that is in order is, beside it.
    node.config_map(
        "..3",
        &[
            ("husk.toml", b"[ceiling]\nnetwork = \"moon\"\n"),
            ("strict.toml", b"# three\n"),
            ("p.wasm", b"junk"),
            ("new.toml", b"["),
        ],
    );
    husk.says("/metrics", "husk_refused_files 3");
    husk.says("/metrics", &info(closed));
    assert_eq!(node.text("node/husk/strict.toml"), "# three\n");
    assert_eq!(fs::read(&plugin).unwrap(), second);
    assert!(!node.path("node/husk/new.toml").exists());
    for words in [
        "husk.toml:2:11",
        "p.wasm is not taken",
        "new.toml is not taken",
    ] {
        assert!(husk.said().contains(words), "{words}: {}", husk.said());
    }

    // What goes, goes; nothing at all is a mistake.
    node.config_map("..4", &[("husk.toml", closed)]);
    until("the second handler is gone", || {
        let drop_in = node.text("node/containerd/conf.d/husk.toml");
        !drop_in.contains("runtimes.strict]") && !plugin.exists()
    });
    node.config_map("..5", &[]);
    husk.says("/metrics", "husk_refused_files 1");
    assert_eq!(node.text("node/husk/husk.toml").as_bytes(), closed);

    let junk: Vec<_> = (0..20).map(|index| format!("junk {index}")).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("husk.toml", b"# six\n")];
    files.extend(junk.iter().map(|name| (name.as_str(), &b""[..])));
    node.config_map("..6", &files);
    husk.says("/metrics", "husk_refused_files 21");
    assert_eq!(node.text("node/husk/husk.toml").as_bytes(), closed);

    husk.ends();
    assert!(node.path("node/bin").join(SHIM).exists());
    let husk = node.run(&["--uninstall"]);
    husk.says("/healthz", "200 OK");
    assert!(
        !node.path("node/bin").join(SHIM).exists(),
        "{}",
        husk.said()
    );
    assert!(!node.path("node/husk").exists() && !node.path("node/data/node").exists());
    assert_eq!(node.text("node/containerd/config.toml"), "version = 3\n");
    husk.ends();
}

#[test]
fn it_says_how_the_node_is_whoever_else_asks() {
    let containerd = Containerd::of_the_suite();
    let node = Node::new();
    let shim = Lab::get().shim_dir.join(SHIM);
    fs::copy(shim, node.path("from").join(SHIM)).unwrap();
    node.config_map("..1", &[("husk.toml", b"")]);
    let husk = node.run(&[]);
    // Some ask nothing, and keep their connections.
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(husk.address()).unwrap())
        .collect();
    let mut endless = TcpStream::connect(husk.address()).unwrap();
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    husk.says("/healthz", "200 OK");
    husk.says("/metrics", "husk_node_ready 1");
    husk.says("/metrics", "# EOF");
    assert!(husk.get("/../etc/passwd").contains("404"));
    drop(silent);

    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let gauge = |name: &str| -> Option<u64> {
        let text = husk.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    until("the pod is counted", || {
        gauge("husk_pods{state=\"running\"}") > Some(0)
            && gauge("husk_containers{state=\"running\"}") > Some(0)
            && gauge("husk_private_memory_bytes{process=\"shim\"}") > Some(0)
    });
    let line = r#"{"time":"t","plugin":"gate","answer":"denied","micros":655,"counted":true}"#;
    fs::write(node.path("node/audit.jsonl"), format!("{line}\n{line}\n")).unwrap();
    husk.says(
        "/metrics",
        r#"husk_decisions_total{plugin="gate",answer="denied"} 2"#,
    );
    husk.says(
        "/metrics",
        r#"husk_decision_seconds_count{plugin="gate"} 2"#,
    );

    fs::write(node.path("node/containerd/config.toml"), "version = [\n").unwrap();
    husk.says("/healthz", "503 Service Unavailable");
    husk.says("/healthz", "is not TOML");
    husk.says("/metrics", "husk_node_ready 0");
    husk.says("/metrics", "husk_node_failures_total 1");
    husk.ends();
}

#[test]
fn from_a_container_it_makes_the_nodes_files_not_its_own() {
    let node = Node::new();
    let real = Lab::get().shim_dir.join("husk");
    fs::remove_file(node.path("from/husk")).unwrap();
    symlink(&real, node.path("from/husk")).unwrap();
    node.config_map(
        "..1",
        &[
            ("husk.toml", b"# ours\n"),
            ("p.wasm", &component("(component)")),
        ],
    );
    // The container has nothing of the node but below /host.
    let host = node.path("host");
    fs::create_dir(&host).unwrap();
    let script = "mount --rbind / \"$1\" && mount -t tmpfs tmpfs \"$2\" && shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        script,
        "sh",
    ]);
    command.arg(&host).arg(node.path("node")).arg(&real);
    command.args(node.words());
    command.arg(format!("--host-root={}", host.display()));
    command.arg(format!("--host-process={}", std::process::id()));
    let husk = node.started(command);
    husk.says(
        "/metrics",
        "husk_handler_configuration_info{handler=\"husk\"",
    );
    assert_eq!(node.text("node/husk/husk.toml"), "# ours\n");
    let drop_in = node.text("node/containerd/conf.d/husk.toml");
    let config = node.path("node/husk/husk.toml");
    // What containerd reads are the node's paths.
    assert!(
        drop_in.contains(&format!("'{}'", config.display())),
        "{drop_in}"
    );
    assert!(is_same(&node.path("node/bin/husk"), &real));
    assert!(
        node.path("node/husk/plugins/p.wasm").exists(),
        "{}",
        husk.said()
    );
    husk.ends();
}

fn is_same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}
