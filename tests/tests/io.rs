//! What a program reads and writes reaches it, and arrives, whole and in order.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use husk_tests::command::{DEADLINE, poll, run};
use husk_tests::containerd::Containerd;

#[test]
fn stdin_reaches_the_program_and_so_does_its_end() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let words = ["sh", "-c", "cat; echo end"];
    let output = container.run_with_input(&words, "one\ntwo\n").ok();
    assert_eq!(output, "one\ntwo\nend\n");
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let output = container.run(&["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn eight_megabytes_arrive_whole() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let output = container
        .run(&["sh", "-c", "yes 1234567 | head -c 8000000"])
        .ok();
    assert_eq!(output.len(), 8_000_000);
    assert!(output.lines().all(|line| line == "1234567"));
}

#[test]
fn what_was_written_just_before_the_end_is_not_lost() {
    let containerd = Containerd::of_the_suite();
    for round in 0..5 {
        let container = containerd.ctr().container();
        let output = container.run(&["sh", "-c", "seq 1 2000; exit 3"]);
        assert_eq!(output.code, 3);
        assert_eq!(output.stdout.lines().count(), 2000, "round {round}");
    }
}

#[test]
fn the_directory_of_a_log_file_is_made() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let log = container.folder().join("missing/too/log");
    let uri = format!("file://{}", log.display());
    container.start_with_log(&uri, &["echo", "said"]);
    container.until_status("STOPPED");
    assert_eq!(fs::read_to_string(log).unwrap(), "said\n");
}

/// A client in the background leaves fifos that nobody reads.
#[test]
fn an_empty_fifo_whose_reader_has_left_is_not_waited_for() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let _ = run(&mut container.command(&["--detach"], &["sleep", "1000000"])).ok();
    container.kill("KILL");
    container.until_status("STOPPED");
    let begin = Instant::now();
    let _ = container.task(&["rm"]);
    let took = begin.elapsed();
    assert_eq!(container.status(), None);
    assert!(took < Duration::from_millis(1500), "it took {took:?}");
}

#[test]
fn stdout_and_stderr_may_share_one_log_file() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let log = container.folder().join("log");
    let uri = format!("file://{}", log.display());
    container.start_with_log(
        &uri,
        &["sh", "-c", "echo out; echo err >&2; sleep 0.1; echo more"],
    );
    container.until_status("STOPPED");
    container.remove();
    let mut lines: Vec<String> = fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(Into::into)
        .collect();
    lines.sort();
    assert_eq!(lines, ["err", "more", "out"]);
}

#[test]
fn a_logging_program_receives_the_output() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let folder = container.folder();
    let (logger, log) = (folder.join("logger"), folder.join("log"));
    // The contract of a `binary` log: stdout on 3, stderr on 4, close 5 when ready, and SIGTERM
    // asks to finish.
    let script = format!(
        "#!/bin/bash\ntrap '' TERM\nexec >{0}\nexec 5>&-\necho $CONTAINER_ID\ncat <&3\ncat <&4\necho done\n",
        log.display()
    );
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}", logger.display());
    container.start_with_log(&uri, &["sh", "-c", "echo out; echo err >&2"]);
    container.until_status("STOPPED");
    container.remove();
    let expected = format!("{}\nout\nerr\ndone\n", container.id);
    let written = || fs::read_to_string(&log).unwrap_or_default();
    poll(DEADLINE, || (written() == expected).then_some(()));
    assert_eq!(written(), expected);
}

#[test]
fn output_nobody_reads_yet_does_not_stop_others() {
    let containerd = Containerd::of_the_suite();
    let (silent, other) = (containerd.ctr().container(), containerd.ctr().container());
    let mut unread = silent
        .command(&[], &["sh", "-c", "yes"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    silent.until_status("RUNNING");
    assert_eq!(other.run(&["echo", "heard"]).ok(), "heard\n");
    silent.kill("KILL");
    drop(unread.stdout.take());
    unread.wait().unwrap();
}
