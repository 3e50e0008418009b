//! OCI hooks, as containerd's clients and CDI put them into a spec. When, where and with what each
//! kind runs is tested in `crates/sandbox/tests/hooks.rs`.
use std::fs;
use std::path::Path;
use std::time::Instant;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

in_both_modes!(a_cdi_device_brings_its_hooks_along);

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

/// Hooks of all kinds that write their kind and status into one file, as far as they reach it.
fn log_all(spec: &mut Value, log: &Path) {
    for kind in KINDS {
        let log = match kind {
            "startContainer" => Path::new("/log"),
            _ => log,
        };
        let script = format!(
            "echo {kind} $(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') >> {}",
            log.display()
        );
        spec["hooks"][kind] = json!([shell(&script)]);
    }
    let mount = json!({"destination": "/log", "source": log, "options": ["bind"]});
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

const ALL: &str = "prestart creating
createRuntime creating
createContainer creating
startContainer created
poststart running
poststop stopped
";

#[test]
fn all_kinds_run_in_their_order() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let log = container.folder().join("log");
    fs::write(&log, "").unwrap();
    let container = container.spec(&["sleep", "1000000"], |spec| log_all(spec, &log));
    container.start(&[]);
    let before = ALL.trim_end_matches("poststop stopped\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), before);
    let _ = container.exec(&["true"]).ok();
    container.kill("KILL");
    container.until_status("STOPPED");
    assert_eq!(fs::read_to_string(&log).unwrap(), before);
    container.remove();
    assert_eq!(fs::read_to_string(&log).unwrap(), ALL);
}

#[test]
fn poststop_runs_for_a_container_that_lost_its_shim() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let log = container.folder().join("log");
    fs::write(&log, "").unwrap();
    let container = container.spec(&["sleep", "1000000"], |spec| log_all(spec, &log));
    container.start(&[]);
    for shim in process::shims(std::slice::from_ref(&container.id)) {
        kill(shim, Signal::SIGKILL).unwrap();
    }
    until("poststop has run", || {
        fs::read_to_string(&log).unwrap() == ALL
    });
}

#[test]
fn a_failing_hook_undoes_the_container_and_poststop_runs() {
    let containerd = Containerd::of_the_suite();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let container = containerd.ctr().container();
        let log = container.folder().join("log");
        fs::write(&log, "").unwrap();
        let container = container.spec(&["sleep", "1000000"], |spec| {
            log_all(spec, &log);
            spec["hooks"][kind] = json!([shell("echo the device is away; exit 5")]);
        });
        let output = container.run(&[]);
        assert_ne!(output.code, 0);
        let name = format!("{kind} hook 1 of container {}", container.id);
        for part in [name.as_str(), "status 5", "the device is away"] {
            assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
        }
        let log = fs::read_to_string(&log).unwrap();
        assert!(log.ends_with("poststop stopped\n"), "{kind}: {log}");
        assert!(!log.contains("poststart"), "{kind}: {log}");
    }
}

#[test]
fn a_failing_poststart_hook_ends_the_container() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let container = container.spec(&["sleep", "1000000"], |spec| {
        spec["hooks"]["poststart"] = json!([shell("exit 6")]);
    });
    let output = container.run(&[]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("poststart hook 1"), "{output:?}");
}

#[test]
fn a_failing_poststop_hook_holds_nothing_up() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let ran = container.folder().join("ran");
    let touch = format!("touch {}", ran.display());
    let container = container.spec(&["echo", "done"], |spec| {
        let mut slow = shell("sleep 1000000");
        slow["timeout"] = json!(1);
        let absent = json!({"path": "/no/such/hook"});
        spec["hooks"]["poststop"] = json!([absent, slow, shell("exit 6"), shell(&touch)]);
    });
    let began = Instant::now();
    assert_eq!(container.run(&[]).ok(), "done\n");
    assert!(began.elapsed().as_secs() < 20);
    assert!(ran.exists());
}

/// What `nvidia-ctk cdi generate` writes has the like: a device, an environment and hooks.
fn a_cdi_device_brings_its_hooks_along(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    // It finds the root by the bundle of the state, in whose mount namespace it is already.
    let script = r#"
state=$(cat)
bundle=$(echo "$state" | sed 's/.*"bundle":"\([^"]*\)".*/\1/')
test -r "$bundle/config.json" || exit 7
echo "driver of $(basename $bundle)" > "$bundle/rootfs/driver"
"#;
    let device = containerd.cdi_device(&json!({
        "env": ["HAS=device"],
        "hooks": [{
            "hookName": "createContainer",
            "path": "/bin/sh",
            "args": ["sh", "-c", script],
        }],
    }));
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let container = pod
        .container("app", &["sh", "-c", "sleep 1000000"])
        .with(|config| config.cdi_devices = device.wanted())
        .start();
    let said = container.sh("echo $HAS; cat /driver");
    let id = container.status().id;
    assert_eq!(said, format!("device\ndriver of {id}"));
}
