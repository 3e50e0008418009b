//! Plugins decide about Kubernetes' pods: the very call that is refused says by whom and why.
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use husk_tests::audit::refuses;
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Mode, Pod};
use husk_tests::ctr::unique;
use husk_tests::process::namespaces;
use k8s_cri::v1::{KeyValue, LinuxContainerResources, NamespaceMode};
use nix::unistd::getpid;
use serde_json::Value;

use crate::policies::{never_seen, plugin};

in_both_modes!(
    a_pod_is_refused_when_it_is_run,
    a_container_is_refused_when_it_is_created,
    an_exec_is_refused_when_it_is_asked_for,
    an_update_is_refused_when_it_is_asked_for,
    a_named_container_has_a_network_of_its_own,
    whatever_goes_wrong_in_a_plugin_refuses_the_container,
    a_failure_may_be_ignored_and_a_monitor_decides_nothing,
    a_plugin_that_cannot_be_loaded_refuses_the_pod,
    a_container_is_what_a_plugin_makes_of_it,
    a_container_may_be_given_its_cgroup_to_manage,
    what_has_happened_is_told_in_order,
    a_sandbox_may_be_left_without_a_namespace,
    a_sandbox_may_be_given_a_namespace,
    a_scope_that_no_sandbox_has_is_refused,
);

#[track_caller]
pub(crate) fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no `{word}` in {message}");
    }
}

/// What is on record of the pod.
pub(crate) fn audit(pod: &Pod<'_>) -> Vec<Value> {
    husk_tests::audit::of(&pod.id)
}

fn a_pod_is_refused_when_it_is_run(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policies", mode);
    let refused = pod
        .namespaces(|options| options.pid = NamespaceMode::Node.into())
        .try_run()
        .unwrap_err();
    says(refused.message(), &["policy `no-host` denies", "hostPID"]);
}

fn a_container_is_refused_when_it_is_created(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policies", mode).run();
    let refused = create_and_start(&pod, "stranger").unwrap_err();
    let words = [
        "policy `doorman` denies container-creating",
        "nobody knows this container",
    ];
    says(&refused, &words);
    // Its neighbours are not concerned.
    let _ = pod.sleeper("known");
}

/// containerd makes the task, and so asks the shim, when the container is started.
pub(crate) fn create_and_start(pod: &Pod<'_>, name: &str) -> Result<(), String> {
    let container = pod.container(name, &["sleep", "1000000"]).try_create();
    let container = container.map_err(|status| status.message().to_owned())?;
    container
        .try_start()
        .map_err(|status| status.message().to_owned())
}

fn an_exec_is_refused_when_it_is_asked_for(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policies", mode).run();
    let app = pod.sleeper("app");
    assert_eq!(app.exec(&["echo", "yes"]).stdout, "yes\n");
    let refused = app.try_exec(&["sh", "-c", "true"]).unwrap_err();
    says(
        refused.message(),
        &["policy `exec-gate` denies exec-starting", "sh -c true"],
    );
}

fn an_update_is_refused_when_it_is_asked_for(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policies", mode).run();
    let limit = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    let refused = pod.sleeper("fixed").update(limit.clone()).unwrap_err();
    let words = [
        "policy `doorman` denies resources-updating",
        "stay as they are",
    ];
    says(refused.message(), &words);
    pod.sleeper("free").update(limit).unwrap();
}

fn a_named_container_has_a_network_of_its_own(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policies", mode).run();
    let (agent, app, other) = (
        pod.sleeper("agent"),
        pod.sleeper("app"),
        pod.sleeper("other"),
    );
    let of = |pid| namespaces(pid);
    let (agent, app, other) = (of(agent.pid()), of(app.pid()), of(other.pid()));
    assert_ne!(agent["net"], app["net"]);
    assert_eq!(app["net"], other["net"]);
    assert_eq!((&agent["ipc"], &agent["uts"]), (&app["ipc"], &app["uts"]));
    assert_ne!(agent["net"], of(getpid())["net"]);
}

fn whatever_goes_wrong_in_a_plugin_refuses_the_container(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("bad-policies", mode).run();
    for (name, words) in [
        (
            "trapped",
            [
                "policy `trap` denies scope-container",
                "panicked at says/src/lib.rs",
            ],
        ),
        (
            "looped",
            [
                "policy `loop` denies scope-container",
                "no answer within 50 ms",
            ],
        ),
        (
            "deep",
            ["policy `recursion` denies scope-container", "it failed"],
        ),
        (
            "full",
            [
                "policy `memory` denies scope-container",
                "the memory limit of 64 MiB",
            ],
        ),
        ("torn", ["`one-way` and `another-way` conflict", "network"]),
    ] {
        says(&create_and_start(&pod, name).unwrap_err(), &words);
    }
    let _ = pod.sleeper("sound");
}

fn a_failure_may_be_ignored_and_a_monitor_decides_nothing(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("bad-policies", mode).run();
    let (_excused, _watched) = (pod.sleeper("excused"), pod.sleeper("watched"));
    let audit = audit(&pod);
    let denied: Vec<_> = audit.iter().filter(|line| refuses(line)).collect();
    assert_eq!(denied.len(), 2, "{denied:#?}");
    let of = |plugin: &str| {
        let line = denied.iter().find(|line| line["plugin"] == plugin);
        line.unwrap_or_else(|| panic!("no {plugin} in {denied:#?}"))
    };
    assert_eq!(of("excused")["event"], "scope-container");
    assert_eq!(of("watching")["reason"], "it would be refused");
    for line in &audit {
        assert_eq!(
            line["counted"],
            !(line["plugin"] == "watching" || refuses(line))
        );
        for field in ["digest", "input"] {
            assert_eq!(line[field].as_str().map(str::len), Some(64), "{line}");
        }
        assert!(line["micros"].as_u64().is_some(), "{line}");
    }
}

fn a_plugin_that_cannot_be_loaded_refuses_the_pod(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    for (handler, words) in [
        (
            "policy-missing",
            [
                "policy `gone` cannot be asked",
                "/etc/husk/no-such-plugin.wasm",
            ],
        ),
        (
            "policy-swapped",
            ["policy `swapped` cannot be asked", "has the sha256"],
        ),
    ] {
        let refused = cri.pod_of(handler, mode).try_run().unwrap_err();
        says(refused.message(), &words);
    }
}

#[test]
fn a_pod_keeps_the_plugin_it_was_made_with() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let replaced = Path::new("/etc/husk/replaced.wasm");
    // One after the other: both modes have the same file.
    for mode in [Mode::Podsandbox, Mode::SandboxApi] {
        fs::copy(plugin("exec-gate"), replaced).unwrap();
        let pod = cri.pod_of("policy-replaced", mode);
        let refused = pod.try_run().unwrap_err();
        says(refused.message(), &["`gate`", "settings"]);
        fs::copy(plugin("kubernetes"), replaced).unwrap();
        let pod = cri.pod_of("policy-replaced", mode).run();
        fs::copy(plugin("exec-gate"), replaced).unwrap();
        assert_eq!(pod.sleeper("app").exec(&["echo", "old"]).stdout, "old\n");
        let refused = cri.pod_of("policy-replaced", mode).try_run().unwrap_err();
        says(refused.message(), &["`gate`", "settings"]);
    }
}

fn a_container_may_be_given_its_cgroup_to_manage(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policy-cgroup", mode).run();
    if !husk_tests::cgroup::is_v2() {
        let refused = create_and_start(&pod, "app").unwrap_err();
        return says(&refused, &["files of cgroup v2"]);
    }
    let app = pod.sleeper("app");
    assert_eq!(app.sh("cat /sys/fs/cgroup/memory.oom.group"), "1");
    let _ = app.sh("mkdir /sys/fs/cgroup/below && echo 0 >/sys/fs/cgroup/below/cgroup.procs");
    let other = pod.sleeper("other");
    assert_eq!(other.sh("cat /sys/fs/cgroup/memory.oom.group"), "0");
    let refused = other.exec(&["mkdir", "/sys/fs/cgroup/below"]);
    says(&refused.stderr, &["Read-only"]);
}

fn a_container_is_what_a_plugin_makes_of_it(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    });
    fs::write("/etc/husk/no-mkdir.json", profile.to_string()).unwrap();
    let pod = cri.pod_of("policy-edits", mode).run();
    let env = |key: &str| KeyValue {
        key: key.into(),
        value: "set by the pod".into(),
    };
    let app = pod
        .container("app", &["sleep", "1000000"])
        .with(|config| config.envs = vec![env("REMOVED"), env("MODE")])
        .start();
    let env = app.sh("tr '\\0' '\\n' </proc/1/environ");
    let of = |name: &str| {
        env.lines()
            .filter(|line| line.starts_with(name))
            .collect::<Vec<_>>()
    };
    assert_eq!((of("MODE="), of("REMOVED=")), (vec!["MODE=edited"], vec![]));
    says(
        &app.sh("grep ' /added ' /proc/mounts"),
        &["tmpfs", "size=1024k"],
    );
    assert_ne!(app.exec(&["grep", " /dev/mqueue ", "/proc/mounts"]).code, 0);
    let limits = app.sh("grep 'open files' /proc/1/limits");
    assert_eq!(
        limits
            .split_whitespace()
            .skip(3)
            .take(2)
            .collect::<Vec<_>>(),
        ["77", "88"]
    );
    assert_eq!(app.sh("cat /proc/sys/net/ipv4/ip_default_ttl"), "77");
    let status = app.sh("grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/1/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let capabilities = u64::from_str_radix(&field("CapBnd:"), 16).unwrap();
    assert_eq!(capabilities & (1 << 13), 0, "CAP_NET_RAW");
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".into(), "2".into())
    );
    let refused = app.exec(&["mkdir", "/tmp/new"]);
    says(&refused.stderr, &["not permitted"]);
    assert_eq!(app.sh("cat /proc/1/oom_score_adj"), "555");
    assert_eq!(app.sh("cat /etc/passwd"), "", "a masked file is empty");
    assert_ne!(app.exec(&["touch", "/var/new"]).code, 0, "a read-only path");
    let controller = |controller: &str, v1: &str, v2: &str| {
        let folder = husk_tests::cgroup::of(app.pid(), controller);
        let file = if husk_tests::cgroup::is_v2() { v2 } else { v1 };
        fs::read_to_string(folder.join(file))
            .unwrap()
            .trim()
            .to_owned()
    };
    let memory = controller("memory", "memory.limit_in_bytes", "memory.max");
    let page = 4096;
    assert_eq!(memory.parse::<u64>().unwrap(), 50_000_000 / page * page);
    assert_eq!(controller("pids", "pids.max", "pids.max"), "55");
    let cpu = controller("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(cpu.split_whitespace().next(), Some("50000"));
    let spec = Path::new("/run/husk/k8s.io")
        .join(&pod.id)
        .join("containers")
        .join(&app.id);
    let spec = fs::read_to_string(spec.join("config.json")).unwrap();
    let spec: Value = serde_json::from_str(&spec).unwrap();
    assert_eq!(spec["annotations"]["lab.test/by"], "edits");
    // Another container of the pod is as it was asked for.
    assert!(
        !pod.sleeper("other")
            .sh("cat /proc/1/environ")
            .contains("edited")
    );
}

fn what_has_happened_is_told_in_order(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("bad-policies", mode).run();
    let app = pod.sleeper("app");
    let _ = app.exec(&["true"]);
    let brief = pod.container("brief", &["true"]).start();
    let _ = brief.until_exited();
    app.stop(10);
    let told = |wanted: &str, container: Option<&str>| {
        audit(&pod)
            .iter()
            .any(|line| line["event"] == wanted && line["container"].as_str() == container)
    };
    for name in ["app", "brief"] {
        until("its end is told", || told("container-exited", Some(name)));
    }
    if mode == Mode::SandboxApi {
        pod.stop();
        until("the sandbox's end is told", || {
            told("sandbox-stopped", None)
        });
    }
    let audit = audit(&pod);
    let heard = |about: &[&str]| {
        let lines = audit.iter().filter(|line| line["plugin"] == "trap");
        let lines =
            lines.filter(|line| about.contains(&line["container"].as_str().unwrap_or("sandbox")));
        let words = lines.map(|line| line["event"].as_str().unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    let mut sandbox = vec![
        "validate-settings",
        "sandbox-starting",
        "scope-sandbox",
        "sandbox-started",
    ];
    if mode == Mode::SandboxApi {
        sandbox.push("sandbox-stopped");
    }
    assert_eq!(heard(&["sandbox"]), sandbox);
    let life = [
        "scope-container",
        "link-container",
        "container-creating",
        "container-started",
    ];
    let of_app = [&life[..], &["exec-starting", "container-exited"]].concat();
    assert_eq!(heard(&["app"]), of_app);
    assert_eq!(
        heard(&["brief"]),
        [&life[..], &["container-exited"]].concat()
    );
    let all = heard(&["sandbox", "app", "brief"]);
    let place = |question: &str| all.iter().position(|heard| heard == question);
    assert!(
        place("sandbox-started") < place("scope-container"),
        "{all:?}"
    );
}

fn a_sandbox_may_be_left_without_a_namespace(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policy-sandbox-ipc", mode).run();
    let (app, node) = (namespaces(pod.sleeper("app").pid()), namespaces(getpid()));
    assert_eq!(app["ipc"], node["ipc"]);
    assert_ne!(app["uts"], node["uts"]);
}

fn a_sandbox_may_be_given_a_namespace(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("policy-sandbox-pid", mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    let (one, two) = (namespaces(one.pid()), namespaces(two.pid()));
    assert_eq!(one["pid"], two["pid"]);
    assert_ne!(one["pid"], namespaces(getpid())["pid"]);
}

fn a_scope_that_no_sandbox_has_is_refused(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let refused = cri
        .pod_of("policy-sandbox-container", mode)
        .try_run()
        .unwrap_err();
    says(refused.message(), &["policy lost", "ipc", "POD or NODE"]);
}

/// Pods of this handler's configuration, started at once with `ctr`, whose shims all find the plugin
/// not compiled.
#[test]
fn pods_that_start_at_once_compile_once_and_later_ones_wait_for_no_compiler() {
    let containerd = Containerd::of_the_suite();
    let run = &containerd.lab().run;
    let component = never_seen("kubernetes", run);
    let config = run.join(unique("at-once"));
    let path = component.display();
    fs::write(
        &config,
        format!("[[plugin]]\nname = 'new'\npath = '{path}'\ndeadline = '5s'\n"),
    )
    .unwrap();
    let flag = format!("--runtime-config-path={}", config.display());
    let containers: Vec<_> = (0..20)
        .map(|_| containerd.ctr().container().flag(&flag))
        .collect();
    let starting: Vec<_> = containers
        .iter()
        .map(|container| {
            let mut command = container.command(&[], &["true"]);
            let command = command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in starting {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let digest = digest(&component);
    let entries = || {
        let files = fs::read_dir("/var/cache/husk").unwrap().flatten();
        let mut entries: Vec<_> = files
            .filter(|file| file.file_name().to_string_lossy().starts_with(&digest))
            .map(|file| file.path())
            .collect();
        entries.sort();
        entries
    };
    let made = entries();
    assert_eq!(made.len(), 1, "{made:?}");
    // Whoever compiles waits for this lock: a pod that starts all the same needs no compiler.
    let lock = File::open(format!("/var/cache/husk/.{digest}.lock")).unwrap();
    lock.lock().unwrap();
    let began = Instant::now();
    let later = containerd.ctr().container().flag(&flag);
    assert_eq!(later.run(&["echo", "started"]).ok(), "started\n");
    assert!(began.elapsed() < Duration::from_secs(30));
    drop(lock);
    fs::remove_file(&made[0]).unwrap();
    fs::remove_file(format!("/var/cache/husk/.{digest}.lock")).unwrap();
}

fn digest(file: &Path) -> String {
    let output = std::process::Command::new("sha256sum")
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}
