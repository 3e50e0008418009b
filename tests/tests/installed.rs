//! `husk install` makes husk a runtime of a node's containerd, and `husk uninstall` takes all of it away again.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use husk_tests::command::{DEADLINE, Output, poll, run};
use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use husk_tests::image;
use husk_tests::lab::Lab;
use nix::unistd::Pid;
use tempfile::TempDir;

const SHIM: &str = "containerd-shim-husk-v2";

/// A node's files: containerd's configuration, and where husk is to be.
struct Node {
    dir: TempDir,
    containerd: PathBuf,
    /// Whether this machine's systemd runs its containerd.
    is_service: bool,
}

/// Who asks systemd for its containerd.service, and who has it run one.
static SYSTEMD: Mutex<()> = Mutex::new(());

impl Node {
    /// With a configuration of its operator's.
    fn new(configuration: Option<&str>) -> Self {
        // The machine's systemd sees it, too; the lab's own folder it does not.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let node = Self {
            dir,
            containerd: Lab::get().programs.join("bin/containerd"),
            is_service: false,
        };
        fs::create_dir(node.path("containerd")).unwrap();
        // What is in programs matters to those who run them only, and the real ones are large.
        fs::create_dir(node.path("from")).unwrap();
        for program in [SHIM, "husk"] {
            fs::write(node.path("from").join(program), [0x7f, 0xff]).unwrap();
        }
        if let Some(text) = configuration {
            fs::write(node.path("containerd/config.toml"), text).unwrap();
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn husk(&self, words: &[&str]) -> Output {
        let mut command = Command::new(Lab::get().shim_dir.join("husk"));
        command
            .arg("--data")
            .arg(self.path("data"))
            .args(words.iter().take(1))
            .arg("--containerd")
            .arg(&self.containerd)
            .arg("--containerd-config")
            .arg(self.path("containerd/config.toml"))
            .args(words.iter().skip(1));
        if !self.is_service {
            command.arg("--no-restart");
        }
        run(&mut command)
    }

    /// With programs of a folder of the node's.
    fn install_from(&self, from: &str, words: &[&str]) -> Output {
        let [from, bin, configs] = [from, "bin", "husk"].map(|name| self.path(name));
        let mut all = vec!["install"];
        for (flag, path) in [("--from", &from), ("--bin", &bin), ("--configs", &configs)] {
            all.extend([flag, path.to_str().unwrap()]);
        }
        all.extend(words);
        self.husk(&all)
    }

    fn install(&self, words: &[&str]) -> Output {
        self.install_from("from", words)
    }

    /// The real shim, in place of what stands for it.
    fn take_the_shim(&self) {
        let shim = Lab::get().shim_dir.join(SHIM);
        fs::copy(shim, self.path("from").join(SHIM)).unwrap();
    }

    /// Every file, and what is in it.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn below(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    below(&path, found);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        below(self.dir.path(), &mut found);
        found
    }

    /// What containerd makes of its configuration.
    fn dump(&self) -> String {
        let mut command = Command::new(&self.containerd);
        let config = self.path("containerd/config.toml");
        run(command.arg("--config").arg(config).args(["config", "dump"])).ok()
    }

    /// Puts a program in containerd's place that has the last word in what it says.
    fn stand_in(&mut self, script: &str) {
        let path = self.path("stand-in");
        let real = self.containerd.display();
        fs::write(&path, format!("#!/bin/sh\nreal={real}\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.containerd = path;
    }
}

const OPERATORS: &str = "version = 2 # as ever\n\n# ours\n\
     [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ours]\n  runtime_type = 'io.containerd.runc.v2'\n";

#[test]
fn it_is_there_and_then_gone_without_a_trace() {
    for configuration in [None, Some(OPERATORS), Some("version = 3\noom_score = -7\n")] {
        let node = Node::new(configuration);
        let (files, dump) = (node.files(), node.dump());

        let _ = node
            .install(&["--handler", "husk", "--handler", "strict"])
            .ok();
        let shown = node.dump();
        for handler in ["runtimes.husk]", "runtimes.strict]", "husk/strict.toml"] {
            assert!(shown.contains(handler), "{handler} is not in {shown}");
        }
        assert_eq!(
            shown.contains("runtimes.ours]"),
            configuration == Some(OPERATORS)
        );
        assert_eq!(
            node.files().len(),
            files.len() + if configuration.is_some() { 7 } else { 8 }
        );
        let mode = fs::metadata(node.path("bin").join(SHIM)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);

        let _ = node.husk(&["uninstall"]).ok();
        assert_eq!(node.files(), files);
        assert_eq!(node.dump(), dump);
        assert!(!node.path("husk").exists() && !node.path("containerd/conf.d").exists());
    }
}

#[test]
fn a_second_time_changes_nothing() {
    let node = Node::new(Some(OPERATORS));
    let _ = node
        .install(&["--handler", "husk", "--handler", "strict"])
        .ok();
    let files = node.files();
    // Handlers are those that are there, unless others are named.
    let said = node.install(&[]).stderr;
    assert!(said.contains("nothing has changed"), "{said}");
    assert_eq!(node.files(), files);

    let _ = node.install(&["--handler", "husk"]).ok();
    assert!(!node.path("husk/strict.toml").exists());
    assert!(!node.dump().contains("runtimes.strict]"));
}

#[test]
fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let node = Node::new(Some(OPERATORS));
    let files = node.files();
    let shown = node.install(&["--dry-run"]).ok();
    for line in [
        "+imports = [",
        "+  runtime_type = 'io.containerd.husk.v2'",
        "+kind: RuntimeClass",
        "containerd-shim-husk-v2: ",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    assert_eq!(node.files(), files);

    let _ = node.install(&[]).ok();
    let files = node.files();
    let shown = node.husk(&["uninstall", "--dry-run"]).ok();
    assert!(shown.contains("-imports = ["), "{shown}");
    assert_eq!(node.files(), files);
}

#[test]
fn what_the_operator_has_written_stays_the_operators() {
    let node = Node::new(None);
    let config = node.path("husk/husk.toml");
    let _ = node.install(&[]).ok();
    fs::write(&config, "[ceiling]\nnetwork = \"pod\"\n").unwrap();
    let _ = node.install(&[]).ok();
    assert!(fs::read_to_string(&config).unwrap().contains("ceiling"));
    let said = node.husk(&["uninstall"]).stderr;
    assert!(said.contains("kept, as it was changed since"), "{said}");
    assert!(fs::read_to_string(&config).unwrap().contains("ceiling"));
    let said = node.husk(&["uninstall"]).stderr;
    assert!(said.contains("has not been run here"), "{said}");

    let _ = node.install(&[]).ok();
    let _ = node.husk(&["uninstall", "--purge"]).ok();
    // It was there before: nobody's but the operator's.
    assert!(config.exists());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let node = Node::new(Some(OPERATORS));
    let bad = node.path("bad.toml");
    fs::write(&bad, "[ceiling]\nnetwork = \"moon\"\n").unwrap();
    let named = format!("husk={}", bad.display());
    let files = node.files();
    for (words, why) in [
        (vec!["--handler", "Husk"], "lower-case"),
        (vec!["--handler", "../x"], "lower-case"),
        (vec!["--handler", "a", "--handler", "a"], "named twice"),
        (vec!["--handler", named.as_str()], "bad.toml:2"),
        (vec!["--handler", "husk=/nowhere"], "/nowhere"),
    ] {
        let refused = node.install(&words);
        assert!(
            refused.code != 0 && refused.stderr.contains(why),
            "{refused:?}"
        );
    }
    let refused = node.install_from("nowhere", &[]);
    assert!(refused.stderr.contains("crates/build"), "{refused:?}");
    for (text, why) in [
        ("version = 1\n", "config migrate"),
        ("version = [\n", "not TOML"),
    ] {
        let node = Node::new(Some(text));
        let files = node.files();
        let refused = node.install(&[]);
        assert!(
            refused.code != 0 && refused.stderr.contains(why),
            "{refused:?}"
        );
        assert_eq!(node.files(), files);
    }
    assert_eq!(node.files(), files);
}

#[test]
fn what_containerd_would_not_take_is_not_written() {
    for (script, why) in [
        // It refuses all that names husk.
        (
            "if [ \"$1\" = --config ] && grep -q husk.toml \"$2\"; then echo no such thing >&2; exit 1; fi\n\
             exec $real \"$@\"",
            "no such thing",
        ),
        // It does not look into what is imported.
        (
            "if [ \"$1\" = --config ]; then sed /^imports/d \"$2\" >\"$2.bare\"; set -- --config \"$2.bare\" config dump; fi\n\
             $real \"$@\"; status=$?; rm -f \"$2\"; exit $status",
            "does not find the handler",
        ),
        // With husk it reads something else otherwise.
        (
            "if [ \"$1\" = --config ] && grep -q husk.toml \"$2\"; then $real \"$@\" | sed 's/^oom_score = .*/oom_score = 5/'\n\
             else exec $real \"$@\"; fi",
            "another `oom_score`",
        ),
        (
            "echo containerd github.com/containerd/containerd 1.7.27 x",
            "too old",
        ),
        ("echo what", "no version"),
    ] {
        let mut node = Node::new(Some("version = 3\n"));
        node.stand_in(script);
        let files = node.files();
        let refused = node.install(&[]);
        assert!(
            refused.code != 0 && refused.stderr.contains(why),
            "{why}: {refused:?}"
        );
        assert_eq!(node.files(), files, "{why}");
    }
}

/// What `husk doctor` finds that is not well: what it is about, and what to do; and whether it says so.
fn complaints(node: &Node) -> (Vec<(String, String)>, i32) {
    let mut command = Command::new(Lab::get().shim_dir.join("husk"));
    let config = node.path("containerd/config.toml");
    let path = format!(
        "{}:{}",
        node.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    command
        .args(["doctor", "--json", "--containerd"])
        .arg(&node.containerd);
    command
        .arg("--containerd-config")
        .arg(config)
        .env("PATH", path);
    let output = run(&mut command);
    let findings: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = findings.as_array().unwrap().iter();
    let bad = findings.filter(|it| it["state"] == "error");
    let said = bad.map(|it| {
        let fix = text(it, "fix");
        assert!(!fix.is_empty());
        (text(it, "subject"), format!("{}; {fix}", text(it, "found")))
    });
    (said.collect(), output.code)
}

#[test]
fn a_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let _alone = SYSTEMD.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Node::new(None);
    node.take_the_shim();
    let found = |node: &Node| {
        let (found, code) = complaints(node);
        assert_eq!(code, i32::from(!found.is_empty()), "{found:?}");
        found
    };
    let says = |found: &[(String, String)], subject: &str, why: &str| {
        let said = found
            .iter()
            .any(|(about, said)| about == subject && said.contains(why));
        assert!(said, "{subject}: {why}: {found:?}");
    };
    says(&found(&node), "handlers", "husk install");
    let _ = node.install(&[]).ok();
    let healthy = found(&node);
    assert!(healthy.is_empty(), "{healthy:?}");

    let (config, shim) = (node.path("husk/husk.toml"), node.path("bin").join(SHIM));
    fs::write(&config, "[ceiling]\nnetwork = \"moon\"\n").unwrap();
    says(&found(&node), "configuration", "husk.toml:2");
    fs::write(
        &config,
        "[[plugin]]\nname = \"gate\"\npath = \"/nowhere.wasm\"\n",
    )
    .unwrap();
    says(&found(&node), "plugins", "/nowhere.wasm");
    fs::remove_file(&config).unwrap();
    says(
        &found(&node),
        "configuration",
        "no pod of this handler starts",
    );
    fs::write(&config, "").unwrap();

    fs::set_permissions(&shim, fs::Permissions::from_mode(0o777)).unwrap();
    says(&found(&node), "shim", "chmod go-w");
    fs::remove_file(&shim).unwrap();
    let (lost, _) = complaints(&node);
    // Another one may be on this machine's path.
    assert!(lost.iter().all(|(about, _)| about == "shim"), "{lost:?}");

    node.take_the_shim();
    let _ = node.install(&["--sandboxer", "shim"]).ok();
    says(&found(&node), "handlers", "hostNetwork");
    fs::write(node.path("containerd/config.toml"), "version = [\n").unwrap();
    says(&found(&node), "configuration", "config.toml");
}

/// The shim's process of a container, and the file it runs.
fn shim(container: Pid) -> (Pid, u64) {
    let status = fs::read_to_string(format!("/proc/{container}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    let parent = Pid::from_raw(parent.trim().parse().unwrap());
    (
        parent,
        fs::metadata(format!("/proc/{parent}/exe")).unwrap().ino(),
    )
}

#[test]
fn pods_that_run_keep_their_shim_and_later_ones_get_the_new_one() {
    let containerd = Containerd::of_the_suite();
    let node = Node::new(None);
    node.take_the_shim();
    let _ = node.install(&[]).ok();
    let program = node.path("bin").join(SHIM);
    let start = || {
        let runtime = format!("--runtime={}", program.display());
        let container = containerd.ctr().container().flag(&runtime);
        container.start(&["sleep", "1000000"]);
        container
    };
    let old = start();
    let (its, file) = shim(old.pid());
    assert_eq!(file, fs::metadata(&program).unwrap().ino());
    let refused = node.husk(&["uninstall"]);
    assert!(
        refused.stderr.contains("pods run with this shim"),
        "{refused:?}"
    );

    // The next release.
    let next = node.path("from").join(SHIM);
    let mut bytes = fs::read(&next).unwrap();
    bytes.push(0);
    fs::write(&next, bytes).unwrap();
    let _ = node.install(&[]).ok();

    assert_eq!(shim(old.pid()), (its, file));
    assert_eq!(old.exec(&["echo", "lives"]).ok(), "lives\n");
    let refused = node.husk(&["uninstall"]);
    assert!(
        refused.stderr.contains("pods run with this shim"),
        "{refused:?}"
    );
    let new = start();
    assert_ne!(shim(new.pid()).1, file);
    assert_eq!(new.exec(&["echo", "lives"]).ok(), "lives\n");
    drop((old, new));
    let _ = node.husk(&["uninstall"]).ok();
    assert!(!program.exists());
}

/// containerd as a service of the machine's systemd.
struct Service<'a>(&'a Node);

impl<'a> Service<'a> {
    const UNIT: &'static str = "/run/systemd/system/containerd.service";

    /// With a systemd that has none yet.
    fn start(node: &'a Node) -> Option<Self> {
        let known = Command::new("systemctl")
            .args(["cat", "containerd.service"])
            .output();
        if !Path::new("/run/systemd/private").exists() || known.is_ok_and(|it| it.status.success())
        {
            eprintln!("skipped: no systemd without a containerd of its own; the guest has one");
            return None;
        }
        let dir = node.dir.path().display();
        let path = std::env::var("PATH").unwrap();
        fs::write(
            node.path("containerd/config.toml"),
            format!(
                "version = 3\nroot = '{dir}/root'\nstate = '{dir}/state'\n\
                 disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{dir}/socket'\n"
            ),
        )
        .unwrap();
        let unit = format!(
            "[Service]\nType=notify\nDelegate=yes\nKillMode=process\nEnvironment=PATH={dir}/bin:{path}\n\
             ExecStartPre=/bin/sh -c '! grep -q runtimes.third {dir}/containerd/conf.d/husk.toml'\n\
             ExecStart={} --config {dir}/containerd/config.toml\n",
            node.containerd.display()
        );
        fs::write(Self::UNIT, unit).unwrap();
        let service = Self(node);
        service.systemctl(&["daemon-reload"]);
        service.systemctl(&["start", "containerd"]);
        Some(service)
    }

    #[track_caller]
    fn systemctl(&self, words: &[&str]) {
        let _ = run(Command::new("systemctl").args(words)).ok();
    }

    fn pid(&self) -> String {
        let mut command = Command::new("systemctl");
        run(command.args(["show", "--value", "-p", "MainPID", "containerd"])).ok()
    }

    fn ctr(&self, words: &[&str]) -> Output {
        let mut command = Command::new(Lab::get().programs.join("bin/ctr"));
        command.arg("--address").arg(self.0.path("socket"));
        run(command.args(words))
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let quietly = |words: &[&str]| drop(Command::new("systemctl").args(words).output());
        quietly(&["stop", "containerd"]);
        let _ = fs::remove_file(Self::UNIT);
        quietly(&["daemon-reload"]);
        quietly(&["reset-failed", "containerd"]);
    }
}

#[test]
fn containerd_is_restarted_and_gets_back_what_it_had_if_it_does_not_start() {
    let _alone = SYSTEMD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut node = Node::new(None);
    node.is_service = true;
    let Some(service) = Service::start(&node) else {
        return;
    };
    let rootfs = node.path("rootfs");
    image::rootfs(&rootfs).unwrap();
    node.take_the_shim();
    let before = service.pid();
    let _ = node.install(&[]).ok();
    let installed = service.pid();
    assert_ne!(before, installed);

    let id = unique("installed");
    let rootfs = rootfs.to_str().unwrap();
    let runtime = "io.containerd.husk.v2";
    // Where systemd's containerd sees them, too.
    let fifos = node.path("fifos");
    let fifos = fifos.to_str().unwrap();
    let mut start = vec!["run", "-d", "--fifo-dir", fifos, "--runtime", runtime];
    start.extend(["--rootfs", rootfs, &id, "sleep", "1000000"]);
    let _ = service.ctr(&start).ok();
    let task = || service.ctr(&["task", "list"]).ok();
    let running = task();
    assert!(running.contains("RUNNING"), "{running}");

    // Nothing to do, and so no reason to restart it.
    let _ = node.install(&[]).ok();
    assert_eq!(service.pid(), installed);
    // Elsewhere containerd would look in vain.
    let refused = node.husk(&["install", "--bin", "/var/tmp"]);
    assert!(
        refused.stderr.contains("containerd looks for shims in"),
        "{refused:?}"
    );

    let config = ["containerd/conf.d/husk.toml", "containerd/config.toml"];
    let config = || config.map(|name| fs::read_to_string(node.path(name)).unwrap());
    let as_it_was = config();
    let refused = node.install(&["--handler", "husk", "--handler", "third"]);
    assert!(refused.code != 0, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("what it was before, and it runs again"),
        "{refused:?}"
    );
    assert_eq!(config(), as_it_was);

    let _ = node
        .install(&["--handler", "husk", "--handler", "second"])
        .ok();
    assert_eq!(task(), running);
    let _ = service.ctr(&["task", "kill", "-s", "KILL", &id]).ok();
    let gone = poll(DEADLINE, || {
        let deleted = service.ctr(&["task", "rm", &id]);
        (deleted.code == 0).then_some(())
    });
    assert!(gone.is_some());
    let _ = service.ctr(&["container", "rm", &id]).ok();
    let _ = node.husk(&["uninstall"]).ok();
    assert!(service.ctr(&["version"]).code == 0);
}
