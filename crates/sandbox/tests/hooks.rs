//! OCI hooks: when and where each kind runs, what it is told, what it has, and what its failure does.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use husk_sandbox::hooks::{Hooks, Kind};
use husk_sandbox::job::Job;
use husk_sandbox::process::Ended;
use serde_json::{Value, json};
use support::{Container, Lab, run};

fn main() {
    run(&[
        (
            "each_kind_runs_at_its_time_and_in_its_place",
            each_kind_runs_at_its_time_and_in_its_place,
        ),
        (
            "hooks_of_a_kind_run_in_the_listed_order",
            hooks_of_a_kind_run_in_the_listed_order,
        ),
        (
            "a_hook_has_the_environment_it_was_given_and_no_other",
            a_hook_has_the_environment_it_was_given_and_no_other,
        ),
        (
            "a_hook_on_the_node_mounts_into_the_container",
            a_hook_on_the_node_mounts_into_the_container,
        ),
        (
            "a_read_only_root_is_read_only_after_the_hooks",
            a_read_only_root_is_read_only_after_the_hooks,
        ),
        (
            "a_hook_in_the_container_has_no_more_than_its_program",
            a_hook_in_the_container_has_no_more_than_its_program,
        ),
        (
            "a_failure_undoes_the_container_and_is_told",
            a_failure_undoes_the_container_and_is_told,
        ),
        (
            "a_failure_in_the_container_fails_the_start",
            a_failure_in_the_container_fails_the_start,
        ),
        (
            "a_hook_that_takes_too_long_is_killed_with_its_children",
            a_hook_that_takes_too_long_is_killed_with_its_children,
        ),
        (
            "a_hook_may_ignore_a_long_state_and_leave_a_child",
            a_hook_may_ignore_a_long_state_and_leave_a_child,
        ),
        (
            "an_image_whose_dev_is_a_link_reaches_nothing_of_the_node",
            an_image_whose_dev_is_a_link,
        ),
    ]);
}

/// Writes what it is told, and what it is, into files of a directory.
const TELL: &str = r#"
cat > "$1/$2.state"
cat /proc/self/environ | tr '\0' '\n' > "$1/$2.env"
ls /proc/self/fd > "$1/$2.fd"
grep -E '^(Sig(Ign|Blk)|Cap(Eff|Bnd)|Uid|NoNewPrivs|Seccomp):' /proc/self/status > "$1/$2.status"
for kind in mnt net pid ipc uts; do readlink /proc/self/ns/$kind; done > "$1/$2.ns"
pwd > "$1/$2.cwd"
ls / > "$1/$2.root"
"#;

fn shell(script: &str, args: &[&str]) -> Value {
    let args: Vec<&str> = ["sh", "-c", script, "sh"]
        .iter()
        .chain(args)
        .copied()
        .collect();
    json!({"path": "/bin/sh", "args": args})
}

/// A directory of the node, and the same in the container at /out.
fn shared(lab: &Lab) -> (PathBuf, Value) {
    let dir = lab.run_dir().join(format!("shared{}", lab.next_id()));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let mount = json!({"destination": "/out", "source": dir, "options": ["rbind"]});
    (dir, mount)
}

fn add_mount(spec: &mut Value, mount: &Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount.clone());
}

fn spec_of(container: &Container) -> oci_spec::runtime::Spec {
    let text = fs::read(container.dir.join("config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Runs hooks that the shim has run when the container exists, or no more.
fn perform(lab: &Lab, container: &Container, kind: Kind) -> Result<(), String> {
    let spec = spec_of(container);
    let hooks = Hooks::of(&spec, kind, &container.id, &container.dir).unwrap();
    let hooks = match kind {
        Kind::Poststop => hooks,
        _ => hooks.with_pid(container.init.pid),
    };
    let done = lab.perform(Job::Hooks(hooks));
    done.map(drop).map_err(|error| error.message)
}

fn read(dir: &Path, kind: &str, what: &str) -> String {
    let path = dir.join(format!("{kind}.{what}"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn namespaces(pid: i32) -> String {
    let kinds = ["mnt", "net", "pid", "ipc", "uts"];
    kinds
        .map(|kind| {
            let path = format!("/proc/{pid}/ns/{kind}");
            format!("{}\n", fs::read_link(path).unwrap().display())
        })
        .concat()
}

fn each_kind_runs_at_its_time_and_in_its_place(lab: &Lab) {
    let (dir, mount) = shared(lab);
    let path = dir.display().to_string();
    let mut container = lab.create(|spec| {
        add_mount(spec, &mount);
        spec["annotations"] = json!({"some": "thing"});
        spec["process"]["args"] = json!(["sh", "-c", "ls /out > /out/at-start; sleep 60"]);
        for kind in Kind::ALL {
            let name = kind.name();
            let out = if kind == Kind::StartContainer {
                "/out"
            } else {
                &path
            };
            spec["hooks"][name] = json!([shell(TELL, &[out, name])]);
        }
    });
    let states = |dir: &Path| {
        let found = Kind::ALL.map(Kind::name);
        found.map(|name| dir.join(format!("{name}.state")).exists())
    };
    assert_eq!(states(&dir), [true, true, true, false, false, false]);
    container.start().unwrap();
    assert_eq!(states(&dir), [true, true, true, true, false, false]);
    perform(lab, &container, Kind::Poststart).unwrap();
    perform(lab, &container, Kind::Poststop).unwrap();
    assert_eq!(states(&dir), [true; 6]);

    let on_the_node = namespaces(std::process::id().try_into().unwrap());
    let inside = namespaces(container.init.pid);
    let statuses = [
        "creating", "creating", "creating", "created", "running", "stopped",
    ];
    for (kind, status) in Kind::ALL.into_iter().zip(statuses) {
        let name = kind.name();
        let contained = matches!(kind, Kind::CreateContainer | Kind::StartContainer);
        let expected = if contained { &inside } else { &on_the_node };
        assert_eq!(&read(&dir, name, "ns"), expected, "{name}");
        let mut state: Value = serde_json::from_str(&read(&dir, name, "state")).unwrap();
        let pid = state.as_object_mut().unwrap().remove("pid");
        let expected = match kind {
            Kind::Poststop => None,
            _ if contained => Some(json!(1)),
            _ => Some(json!(container.init.pid)),
        };
        assert_eq!(pid, expected, "{name}");
        let expected = json!({
            "ociVersion": "1.2.0",
            "id": container.id,
            "status": status,
            "bundle": container.dir,
            "annotations": {"some": "thing"},
        });
        assert_eq!(state, expected, "{name}");
        // The last is that of `ls`.
        assert_eq!(read(&dir, name, "fd"), "0\n1\n2\n3\n", "{name}");
        for set in ["SigIgn", "SigBlk"] {
            let default = format!("{set}:\t0000000000000000\n");
            assert!(read(&dir, name, "status").contains(&default), "{name}");
        }
        let cwd = match kind {
            Kind::CreateContainer => container.dir.join("rootfs"),
            Kind::StartContainer => PathBuf::from("/"),
            _ => container.dir.clone(),
        };
        assert_eq!(
            read(&dir, name, "cwd"),
            format!("{}\n", cwd.display()),
            "{name}"
        );
    }
    assert!(read(&dir, "createContainer", "root").contains("home\n"));
    assert!(!read(&dir, "startContainer", "root").contains("home\n"));
    container.kill();
    fs::remove_dir_all(dir).unwrap();
}

fn hooks_of_a_kind_run_in_the_listed_order(lab: &Lab) {
    let (dir, mount) = shared(lab);
    let path = dir.display().to_string();
    let mut expected = String::new();
    let mut container = lab.create(|spec| {
        add_mount(spec, &mount);
        spec["process"]["args"] = json!(["sh", "-c", "echo program >> /out/order; sleep 60"]);
        for kind in Kind::ALL {
            let name = kind.name();
            let out = if kind == Kind::StartContainer {
                "/out"
            } else {
                &path
            };
            // The first would be overtaken if they did not wait for each other.
            let hooks = [("1", "0.2"), ("2", "0"), ("3", "0.1")].map(|(number, pause)| {
                let script = "sleep $4; echo $2 $3 >> $1/order";
                shell(script, &[out, name, number, pause])
            });
            spec["hooks"][name] = json!(hooks);
            expected += &["1", "2", "3"]
                .map(|number| format!("{name} {number}\n"))
                .concat();
        }
    });
    container.start().unwrap();
    until_said(&dir.join("order"), "program\n");
    perform(lab, &container, Kind::Poststart).unwrap();
    perform(lab, &container, Kind::Poststop).unwrap();
    let order = fs::read_to_string(dir.join("order")).unwrap();
    let expected = expected.replace("poststart 1", "program\npoststart 1");
    assert_eq!(order, expected);
    container.kill();
    fs::remove_dir_all(dir).unwrap();
}

fn until_said(file: &Path, words: &str) {
    let patience = Instant::now() + support::LONG;
    while !fs::read_to_string(file).unwrap().contains(words) {
        assert!(Instant::now() < patience, "{words} is not said");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn a_hook_has_the_environment_it_was_given_and_no_other(lab: &Lab) {
    let (dir, mount) = shared(lab);
    let path = dir.display().to_string();
    let mut container = lab.create(|spec| {
        add_mount(spec, &mount);
        spec["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "SECRET=x"]);
        for kind in Kind::ALL {
            let name = kind.name();
            let out = if kind == Kind::StartContainer {
                "/out"
            } else {
                &path
            };
            let mut hook = shell(TELL, &[out, name]);
            hook["env"] = json!(["PATH=/usr/bin:/bin", "OF=hook", "A==b"]);
            spec["hooks"][name] = json!([hook]);
        }
    });
    container.start().unwrap();
    perform(lab, &container, Kind::Poststart).unwrap();
    container.finish();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Poststop) {
        let mut seen: Vec<String> = read(&dir, kind.name(), "env")
            .lines()
            .map(str::to_owned)
            // Which shells export by themselves.
            .filter(|entry| {
                !["PWD=", "SHLVL=", "_="]
                    .iter()
                    .any(|own| entry.starts_with(own))
            })
            .collect();
        seen.sort();
        assert_eq!(seen, ["A==b", "OF=hook", "PATH=/usr/bin:/bin"], "{kind:?}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// What NVIDIA's hook does: it finds the root in the bundle's config.json, and enters the mount
/// namespace of the state's process.
const MOUNT: &str = r#"
state=$(cat)
pid=$(echo "$state" | sed 's/.*"pid":\([0-9]*\).*/\1/')
bundle=$(echo "$state" | sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/; s/.*"path":"\([^"]*rootfs\)".*/\1/' "$bundle/config.json")
mkdir "$root/made"
nsenter --target "$pid" --mount mount -t tmpfs -o mode=755 of-the-hook "$root/made"
nsenter --target "$pid" --mount --net sh -c "echo driver > $root/made/driver; ip -o link > $root/made/links"
nsenter --target "$pid" --mount mknod "$root/dev/nvidia0" c 1 3
"#;

fn a_hook_on_the_node_mounts_into_the_container(lab: &Lab) {
    for kind in ["prestart", "createRuntime"] {
        let script = "grep -c of-the-hook /proc/mounts; cat /made/driver; wc -l < /made/links; \
                      echo x > /dev/nvidia0 && echo device";
        let container = lab.create(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", script]);
            spec["hooks"][kind] = json!([shell(MOUNT, &[])]);
        });
        let expected = "1\ndriver\n1\ndevice\n";
        assert_eq!(
            container.run(),
            (Ended::Exited(0), expected.to_owned()),
            "{kind}"
        );
        // The image is shared by the tests.
        fs::remove_dir(lab.image().join("made")).unwrap();
    }
}

fn a_read_only_root_is_read_only_after_the_hooks(lab: &Lab) {
    let container = lab.create(|spec| {
        let script = "ls -d /of-hook /dev/of-hook; touch /x; touch /dev/x; wc -c < /of-hook/x";
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["root"]["readonly"] = json!(true);
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push(json!("ro"));
            }
        }
        // Masked is what it has made, too.
        spec["linux"]["maskedPaths"] = json!(["/of-hook/x"]);
        let script = "mkdir of-hook; echo x > of-hook/x; touch dev/of-hook";
        spec["hooks"]["createContainer"] = json!([shell(script, &[])]);
    });
    let (_, output) = container.run();
    fs::remove_dir_all(lab.image().join("of-hook")).unwrap();
    let expected = "/dev/of-hook\n/of-hook\ntouch: /x: Read-only file system\n\
                    touch: /dev/x: Read-only file system\n0\n";
    assert_eq!(output, expected);
}

fn a_hook_in_the_container_has_no_more_than_its_program(lab: &Lab) {
    for late in [true, false] {
        let (dir, mount) = shared(lab);
        let mut container = lab.create(|spec| {
            add_mount(spec, &mount);
            spec["process"]["args"] = json!(["sleep", "60"]);
            spec["process"]["noNewPrivileges"] = json!(late);
            spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
            });
            let script = format!("{TELL}\nmkdir /out/made; true");
            spec["hooks"]["startContainer"] = json!([shell(&script, &["/out", "of-hook"])]);
        });
        container.start().unwrap();
        let ours = fs::read_to_string(format!("/proc/{}/status", container.init.pid)).unwrap();
        for line in read(&dir, "of-hook", "status").lines() {
            assert!(ours.contains(line), "{line} is not in {ours}");
        }
        let status = read(&dir, "of-hook", "status");
        assert!(status.contains("Uid:\t1000\t1000\t1000\t1000"), "{status}");
        assert!(status.contains("Seccomp:\t2"), "{status}");
        assert!(!dir.join("made").exists(), "the profile binds it");
        container.kill();
        fs::remove_dir_all(dir).unwrap();
    }
}

fn a_failure_undoes_the_container_and_is_told(lab: &Lab) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let script = "yes | head -c 300000; echo last words; exit 9";
        let error = lab
            .try_create(|spec| {
                spec["hooks"][kind] = json!([{"path": "/bin/true"}, shell(script, &[])]);
            })
            .err()
            .expect("it fails");
        let text = error.message;
        let name = format!("{kind} hook 2 of container c");
        for part in [
            name.as_str(),
            "/bin/sh",
            "exited with status 9",
            "last words",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(text.len() < 4096, "{}", text.len());
        let error = lab
            .try_create(|spec| spec["hooks"][kind] = json!([{"path": "/no/such/hook"}]))
            .err()
            .expect("it fails");
        assert!(error.message.contains("/no/such/hook"), "{error}");
    }
    let error = lab
        .try_create(|spec| spec["hooks"]["poststop"] = json!([{"path": "bin/true"}]))
        .err()
        .expect("it is refused");
    assert!(error.message.contains("not absolute"), "{error}");
}

fn a_failure_in_the_container_fails_the_start(lab: &Lab) {
    let mut container = lab.create(|spec| {
        spec["process"]["args"] = json!(["echo", "ran"]);
        spec["hooks"]["startContainer"] = json!([shell("echo no; exit 4", &[])]);
    });
    let error = container.start().unwrap_err();
    for part in ["startContainer hook 1", "status 4", "no"] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    assert_eq!(container.finish(), (Ended::Exited(127), String::new()));
}

fn a_hook_that_takes_too_long_is_killed_with_its_children(lab: &Lab) {
    let (dir, mount) = shared(lab);
    let script = "sleep 1000 & echo $! > $1/child; sleep 1000";
    for kind in ["createRuntime", "createContainer"] {
        let began = Instant::now();
        let error = lab
            .try_create(|spec| {
                let mut hook = shell(script, &[dir.to_str().unwrap()]);
                hook["timeout"] = json!(1);
                spec["hooks"][kind] = json!([hook]);
            })
            .err()
            .expect("it is killed");
        assert!(error.message.contains("did not end within 1s"), "{error}");
        assert!(began.elapsed().as_secs() < 30);
        if kind == "createRuntime" {
            let child = fs::read_to_string(dir.join("child")).unwrap();
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            assert!(
                stat.is_err() || stat.unwrap().contains(") Z "),
                "it is dead"
            );
        }
    }
    let mut container = lab.create(|spec| {
        add_mount(spec, &mount);
        let mut hook = shell(script, &["/out"]);
        hook["timeout"] = json!(1);
        spec["hooks"]["startContainer"] = json!([hook]);
    });
    let error = container.start().unwrap_err();
    assert!(error.contains("did not end within 1s"), "{error}");
    container.finish();
    fs::remove_dir_all(dir).unwrap();
}

fn a_hook_may_ignore_a_long_state_and_leave_a_child(lab: &Lab) {
    let (dir, mount) = shared(lab);
    let script = "sleep 1 & echo $! > $1/child";
    let long = "x".repeat(200_000);
    let mut container = lab.create(|spec| {
        add_mount(spec, &mount);
        spec["annotations"] = json!({"long": long});
        spec["process"]["args"] = json!(["sleep", "60"]);
        let count = "wc -c > $1/count";
        spec["hooks"]["createRuntime"] = json!([
            shell(script, &[dir.to_str().unwrap()]),
            shell(count, &[dir.to_str().unwrap()]),
        ]);
        spec["hooks"]["startContainer"] = json!([shell(script, &["/out"])]);
    });
    container.start().unwrap();
    let count: usize = fs::read_to_string(dir.join("count"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(count > long.len(), "{count}");
    container.kill();
    fs::remove_dir_all(dir).unwrap();
}

/// CVE-2026-41579, with a hook.
fn an_image_whose_dev_is_a_link(lab: &Lab) {
    let (outside, _) = shared(lab);
    fs::write(outside.join("ptmx"), "the node's").unwrap();
    for kind in ["createRuntime", "createContainer"] {
        let (mut job, output) = lab.create_job(|spec| {
            spec["hooks"][kind] = json!([{"path": "/bin/true"}]);
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] == "/proc");
        });
        let image = lab.run_dir().join("hostile");
        fs::create_dir_all(image.join("proc")).unwrap();
        fs::create_dir_all(image.join("bin")).unwrap();
        fs::copy("/bin/busybox", image.join("bin/true")).unwrap();
        symlink(&outside, image.join("dev")).unwrap();
        job.mounts[0].source = image.display().to_string();
        let dir = job.dir.clone();
        match lab.created(job, output) {
            Ok(container) => drop(container.run()),
            Err(_) => fs::remove_dir_all(dir).unwrap(),
        }
        let left: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["ptmx"], "{kind}");
        let text = fs::read_to_string(outside.join("ptmx")).unwrap();
        assert_eq!(text, "the node's", "{kind}");
        fs::remove_dir_all(image).unwrap();
    }
    fs::remove_dir_all(outside).unwrap();
}
