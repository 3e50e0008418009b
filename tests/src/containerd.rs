//! A private containerd.
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, ffi::OsString};

use k8s_cri::v1::{CdiDevice, VersionRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup;
use crate::command::{DEADLINE, Output, poll, run, wait};
use crate::cri::Cri;
use crate::ctr::{Ctr, unique};
use crate::image::{self, Pause};
use crate::lab::Lab;

/// What a containerd is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Testing what husk does.
    Tests,
    /// Measuring husk beside its peers: little is logged, pods get no network from CNI, the pause
    /// container is small, and containerd is in a cgroup of its own, which tells what it costs.
    Bench,
}

/// A device that containers may ask for.
#[derive(Debug)]
pub struct Device {
    vendor: String,
    file: PathBuf,
}

impl Device {
    /// As a container asks for it.
    #[must_use]
    pub fn wanted(&self) -> Vec<CdiDevice> {
        let name = format!("{}.com/device=first", self.vendor);
        vec![CdiDevice { name }]
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// A containerd with its own root, state, socket and handlers.
#[derive(Debug)]
pub struct Containerd {
    lab: Lab,
    dir: PathBuf,
    purpose: Purpose,
    // None for the suite's containerd, which is not this process's to stop.
    child: Mutex<Option<Child>>,
}

impl Containerd {
    /// The containerd that the whole suite shares.
    #[must_use]
    pub fn of_the_suite() -> Self {
        let lab = Lab::get();
        let dir = lab.run.join("suite");
        Self {
            lab,
            dir,
            purpose: Purpose::Tests,
            child: Mutex::new(None),
        }
    }

    /// A further one, for a test that stops or kills it.
    #[must_use]
    pub fn own(name: &str) -> Self {
        Self::start(&Lab::get(), name, Purpose::Tests)
    }

    /// Starts a containerd with the suite's images.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn start(lab: &Lab, name: &str, purpose: Purpose) -> Self {
        let dir = lab.run.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("config.toml"), configuration(lab, &dir, purpose)).unwrap();
        write_cni(&dir, purpose);
        link_configurations(lab, &dir);
        let containerd = Self {
            lab: lab.clone(),
            dir,
            purpose,
            child: Mutex::new(None),
        };
        containerd.launch();
        let archive = containerd.dir.join("images.tar");
        let pause = match purpose {
            Purpose::Tests => Pause::Reaping,
            Purpose::Bench => Pause::Small,
        };
        image::archive(&archive, pause).unwrap();
        for namespace in [lab.tag().as_str(), "k8s.io"] {
            let mut import = containerd.ctr_command(namespace);
            import.args(["images", "import"]).arg(&archive);
            let _ = run(&mut import).ok();
        }
        fs::remove_file(archive).unwrap();
        containerd
    }

    /// Starts it, again or for the first time, and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub fn launch(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let child = Command::new(self.lab.programs.join("bin/containerd"))
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env("PATH", self.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        if self.purpose == Purpose::Bench {
            let path = format!("/{}containerd", self.lab.tag());
            cgroup::count(&path, Pid::from_raw(child.id().cast_signed()));
        }
        *self.child.lock().unwrap() = Some(child);
        let answers = poll(DEADLINE, || {
            let ended = self.child.lock().unwrap().as_mut()?.try_wait().unwrap();
            assert!(ended.is_none(), "containerd ended:\n{}", self.log());
            let cri = self.cri();
            let version =
                cri.call(async |mut client| client.version(VersionRequest::default()).await);
            version.is_ok().then_some(())
        });
        assert!(answers.is_some(), "containerd is mute:\n{}", self.log());
    }

    /// Ends it with this signal and waits until it is gone.
    ///
    /// # Panics
    /// If it is not gone by the deadline, or is the suite's.
    pub fn end(&self, signal: Signal) {
        let mut child = self
            .child
            .lock()
            .unwrap()
            .take()
            .expect("a containerd of this test's own");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert!(
            wait(&mut child, DEADLINE).is_some(),
            "containerd ignores {signal}"
        );
    }

    /// Its process, if this process started it.
    ///
    /// # Panics
    /// If another thread did while it held the lock.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let child = self.child.lock().unwrap();
        child
            .as_ref()
            .map(|child| Pid::from_raw(child.id().cast_signed()))
    }

    /// The shims first, then the lab's programs, then the machine's.
    fn path(&self) -> OsString {
        let own = [
            self.dir.join("bin"),
            self.lab.shim_dir.clone(),
            self.lab.programs.join("bin"),
        ];
        let machine = env::var_os("PATH").unwrap_or_default();
        env::join_paths(own.into_iter().chain(env::split_paths(&machine))).unwrap()
    }

    /// The socket that clients connect to.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// The folder in which shims have their bundles, one per containerd namespace and container.
    #[must_use]
    pub fn bundles(&self, namespace: &str) -> PathBuf {
        let shims = self.dir.join("state/io.containerd.runtime.v2.task");
        shims.join(namespace)
    }

    /// Describes a device (CDI) by what it changes of a container that asks for it, for as long as
    /// the answer is there.
    ///
    /// # Panics
    /// If its description cannot be written.
    #[must_use]
    pub fn cdi_device(&self, edits: &serde_json::Value) -> Device {
        let folder = self.dir.join("cdi");
        fs::create_dir_all(&folder).unwrap();
        let vendor = unique("vendor");
        let description = serde_json::json!({
            "cdiVersion": "0.6.0",
            "kind": format!("{vendor}.com/device"),
            "devices": [{"name": "first", "containerEdits": edits}],
        });
        let file = folder.join(format!("{vendor}.json"));
        fs::write(&file, description.to_string()).unwrap();
        Device { vendor, file }
    }

    /// The lab it runs in.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A client of its own command-line kind.
    #[must_use]
    pub fn ctr(&self) -> Ctr<'_> {
        Ctr::new(self)
    }

    /// A client of Kubernetes' kind.
    #[must_use]
    pub fn cri(&self) -> Cri<'_> {
        Cri::new(self)
    }

    pub(crate) fn ctr_command(&self, namespace: &str) -> Command {
        let mut command = Command::new(self.lab.programs.join("bin/ctr"));
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .env("PATH", self.path());
        command
    }

    /// `ctr` with these words in this containerd namespace.
    #[track_caller]
    pub fn ctr_command_of(&self, namespace: &str, words: &[&str]) -> Output {
        run(self.ctr_command(namespace).args(words))
    }

    /// All it logged, with what its shims logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What it logged about these ids, for the report of a failed test.
    #[must_use]
    pub fn log_about(&self, ids: &[String]) -> String {
        let log = self.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| ids.iter().any(|id| line.contains(id.as_str())))
            .collect();
        let from = lines.len().saturating_sub(60);
        lines[from..].join("\n")
    }

    /// Copies the log to where it outlives the lab, and says where.
    pub fn keep_log(&self) {
        let kept = self.lab.programs.join("containerd.log");
        if fs::copy(self.dir.join("log"), &kept).is_ok() {
            eprintln!("lab: containerd's log is kept in {}", kept.display());
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = child.take() {
            let pid = Pid::from_raw(child.id().cast_signed());
            kill(pid, Signal::SIGTERM).ok();
            if wait(&mut child, Duration::from_secs(10)).is_none() {
                child.kill().ok();
                child.wait().ok();
            }
        }
    }
}

fn configuration(lab: &Lab, dir: &Path, purpose: Purpose) -> String {
    let cni = lab.programs.join("cni");
    let (cni, level) = match purpose {
        Purpose::Tests => (format!("'{}'", cni.display()), "info"),
        Purpose::Bench => {
            let own = dir.join("cni-bin");
            (format!("'{}', '{}'", own.display(), cni.display()), "warn")
        }
    };
    let bridge = dir.join(BRIDGE);
    let dir = dir.display();
    let mut toml = format!(
        "version = 3
root = '{dir}/root'
state = '{dir}/state'
disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.internal.v1.tracing']
[grpc]
address = '{dir}/c.sock'
[debug]
level = '{level}'
[plugins.'io.containerd.internal.v1.opt']
path = '{dir}/opt'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
pinned_images.sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.runtime']
# Not every machine has AppArmor, and not every root may lower a process's oom_score_adj.
disable_apparmor = true
restrict_oom_score_adj = true
cni.bin_dirs = [{cni}]
cni.conf_dir = '{dir}/cni'
cdi_spec_dirs = ['{dir}/cdi']
cni.use_internal_loopback = {internal}
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'husk'
",
        pause = image::PAUSE,
        level = env::var("HUSK_LAB_LOG").unwrap_or_else(|_| level.into()),
        internal = purpose == Purpose::Bench,
    );
    for handler in handlers(lab) {
        handler.describe(&handler.name, None, &mut toml);
        if purpose == Purpose::Bench && BRIDGED.contains(&handler.name.as_str()) {
            let name = format!("{}-bridge", handler.name);
            handler.describe(&name, Some(&bridge), &mut toml);
        }
    }
    toml
}

/// A runtime handler, as a RuntimeClass names it.
struct Handler {
    name: String,
    runtime: String,
    /// The program, where it is not the one that the runtime's type names.
    path: Option<PathBuf>,
    sandboxer: &'static str,
    options: Vec<(&'static str, String)>,
}

impl Handler {
    /// Adds it under this name; `network` is where its CNI configuration is, if not where that of
    /// the others is.
    fn describe(&self, name: &str, network: Option<&Path>, toml: &mut String) {
        let table = format!("plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'{name}'");
        write!(
            toml,
            "[{table}]\nruntime_type = '{}'\nsandboxer = '{}'\n",
            self.runtime, self.sandboxer
        )
        .unwrap();
        if let Some(path) = &self.path {
            writeln!(toml, "runtime_path = '{}'", path.display()).unwrap();
        }
        if let Some(network) = network {
            writeln!(toml, "cni_conf_dir = '{}'", network.display()).unwrap();
        }
        for (name, value) in &self.options {
            writeln!(toml, "options.{name} = {value}").unwrap();
        }
    }
}

/// `husk` and, for each configuration in `tests/lab/handlers`, one of its name; each also with
/// `-api`, by which the shim makes the sandbox.
fn handlers(lab: &Lab) -> Vec<Handler> {
    let binary = |name: &str| format!("'{}'", lab.programs.join("bin").join(name).display());
    if !lab.tests_husk() {
        return vec![
            Handler {
                name: "husk".into(),
                runtime: lab.runtime.clone(),
                path: None,
                sandboxer: "podsandbox",
                options: vec![("BinaryName", binary("runc"))],
            },
            Handler {
                name: "systemd".into(),
                runtime: lab.runtime.clone(),
                path: None,
                sandboxer: "podsandbox",
                options: vec![
                    ("BinaryName", binary("runc")),
                    ("SystemdCgroup", "true".into()),
                ],
            },
        ];
    }
    let husk = |name: &str, sandboxer, options| Handler {
        name: name.into(),
        runtime: lab.runtime.clone(),
        path: None,
        sandboxer,
        options,
    };
    let runc = |name: &str| Handler {
        name: name.into(),
        runtime: "io.containerd.runc.v2".into(),
        path: None,
        sandboxer: "podsandbox",
        options: vec![("BinaryName", binary(name))],
    };
    let mut handlers = vec![
        runc("runc"),
        runc("crun"),
        husk("husk", "podsandbox", Vec::new()),
        husk("husk-api", "shim", Vec::new()),
        husk("systemd", "podsandbox", Vec::new()),
        husk("systemd-api", "shim", Vec::new()),
        // Without a ConfigPath, containerd hands the handler's options over as they are.
        husk(
            "inline",
            "podsandbox",
            vec![("scopes.network", "'container'".into())],
        ),
        // As runc's shim: releases of containerd before 2.2.7 and 2.3.4 ask no other runtime for its features.
        Handler {
            path: Some(lab.shim_dir.join("containerd-shim-husk-v2")),
            ..runc("by-path")
        },
    ];
    for (name, path) in configurations() {
        let option = ("ConfigPath", format!("'{}'", path.display()));
        handlers.push(husk(&name, "podsandbox", vec![option]));
        // With `sandboxer = "shim"`, containerd 2.1 cannot start containers of a handler that has
        // options: the shim's own name stands for the configuration.
        handlers.push(Handler {
            name: format!("{name}-api"),
            runtime: lab.runtime.replace("husk", &format!("husk-{name}")),
            path: None,
            sandboxer: "shim",
            options: Vec::new(),
        });
    }
    handlers
}

/// The configurations of `tests/lab/handlers` by name.
fn configurations() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/handlers");
    let paths = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    paths
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, path)
        })
        .collect()
}

/// Gives the shim a name for each configuration, and puts that where the name says.
fn link_configurations(lab: &Lab, dir: &Path) {
    let links = dir.join("bin");
    fs::create_dir(&links).unwrap();
    let shim = lab.shim_dir.join("containerd-shim-husk-v2");
    for (name, path) in configurations() {
        symlink(&shim, links.join(format!("containerd-shim-husk-{name}-v2"))).unwrap();
        fs::copy(path, format!("/etc/husk/{name}.toml")).unwrap();
    }
    // Where those configurations name the plugins that `plugins/build` makes.
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/components");
    let link = Path::new("/etc/husk/plugins");
    if !link.is_symlink() {
        symlink(plugins, link).unwrap();
    }
}

/// A network of point-to-point links, which needs no firewall and no bridge; for measuring one that
/// does nothing, so that it is not what is measured, and beside it a bridge, as on many nodes.
fn write_cni(dir: &Path, purpose: Purpose) {
    let of_links = |kind: &str| {
        serde_json::json!({
            "type": kind,
            "ipam": {
                "type": "host-local",
                "subnet": "10.88.0.0/16",
                "dataDir": dir.join("ipam"),
            },
        })
    };
    match purpose {
        Purpose::Tests => write_network(&dir.join("cni"), &of_links("ptp")),
        Purpose::Bench => {
            write_plugin_that_does_nothing(&dir.join("cni-bin"));
            write_network(&dir.join("cni"), &serde_json::json!({"type": NOTHING}));
            write_network(&dir.join(BRIDGE), &of_links("bridge"));
        }
    }
}

/// Where the CNI configuration of a bridge is, and the handlers that are measured on it too.
const BRIDGE: &str = "cni-bridge";
const BRIDGED: [&str; 4] = ["runc", "crun", "husk", "husk-api"];

fn write_network(conf: &Path, plugin: &serde_json::Value) {
    fs::create_dir(conf).unwrap();
    let network = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [plugin],
    });
    fs::write(conf.join("10-lab.conflist"), network.to_string()).unwrap();
}

/// The name of the plugin that does nothing.
const NOTHING: &str = "nothing";

/// It answers each call with an address that nobody has.
fn write_plugin_that_does_nothing(bin: &Path) {
    let script = format!(
        "#!{} sh\necho '{{\"cniVersion\":\"1.0.0\",\"interfaces\":[{{\"name\":\"eth0\",\"sandbox\":\"x\"}}],\
         \"ips\":[{{\"address\":\"10.88.0.2/16\",\"interface\":0}}]}}'\n",
        image::busybox().unwrap().display()
    );
    fs::create_dir(bin).unwrap();
    let plugin = bin.join(NOTHING);
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
}
