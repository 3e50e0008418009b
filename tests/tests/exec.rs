//! Further processes in a running container.
use husk_tests::command::{run, run_with_input};
use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use std::thread;

#[test]
fn an_exec_has_its_own_input_output_and_status() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let script = "read line; echo got $line; echo err >&2; exit 9";
    let output = run_with_input(
        &mut container.exec_command(&[], &["sh", "-c", script]),
        "this\n",
        || {},
    );
    assert_eq!(output.code, 9);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("got this\n", "err\n")
    );
}

#[test]
fn an_exec_is_in_the_containers_namespaces_and_cgroup() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let script = "for kind in net pid ipc uts mnt; do
        test $(readlink /proc/1/ns/$kind) = $(readlink /proc/self/ns/$kind) || echo $kind differs
    done; cat /proc/1/cgroup > /tmp/a; cat /proc/self/cgroup > /tmp/b; cmp /tmp/a /tmp/b";
    assert_eq!(container.exec(&["sh", "-c", script]).ok(), "");
}

#[test]
fn an_exec_runs_as_the_user_and_where_it_is_told() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let flags = ["--user", "65534:50", "--cwd", "/tmp"];
    let mut command = container.exec_command(&flags, &["sh", "-c", "id -u; id -g; pwd"]);
    assert_eq!(run(&mut command).ok(), "65534\n50\n/tmp\n");
}

#[test]
fn an_exec_of_what_does_not_exist_is_refused_and_harms_nothing() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let output = container.exec(&["/no/such/program"]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("/no/such/program"), "{output:?}");
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}

#[test]
fn an_exec_after_the_end_is_refused() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["true"]);
    container.until_status("STOPPED");
    let output = container.exec(&["echo", "alive"]);
    assert_ne!(output.code, 0);
    assert_eq!(output.stdout, "");
}

#[test]
fn an_exec_id_can_be_used_once_at_a_time() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let name = unique("twice");
    let flags = ["--exec-id", name.as_str(), "--detach"];
    let _ = run(&mut container.exec_command(&flags, &["sleep", "1000000"])).ok();
    let second = run(&mut container.exec_command(&["--exec-id", &name], &["true"]));
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("exists"), "{second:?}");
}

#[test]
fn an_exec_ends_with_its_container() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let mut command = container.exec_command(&[], &["sh", "-c", "touch /here; sleep 1000000"]);
    let running = thread::spawn(move || run(&mut command));
    husk_tests::command::until("the exec runs", || {
        container.exec(&["test", "-e", "/here"]).code == 0
    });
    container.kill("KILL");
    assert_eq!(running.join().unwrap().code, 137);
}

#[test]
fn an_exec_can_be_killed_alone() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let name = unique("victim");
    let mut command = container.exec_command(
        &["--exec-id", &name],
        &["sh", "-c", "touch /here; sleep 1000000"],
    );
    let running = thread::spawn(move || run(&mut command));
    husk_tests::command::until("the exec runs", || {
        container.exec(&["test", "-e", "/here"]).code == 0
    });
    let _ = container
        .task(&["kill", "--exec-id", &name, "--signal", "KILL"])
        .ok();
    assert_eq!(running.join().unwrap().code, 137);
    assert_eq!(container.status().as_deref(), Some("RUNNING"));
}

#[test]
fn twenty_execs_at_once_all_answer() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    thread::scope(|scope| {
        for number in 0..20 {
            let container = &container;
            scope.spawn(move || {
                let text = number.to_string();
                assert_eq!(container.exec(&["echo", &text]).ok(), format!("{text}\n"));
            });
        }
    });
}
