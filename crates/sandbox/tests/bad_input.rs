//! What cannot be made is refused with its name, and leaves nothing behind.
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

use husk_sandbox::error::{JobError, JobErrorKind};
use husk_sandbox::job::Job;
use husk_sandbox::process::Ended;
use serde_json::{Value, json};
use support::{Lab, run, shell_process};

fn main() {
    run(&[
        ("what_is_not_there_is_named", what_is_not_there_is_named),
        ("what_makes_no_sense_is_named", what_makes_no_sense_is_named),
        (
            "what_the_kernel_refuses_is_told_with_its_answer",
            what_the_kernel_refuses,
        ),
        (
            "a_spec_that_is_broken_or_missing",
            a_spec_that_is_broken_or_missing,
        ),
        (
            "a_root_filesystem_that_is_not_there",
            a_root_filesystem_that_is_not_there,
        ),
        (
            "an_id_twice_leaves_the_first_alone",
            an_id_twice_leaves_the_first_alone,
        ),
        ("a_start_comes_once", a_start_comes_once),
        ("an_exec_is_checked_alike", an_exec_is_checked_alike),
    ]);
}

type Edit = fn(&mut Value);

/// Each of these must be refused, in words that hold all of these.
fn refuse(lab: &Lab, kind: JobErrorKind, cases: &[(Edit, &[&str])]) {
    for (edit, words) in cases {
        let Err(error) = lab.try_create(edit) else {
            panic!("created, without {words:?}")
        };
        assert_eq!(error.kind, kind, "{error}");
        assert_words(&error, words);
    }
}

fn assert_words(error: &JobError, words: &[&str]) {
    for word in words {
        assert!(error.message.contains(word), "no {word:?} in {error}");
    }
}

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn what_is_not_there_is_named(lab: &Lab) {
    refuse(
        lab,
        JobErrorKind::NotFound,
        &[
            (
                |spec| {
                    let source = "/no/such/source";
                    add_mount(
                        spec,
                        json!({"destination": "/x", "source": source, "options": ["rbind"]}),
                    );
                },
                &["/no/such/source", "/x"],
            ),
            (
                |spec| {
                    spec["linux"]["namespaces"][1] = json!({"type": "ipc", "path": "/no/such/ns"});
                },
                &["/no/such/ns", "ipc"],
            ),
            (
                |spec| spec["root"]["path"] = json!("/no/such/root"),
                &["/no/such/root"],
            ),
        ],
    );
}

fn what_makes_no_sense_is_named(lab: &Lab) {
    refuse(
        lab,
        JobErrorKind::Invalid,
        &[
            (
                |spec| spec["process"]["cwd"] = json!("tmp"),
                &["process.cwd", "tmp"],
            ),
            (
                |spec| spec["process"]["cwd"] = json!("/bin/busybox"),
                &["/bin/busybox", "Not a directory"],
            ),
            (
                |spec| spec["process"]["user"]["uid"] = json!(u32::MAX),
                &["process.user"],
            ),
            (
                |spec| {
                    spec["process"]["rlimits"] =
                        json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 5}]);
                },
                &["RLIMIT_NOFILE"],
            ),
            (
                |spec| {
                    spec["process"]["rlimits"] = json!([
                        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
                        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
                    ]);
                },
                &["RLIMIT_NOFILE", "twice"],
            ),
            (
                |spec| {
                    spec["process"]["rlimits"] =
                        json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]);
                },
                &["RLIMIT_NONSENSE"],
            ),
            (
                |spec| {
                    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.push(json!({"type": "ipc", "path": "/proc/self/ns/ipc"}));
                },
                &["ipc", "twice"],
            ),
            (
                |spec| spec["linux"]["rootfsPropagation"] = json!("sideways"),
                &["rootfsPropagation", "sideways"],
            ),
            (
                |spec| {
                    spec.as_object_mut().unwrap().remove("linux");
                },
                &["linux"],
            ),
            (
                |spec| {
                    spec.as_object_mut().unwrap().remove("process");
                },
                &["process"],
            ),
            (
                |spec| spec["linux"]["cgroupsPath"] = json!("../x"),
                &["cgroupsPath", "../x"],
            ),
            (|spec| spec["ociVersion"] = json!("2.0.0"), &["2.0.0"]),
            (
                |spec| spec["linux"]["sysctl"] = json!({"vm.swappiness": "1"}),
                &["vm.swappiness"],
            ),
        ],
    );
}

fn what_the_kernel_refuses(lab: &Lab) {
    refuse(
        lab,
        JobErrorKind::Failed,
        &[
            (
                |spec| {
                    add_mount(
                        spec,
                        json!({"destination": "/x", "type": "nofs", "source": "n"}),
                    )
                },
                &["/x", "nofs", "No such device"],
            ),
            (
                |spec| {
                    spec["linux"]["namespaces"][1] =
                        json!({"type": "ipc", "path": "/proc/self/ns/net"});
                },
                &["ipc", "/proc/self/ns/net", "Invalid argument"],
            ),
            (
                |spec| spec["linux"]["sysctl"] = json!({"kernel.shmmax": "many"}),
                &["kernel.shmmax", "\"many\"", "Invalid argument"],
            ),
            (
                |spec| spec["hooks"] = json!({"createRuntime": [{"path": "/no/such/hook"}]}),
                &[
                    "createRuntime hook 1",
                    "/no/such/hook",
                    "No such file or directory",
                ],
            ),
        ],
    );
}

fn a_spec_that_is_broken_or_missing(lab: &Lab) {
    let (job, _) = lab.create_job(|_| {});
    let (dir, config) = (job.dir.clone(), job.dir.join("config.json"));
    fs::write(&config, "{\"ociVersion\": ").unwrap();
    let error = lab.perform(Job::Create(job)).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::Invalid);
    assert_words(&error, &[config.to_str().unwrap(), "line 1"]);
    fs::remove_dir_all(dir).unwrap();

    let (job, _) = lab.create_job(|_| {});
    let (dir, config) = (job.dir.clone(), job.dir.join("config.json"));
    fs::remove_file(&config).unwrap();
    let error = lab.perform(Job::Create(job)).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::NotFound);
    assert_words(&error, &[config.to_str().unwrap()]);
    fs::remove_dir(dir).unwrap();
}

fn a_root_filesystem_that_is_not_there(lab: &Lab) {
    for mounted in [true, false] {
        let (mut job, _) = lab.create_job(|_| {});
        if mounted {
            job.mounts[0].source = "/no/such/layer".to_owned();
        } else {
            job.mounts.clear();
        }
        let dir = job.dir.clone();
        let error = lab.perform(Job::Create(job)).unwrap_err();
        assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
        assert_words(&error, &[if mounted { "/no/such/layer" } else { "rootfs" }]);
        fs::remove_dir_all(dir).unwrap();
    }
}

fn an_id_twice_leaves_the_first_alone(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let (mut job, _) = lab.create_job(|spec| {
        spec["linux"]["cgroupsPath"] =
            json!(format!("/{}/{}", support::cgroup_name(), container.id));
    });
    let second = job.dir.clone();
    job.id.clone_from(&container.id);
    let error = lab.perform(Job::Create(job)).unwrap_err();
    assert_words(&error, &["has processes already"]);
    fs::remove_dir_all(second).unwrap();
    assert_eq!(container.init.try_wait().unwrap(), None);
    assert_eq!(lab.exec_shell(&container, "exit 3").0, Ended::Exited(3));
    container.kill();
}

fn a_start_comes_once(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    assert!(husk_sandbox::start(&container.dir).is_err());
    let dir = container.dir.clone();
    container.kill();
    assert!(husk_sandbox::start(&dir).is_err());
}

fn an_exec_is_checked_alike(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let mut process = shell_process("true");
    process["user"]["gid"] = json!(u32::MAX);
    let error = lab.exec(&container, process).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::Invalid);
    assert_words(&error, &["process.user"]);
    let mut process = shell_process("true");
    process["cwd"] = json!("");
    let error = lab.exec(&container, process).unwrap_err();
    assert_words(&error, &["process.cwd"]);
    container.kill();
}
