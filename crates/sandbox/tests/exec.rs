//! A further process in a container: where it runs and what it is a child of.
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

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run, shell_process, wait};

fn main() {
    run(&[
        (
            "it_runs_in_the_containers_namespaces",
            it_runs_in_the_containers_namespaces,
        ),
        ("it_is_a_child_of_the_shim", it_is_a_child_of_the_shim),
        (
            "it_is_in_the_containers_cgroups",
            it_is_in_the_containers_cgroups,
        ),
        ("its_end_is_its_own", its_end_is_its_own),
        ("it_starts_where_cwd_says", it_starts_where_cwd_says),
        (
            "limits_of_the_process_are_set",
            limits_of_the_process_are_set,
        ),
        ("none_starts_after_inits_exit", none_starts_after_inits_exit),
        ("none_starts_on_the_node", none_starts_on_the_node),
        ("it_has_the_containers_clocks", it_has_the_containers_clocks),
    ]);
}

fn it_runs_in_the_containers_namespaces(lab: &Lab) {
    let container = lab.shell("sleep 60", |spec| {
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "cgroup"}));
    });
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let links = |pid: &str| -> Vec<_> {
        let link = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        kinds.iter().map(link).collect()
    };
    let (process, _output) = lab.exec(&container, shell_process("sleep 60")).unwrap();
    assert_eq!(
        links(&process.pid.to_string()),
        links(&container.init.pid.to_string())
    );
    let root = |pid: i32| fs::metadata(format!("/proc/{pid}/root/bin/busybox")).unwrap();
    let inode = |pid| std::os::unix::fs::MetadataExt::ino(&root(pid));
    assert_eq!(inode(process.pid), inode(container.init.pid));
    process.signal(libc::SIGKILL).unwrap();
    wait(&process);
    container.kill();
}

fn it_is_a_child_of_the_shim(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let (process, _output) = lab.exec(&container, shell_process("sleep 60")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let parent = format!("PPid:\t{}\n", std::process::id());
    assert!(status.contains(&parent), "{status}");
    // Killing init ends the pid namespace, and with it what was executed there; init itself ends
    // only when that was waited for (contract 35).
    container.init.signal(libc::SIGKILL).unwrap();
    assert_eq!(wait(&process), Ended::Signaled(libc::SIGKILL));
    container.finish();
}

fn it_is_in_the_containers_cgroups(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let (process, _output) = lab.exec(&container, shell_process("sleep 60")).unwrap();
    let cgroups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroups(process.pid), cgroups(container.init.pid));
    assert!(cgroups(process.pid).contains(&container.id));
    process.signal(libc::SIGKILL).unwrap();
    wait(&process);
    container.kill();
}

fn its_end_is_its_own(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let said = lab.exec_shell(
        &container,
        "echo out; echo err >&2; read x || echo none; exit 9",
    );
    assert_eq!(said, (Ended::Exited(9), "out\nerr\nnone\n".to_owned()));
    for _ in 0..5 {
        assert_eq!(lab.exec_shell(&container, "exit 4").0, Ended::Exited(4));
    }
    let (process, _output) = lab
        .exec(&container, shell_process("kill -USR1 $$"))
        .unwrap();
    assert_eq!(wait(&process), Ended::Signaled(libc::SIGUSR1));
    assert_eq!(container.init.try_wait().unwrap(), None);
    container.kill();
}

fn it_starts_where_cwd_says(lab: &Lab) {
    let container = lab.shell("pwd; sleep 60", |spec| {
        spec["process"]["cwd"] = json!("/srv/made/for me");
    });
    let mut process = shell_process("pwd");
    process["cwd"] = json!("/srv/made");
    let (ended, output) = {
        let (process, output) = lab.exec(&container, process.clone()).unwrap();
        (wait(&process), support::read_all(output))
    };
    assert_eq!((ended, output.as_str()), (Ended::Exited(0), "/srv/made\n"));
    process["cwd"] = json!("/nowhere");
    let error = lab.exec(&container, process).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(error.message.contains("/nowhere"), "{error}");
    let (_, output) = container.kill();
    assert_eq!(output, "/srv/made/for me\n");
}

fn limits_of_the_process_are_set(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    let mut process = shell_process(
        "ulimit -n; umask; cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; ionice -p $$; \
         grep Cpus_allowed_list /proc/self/status",
    );
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]);
    process["user"]["umask"] = json!(0o27);
    process["oomScoreAdj"] = json!(987);
    process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
    process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    process["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    let (process, output) = lab.exec(&container, process).unwrap();
    assert_eq!(wait(&process), Ended::Exited(0));
    assert_eq!(
        support::read_all(output),
        "77\n0027\n987\n3\nbest-effort: prio 6\nCpus_allowed_list:\t0\n"
    );
    container.kill();
}

fn none_starts_after_inits_exit(lab: &Lab) {
    let container = lab.shell("exit 0", |_| {});
    assert!(support::readable(&container.init.fd, support::LONG));
    let error = lab.exec(&container, shell_process("true")).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(error.message.contains("has ended"), "{error}");
    container.finish();
}

fn none_starts_on_the_node(lab: &Lab) {
    let me = i32::try_from(std::process::id()).unwrap();
    let (job, _) = support::exec_job("none", me, shell_process("true"), None);
    let error = lab.perform(husk_sandbox::job::Job::Exec(job)).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
    assert!(error.message.contains("mount namespace"), "{error}");
}

fn it_has_the_containers_clocks(lab: &Lab) {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        println!("this kernel has no time namespaces");
        return;
    }
    let container = lab.shell("sleep 60", |spec| {
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    });
    let (ended, uptime) = lab.exec_shell(&container, "cut -d. -f1 /proc/uptime");
    assert_eq!(ended, Ended::Exited(0));
    let uptime: u64 = uptime.trim().parse().unwrap();
    assert!((1_000_000_000..2_000_000_000).contains(&uptime), "{uptime}");
    container.kill();
}
