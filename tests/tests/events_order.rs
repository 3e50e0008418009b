//! The order in which a container's life is published.
use husk_tests::command::{run, until};
use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use husk_tests::events::Events;
use std::thread;

// containerd's own shim sometimes ends before its last event, `delete`, is out.
#[test]
fn exit_never_overtakes_start() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let events = Events::subscribe(&ctr);
    for _ in 0..10 {
        let container = ctr.container();
        let _ = container.run(&["true"]).ok();
        let topics = events.topics_until(&container.id, "delete");
        assert_eq!(topics, ["create", "start", "exit", "delete"]);
    }
}

#[test]
fn the_first_process_exits_after_its_execs() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let events = Events::subscribe(&ctr);
    let container = ctr.container();
    container.start(&["sleep", "1000000"]);
    let names: Vec<String> = (0..3).map(|_| unique("exec")).collect();
    let execs: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = container.exec_command(&["--exec-id", name], &["sleep", "1000000"]);
            thread::spawn(move || run(&mut command))
        })
        .collect();
    let started = || {
        let events = events.of(&container.id);
        events
            .iter()
            .filter(|event| event.topic == "/tasks/exec-started")
            .count()
    };
    until("three execs have started", || started() == 3);
    container.kill("KILL");
    for exec in execs {
        exec.join().unwrap();
    }
    container.remove();
    let topics = events.topics_until(&container.id, "delete");
    assert_eq!(
        topics.iter().filter(|topic| *topic == "exec-added").count(),
        3,
        "{topics:?}"
    );
    assert_eq!(topics.last().map(String::as_str), Some("delete"));
    let exits: Vec<String> = events
        .of(&container.id)
        .iter()
        .filter(|event| event.topic == "/tasks/exit")
        .map(|event| event.body["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(exits.len(), 4, "{exits:?}");
    assert_eq!(exits.last(), Some(&container.id), "{exits:?}");
    assert!(names.iter().all(|name| exits.contains(name)), "{exits:?}");
}

#[test]
fn an_execs_exit_carries_its_id_and_status() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let events = Events::subscribe(&ctr);
    let container = ctr.container();
    container.start(&["sleep", "1000000"]);
    let name = unique("exec");
    let output = run(&mut container.exec_command(&["--exec-id", &name], &["sh", "-c", "exit 6"]));
    assert_eq!(output.code, 6);
    let topics = events.topics_until(&container.id, "exit");
    assert_eq!(
        topics,
        ["create", "start", "exec-added", "exec-started", "exit"]
    );
    let exit = events.of(&container.id).pop().unwrap();
    assert_eq!(exit.body["id"], name.as_str());
    assert_eq!(exit.body["exit_status"], 6);
}

#[test]
fn pausing_and_resuming_are_published() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let events = Events::subscribe(&ctr);
    let container = ctr.container();
    container.start(&["sleep", "1000000"]);
    let _ = container.task(&["pause"]).ok();
    let _ = container.task(&["resume"]).ok();
    let topics = events.topics_until(&container.id, "resumed");
    assert_eq!(topics, ["create", "start", "paused", "resumed"]);
}
