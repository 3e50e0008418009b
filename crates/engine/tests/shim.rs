//! The client drives a real shim: a container's whole life, an exec with input and output, and
//! what is left after a failure.
//!
//! Runs against containerd's own runc shim, so that the client is proved by a shim that it was
//! not written with. `HUSK_LAB` names the lab's directory; `tests/run` sets it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use husk_engine::shim::{Binary, Error, Events, Shim, Start, Stdio};
use oci_spec::runtime::{Spec, get_default_namespaces};
use tempfile::TempDir;

struct Lab {
    directory: TempDir,
    id: String,
}

impl Lab {
    /// A bundle with a busybox root that runs `command`.
    fn new(name: &str, command: &[&str]) -> Self {
        let directory = tempfile::tempdir_in("/run").unwrap();
        let lab = Self {
            id: format!("{name}-{}", std::process::id()),
            directory,
        };
        let bin = lab.bundle().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["proc", "dev", "sys"] {
            fs::create_dir(lab.bundle().join("rootfs").join(name)).unwrap();
        }
        fs::copy(busybox(), bin.join("busybox")).unwrap();
        for applet in ["sh", "cat", "sleep", "true"] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let mut spec = Spec::default();
        let mut process = spec.process().clone().unwrap();
        process.set_args(Some(command.iter().map(ToString::to_string).collect()));
        process.set_terminal(Some(false));
        spec.set_process(Some(process));
        let mut linux = spec.linux().clone().unwrap();
        linux.set_cgroups_path(Some(format!("/husk-test/{}", lab.id).into()));
        linux.set_namespaces(Some(get_default_namespaces()));
        spec.set_linux(Some(linux));
        spec.save(lab.bundle().join("config.json")).unwrap();
        lab
    }

    fn bundle(&self) -> PathBuf {
        self.directory.path().join("b")
    }

    fn output(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    fn stdio(&self) -> Stdio {
        let file = format!("file://{}", self.output().display());
        Stdio {
            stdout: file.clone(),
            stderr: file,
            ..Stdio::default()
        }
    }

    fn start(&self, events: &Events) -> Start {
        Start {
            binary: Binary::find(Some(shim().to_str().unwrap())).unwrap(),
            id: self.id.clone(),
            bundle: self.bundle(),
            events: events.address().to_owned(),
            options: None,
            debug: false,
        }
    }
}

fn shim() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab");
    let lab = env::var_os("HUSK_LAB").map_or_else(default, PathBuf::from);
    let shim = lab.join("bin/containerd-shim-runc-v2");
    assert!(
        shim.exists(),
        "{} is missing: `tests/lab/get DIR` unpacks one, HUSK_LAB=DIR names it",
        shim.display()
    );
    shim
}

fn busybox() -> PathBuf {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("busybox"))
        .find(|file| file.is_file())
        .expect("busybox is not in PATH: `apt-get install busybox-static` provides it")
}

async fn end(shim: &Shim, lab: &Lab) {
    shim.task().delete(&lab.id, "").await.unwrap();
    shim.task().shutdown(&lab.id).await.unwrap();
    let socket = PathBuf::from(shim.address().trim_start_matches("unix://"));
    for _ in 0..50 {
        if !socket.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the shim did not exit: {} is still there", socket.display());
}

#[tokio::test]
async fn a_container_runs_and_its_end_is_reported() {
    let lab = Lab::new("life", &["sh", "-c", "echo hello; exit 7"]);
    let (events, mut happened) = Events::serve(lab.directory.path()).await.unwrap();
    let shim = lab.start(&events).run().await.unwrap();
    let task = shim.task();
    let pid = task
        .create(&lab.id, &lab.bundle(), Vec::new(), &lab.stdio(), None)
        .await
        .unwrap();
    assert_eq!(task.connect(&lab.id).await.unwrap().task_pid, pid);
    assert_eq!(task.start(&lab.id, "").await.unwrap(), pid);
    assert_eq!(task.wait(&lab.id, "").await.unwrap().code, 7);
    end(&shim, &lab).await;
    assert_eq!(fs::read_to_string(lab.output()).unwrap(), "hello\n");
    let mut topics = Vec::new();
    while let Ok(event) = happened.try_recv() {
        topics.push(event.topic);
    }
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete"
        ]
    );
}

#[tokio::test]
async fn kill_and_stats_and_state() {
    let lab = Lab::new("kill", &["sleep", "1000"]);
    let (events, _happened) = Events::serve(lab.directory.path()).await.unwrap();
    let shim = lab.start(&events).run().await.unwrap();
    let task = shim.task();
    task.create(&lab.id, &lab.bundle(), Vec::new(), &lab.stdio(), None)
        .await
        .unwrap();
    task.start(&lab.id, "").await.unwrap();
    assert!(
        task.stats(&lab.id)
            .await
            .unwrap()
            .type_url
            .starts_with("io.containerd.cgroups.v")
    );
    assert_eq!(task.state(&lab.id, "").await.unwrap().exit_status, 0);
    let waiting = tokio::spawn({
        let (task, id) = (task.clone(), lab.id.clone());
        async move { task.wait(&id, "").await }
    });
    task.kill(&lab.id, "", 9, false).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    end(&shim, &lab).await;
}

#[tokio::test]
async fn what_the_shim_refuses_keeps_its_code() {
    let lab = Lab::new("refuse", &["true"]);
    let (events, _happened) = Events::serve(lab.directory.path()).await.unwrap();
    let shim = lab.start(&events).run().await.unwrap();
    let error = shim.task().start("nobody", "").await.unwrap_err();
    assert!(error.is_gone(), "{error:?}");
    shim.task().shutdown(&lab.id).await.unwrap();
}

#[tokio::test]
async fn a_failed_start_says_why() {
    let lab = Lab::new("fail", &["true"]);
    let (events, _happened) = Events::serve(lab.directory.path()).await.unwrap();
    let mut start = lab.start(&events);
    // busybox is no shim: `start` is no applet of it.
    start.binary = Binary::find(Some(busybox().to_str().unwrap())).unwrap();
    let error = start.run().await.err().unwrap();
    assert!(matches!(error, Error::Command { .. }), "{error:?}");
    assert!(error.to_string().contains("applet not found"), "{error}");
}
