//! The holder of a pod's pid namespace.
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

use husk_sandbox::cgroup::Cgroup;
use husk_sandbox::error::JobErrorKind;
use husk_sandbox::job::{Holder, Job};
use husk_sandbox::pin::unpin;
use husk_sandbox::process::{Ended, Pidfd};
use serde_json::json;
use support::{Container, Lab, run, wait};

fn main() {
    run(&[
        (
            "containers_share_its_pid_namespace",
            containers_share_its_pid_namespace,
        ),
        ("it_reaps_orphans", it_reaps_orphans),
        (
            "a_container_cannot_reach_the_node_through_it",
            a_container_cannot_reach_the_node,
        ),
        (
            "it_lives_in_the_cgroup_it_is_given",
            it_lives_in_the_cgroup_it_is_given,
        ),
        ("a_failure_leaves_none", a_failure_leaves_none),
    ]);
}

fn job(lab: &Lab) -> Holder {
    Holder {
        pin: lab.run_dir().join("pid"),
        join: Vec::new(),
        cgroup: None,
        driver: husk_sandbox::cgroup::Driver::Cgroupfs,
    }
}

fn hold(lab: &Lab, job: &Holder) -> Pidfd {
    let done = lab
        .perform(Job::Holder(job.clone()))
        .unwrap_or_else(|error| panic!("{error}"));
    done.process.unwrap()
}

fn end(holder: &Pidfd, job: &Holder) {
    holder.signal(libc::SIGKILL).unwrap();
    assert_eq!(wait(holder), Ended::Signaled(libc::SIGKILL));
    unpin(&job.pin).unwrap();
}

fn shell(lab: &Lab, job: &Holder, script: &str) -> Container {
    lab.shell(script, |spec| {
        spec["linux"]["namespaces"][0] = json!({"type": "pid", "path": job.pin});
    })
}

fn containers_share_its_pid_namespace(lab: &Lab) {
    let job = job(lab);
    let holder = hold(lab, &job);
    let mut first = shell(lab, &job, "echo $$; cat /proc/1/comm; sleep 60");
    first.expect("2\nhusk-holder\n");
    let mut second = shell(lab, &job, "grep -c . /proc/2/comm; sleep 60");
    second.expect("1\n");
    assert_eq!(
        lab.exec_shell(&first, "kill -TERM 1; kill -KILL 1; sleep 0.1")
            .0,
        Ended::Exited(0)
    );
    assert_eq!(
        holder.try_wait().unwrap(),
        None,
        "nobody in the pod can end it"
    );
    first.kill();
    assert_eq!(
        second.init.try_wait().unwrap(),
        None,
        "the end of one is not that of the other"
    );
    second.kill();
    end(&holder, &job);
}

fn it_reaps_orphans(lab: &Lab) {
    let job = job(lab);
    let holder = hold(lab, &job);
    let mut container = shell(
        lab,
        &job,
        "for n in 1 2 3; do (true & exec sleep 0.0$n) & done; sh -c 'sleep 0.05 & sleep 0.06 &'; \
         wait; sleep 0.5; set -- /proc/[0-9]*; echo $#; sleep 60",
    );
    // The holder and the shell: no orphan is left, not even as a zombie.
    container.expect("2\n");
    container.kill();
    end(&holder, &job);
}

fn a_container_cannot_reach_the_node(lab: &Lab) {
    let job = job(lab);
    let holder = hold(lab, &job);
    let look = "ls -A /proc/1/root/ | wc -l; ls -A /proc/1/cwd/ | wc -l; ls /proc/1/fd | wc -l; \
                touch /proc/1/root/x 2>/dev/null && echo written; \
                : >> /proc/1/exe && echo overwritten; sleep 60";
    // With CAP_SYS_PTRACE it can look, and finds an empty root, and nothing but its idle pipe.
    let caps = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let mut container = lab.shell(look, |spec| {
        spec["linux"]["namespaces"][0] = json!({"type": "pid", "path": job.pin});
        spec["process"]["capabilities"] =
            json!({"bounding": caps, "permitted": caps, "effective": caps});
    });
    container.expect("0\n0\n2\n");
    container.expect("Text file busy\n");
    container.kill();
    let mut container = shell(lab, &job, "ls /proc/1/root/; cat /proc/1/environ; sleep 60");
    container.expect("Permission denied\n");
    container.expect("Permission denied\n");
    container.kill();
    let status = fs::read_to_string(format!("/proc/{}/status", holder.pid)).unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{status}"
        );
    }
    assert!(status.contains("Seccomp:\t1"), "{status}");
    end(&holder, &job);
}

fn it_lives_in_the_cgroup_it_is_given(lab: &Lab) {
    let mut job = job(lab);
    job.cgroup = Some(format!("/{}/pod", support::cgroup_name()));
    let path = job.cgroups_path().unwrap();
    assert!(path.starts_with(job.cgroup.as_deref().unwrap()));
    let mut other = job.clone();
    other.pin.set_extension("group");
    assert_ne!(other.cgroups_path().unwrap(), path, "each has its own");

    // Controllers that the pod's cgroup hands down keep processes out of it.
    let limits = json!({"pids": {"limit": 9}});
    let mut container = lab.shell("echo up; sleep 60", |spec| {
        let id = spec["hostname"].as_str().unwrap().to_owned();
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/pod/{id}", support::cgroup_name()));
        spec["linux"]["resources"] = limits;
    });
    container.expect("up\n");
    let holder = hold(lab, &job);
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", holder.pid)).unwrap();
    assert!(cgroup.contains(&path), "{cgroup}");
    end(&holder, &job);
    Cgroup::named(job.driver, Some(&path), "holder")
        .unwrap()
        .remove()
        .unwrap();
    let id = container.id.clone();
    container.kill();
    support::remove_cgroups(&format!("pod/{id}"));
    support::remove_cgroups("pod");
}

fn a_failure_leaves_none(lab: &Lab) {
    let mut job = job(lab);
    job.cgroup = Some(format!("/{}", support::cgroup_name()));
    job.join = vec![("ipc".to_owned(), "/no/such/namespace".into())];
    let error = lab.perform(Job::Holder(job.clone())).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::NotFound, "{error}");
    assert!(error.message.contains("/no/such/namespace"), "{error}");

    job.join = Vec::new();
    fs::write(&job.pin, "taken").unwrap();
    let error = lab.perform(Job::Holder(job.clone())).unwrap_err();
    assert!(error.message.contains("pin the pid namespace"), "{error}");
    let taken = fs::read_to_string(&job.pin);
    assert_eq!(taken.unwrap(), "taken", "what was there stays");
    fs::remove_file(&job.pin).unwrap();
}
