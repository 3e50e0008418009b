//! Cgroups on the running kernel, v1 or v2, as root. Each test makes its own and removes it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod devices;
mod freeze;
mod kill;
mod limits;
mod oom;
mod place;
mod remove;
mod stats;
mod systemd;

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use husk_sandbox::cgroup::{Cgroup, Driver};
use oci_spec::runtime::LinuxResources;

/// A cgroup that is gone after the test, whatever happens in it.
struct Scratch {
    cgroup: Cgroup,
}

impl Scratch {
    /// Makes `/husk-test-PID-NAME/own` with these resources.
    fn new(name: &str, json: &str) -> Self {
        let new = Cgroup::make(
            Driver::Cgroupfs,
            Some(&path(name)),
            name,
            Some(&resources(json)),
        )
        .unwrap();
        // An init that lives as long as the test hands the cgroup over.
        let mut init = held("exit");
        let cgroup = new.adopt(pid(&init)).unwrap();
        release(&mut init);
        init.wait().unwrap();
        Self { cgroup }
    }

    /// Runs a shell script in it.
    fn run(&self, script: &str) -> Child {
        let mut child = held(script);
        self.cgroup.join(pid(&child)).unwrap();
        release(&mut child);
        child
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.cgroup.kill());
        if let Err(error) = self.cgroup.remove() {
            assert!(std::thread::panicking(), "{error}");
        }
        // The cgroup above is of this test too, unless it is a slice of systemd.
        for dir in self.cgroup.parent().iter().flat_map(dirs) {
            if dir
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("husk-test-")
            {
                drop(std::fs::remove_dir(dir));
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/husk-test-{}-{name}/own", std::process::id())
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A shell that waits to be released before it runs the script.
fn held(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn release(child: &mut Child) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
}

fn pid(child: &Child) -> i32 {
    child.id().try_into().unwrap()
}

/// Waits up to 10 s for something to become true.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn unified(cgroup: &Cgroup) -> bool {
    cgroup.paths().contains_key("")
}

/// The cgroup's directories, found without the code under test.
fn dirs(cgroup: &Cgroup) -> Vec<std::path::PathBuf> {
    cgroup
        .paths()
        .iter()
        .map(|(controllers, path)| {
            let hierarchy = match controllers.as_str() {
                "name=systemd" => "systemd",
                controllers => controllers,
            };
            let below = path.strip_prefix("/").unwrap();
            std::path::Path::new("/sys/fs/cgroup")
                .join(hierarchy)
                .join(below)
        })
        .collect()
}

/// What a file of the cgroup says; `controller` only matters on v1.
fn read(cgroup: &Cgroup, controller: &str, file: &str) -> String {
    let of_controller = |dir: &&std::path::PathBuf| {
        unified(cgroup)
            || dir
                .components()
                .nth(4)
                .is_some_and(|it| it.as_os_str() == controller)
    };
    let dir = dirs(cgroup).iter().find(of_controller).cloned().unwrap();
    std::fs::read_to_string(dir.join(file))
        .unwrap()
        .trim()
        .to_owned()
}
