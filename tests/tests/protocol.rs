//! What the shim itself answers, asked directly over ttrpc: the codes that containerd acts on.
use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, ConnectRequest, CreateTaskRequest, DeleteRequest, ExecProcessRequest,
    KillRequest, PidsRequest, ShutdownRequest, StartRequest, StateRequest, StatsRequest, Status,
    WaitRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use husk_tests::command::{DEADLINE, poll, run};
use husk_tests::containerd::Containerd;
use husk_tests::ctr::Container;
use husk_tests::process::{descendants, shims, status};
use husk_tests::shim::{call, connect, refused};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::{fs, thread};

fn running(containerd: &Containerd) -> (Container<'_>, TaskClient) {
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let shim = connect(&container.bundle());
    (container, shim)
}

fn stopped(containerd: &Containerd) -> (Container<'_>, TaskClient) {
    let container = containerd.ctr().container();
    container.start(&["sh", "-c", "exit 3"]);
    container.until_status("STOPPED");
    let shim = connect(&container.bundle());
    (container, shim)
}

/// A request, filled in.
fn with<T: Default>(fill: impl FnOnce(&mut T)) -> T {
    let mut request = T::default();
    fill(&mut request);
    request
}

#[test]
fn an_id_that_nobody_has_is_not_found() {
    let containerd = Containerd::of_the_suite();
    let (_container, shim) = running(&containerd);
    for id in ["nobody".to_owned(), String::new()] {
        let state = shim.state(call(), &with(|r: &mut StateRequest| r.id.clone_from(&id)));
        assert_eq!(refused(state), Code::NOT_FOUND, "State");
        let start = shim.start(call(), &with(|r: &mut StartRequest| r.id.clone_from(&id)));
        assert_eq!(refused(start), Code::NOT_FOUND, "Start");
        let kill = shim.kill(
            call(),
            &with(|r: &mut KillRequest| (r.id, r.signal) = (id.clone(), 9)),
        );
        assert_eq!(refused(kill), Code::NOT_FOUND, "Kill");
        let wait = shim.wait(call(), &with(|r: &mut WaitRequest| r.id.clone_from(&id)));
        assert_eq!(refused(wait), Code::NOT_FOUND, "Wait");
        let pids = shim.pids(call(), &with(|r: &mut PidsRequest| r.id.clone_from(&id)));
        assert_eq!(refused(pids), Code::NOT_FOUND, "Pids");
        let stats = shim.stats(call(), &with(|r: &mut StatsRequest| r.id.clone_from(&id)));
        assert_eq!(refused(stats), Code::NOT_FOUND, "Stats");
        let delete = shim.delete(call(), &with(|r: &mut DeleteRequest| r.id.clone_from(&id)));
        assert_eq!(refused(delete), Code::NOT_FOUND, "Delete");
    }
}

#[test]
fn an_id_that_is_taken_already_exists() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    let request = with(|r: &mut CreateTaskRequest| {
        r.id.clone_from(&container.id);
        r.bundle = container.bundle().to_string_lossy().into_owned();
    });
    assert_eq!(refused(shim.create(call(), &request)), Code::ALREADY_EXISTS);
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}

#[test]
fn a_container_starts_once() {
    let containerd = Containerd::of_the_suite();
    for (container, shim) in [running(&containerd), stopped(&containerd)] {
        let request = with(|r: &mut StartRequest| r.id.clone_from(&container.id));
        assert_eq!(
            refused(shim.start(call(), &request)),
            Code::FAILED_PRECONDITION
        );
    }
}

#[test]
fn a_running_container_is_not_deleted() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    let request = with(|r: &mut DeleteRequest| r.id.clone_from(&container.id));
    assert_eq!(
        refused(shim.delete(call(), &request)),
        Code::FAILED_PRECONDITION
    );
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}

fn exec(container: &Container<'_>, name: &str) -> ExecProcessRequest {
    let process = serde_json::json!({
        "args": ["sleep", "1000000"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
    });
    with(|r: &mut ExecProcessRequest| {
        r.id.clone_from(&container.id);
        r.exec_id = name.into();
        let mut spec = Any::new();
        spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process".into();
        spec.value = process.to_string().into_bytes();
        r.spec = Some(spec).into();
    })
}

#[test]
fn an_exec_is_refused_by_the_right_code() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    shim.exec(call(), &exec(&container, "one")).unwrap();
    let twice = shim.exec(call(), &exec(&container, "one"));
    assert_eq!(refused(twice), Code::ALREADY_EXISTS, "an id twice");
    let start = with(|r: &mut StartRequest| {
        r.id.clone_from(&container.id);
        r.exec_id = "two".into();
    });
    assert_eq!(
        refused(shim.start(call(), &start)),
        Code::NOT_FOUND,
        "an id nobody has"
    );

    let (container, shim) = stopped(&containerd);
    let late = shim.exec(call(), &exec(&container, "late"));
    assert_eq!(refused(late), Code::FAILED_PRECONDITION, "after the end");
}

#[test]
fn an_exec_that_was_added_before_the_end_does_not_start_after_it() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    shim.exec(call(), &exec(&container, "added")).unwrap();
    container.kill("KILL");
    container.until_status("STOPPED");
    let start = with(|r: &mut StartRequest| {
        r.id.clone_from(&container.id);
        r.exec_id = "added".into();
    });
    assert_eq!(
        refused(shim.start(call(), &start)),
        Code::FAILED_PRECONDITION
    );
}

#[test]
fn a_container_that_has_ended_tells_how() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = stopped(&containerd);
    let state = shim
        .state(
            call(),
            &with(|r: &mut StateRequest| r.id.clone_from(&container.id)),
        )
        .unwrap();
    assert_eq!(state.status.enum_value(), Ok(Status::STOPPED));
    assert_eq!(state.exit_status, 3);
    assert!(state.exited_at.seconds > 0);
    // Wait answers at once, as often as it is asked.
    for _ in 0..2 {
        let request = with(|r: &mut WaitRequest| r.id.clone_from(&container.id));
        assert_eq!(shim.wait(call(), &request).unwrap().exit_status, 3);
    }
    let kill = with(|r: &mut KillRequest| {
        r.id.clone_from(&container.id);
        r.signal = 15;
    });
    assert_eq!(refused(shim.kill(call(), &kill)), Code::NOT_FOUND, "Kill");
}

// containerd takes a shim without processes for a leaked one when it starts, and forgets the exit.
#[test]
fn a_container_that_has_ended_still_has_its_pid() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = stopped(&containerd);
    let request = with(|r: &mut PidsRequest| r.id.clone_from(&container.id));
    assert!(!shim.pids(call(), &request).unwrap().processes.is_empty());
}

#[test]
fn connect_tells_the_shims_and_the_containers_pid() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    let request = with(|r: &mut ConnectRequest| r.id.clone_from(&container.id));
    let answer = shim.connect(call(), &request).unwrap();
    assert_eq!(answer.task_pid, container.pid().as_raw().cast_unsigned());
    let shims = husk_tests::process::shims(std::slice::from_ref(&container.id));
    let shims: Vec<u32> = shims
        .iter()
        .map(|pid| pid.as_raw().cast_unsigned())
        .collect();
    assert!(
        shims.contains(&answer.shim_pid),
        "{} is not among {shims:?}",
        answer.shim_pid
    );
}

#[test]
fn shutdown_is_ignored_while_a_container_lives() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    let request = with(|r: &mut ShutdownRequest| r.id.clone_from(&container.id));
    shim.shutdown(call(), &request).unwrap();
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}

#[test]
fn checkpoints_are_unimplemented() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    let request = with(|r: &mut CheckpointTaskRequest| {
        r.id.clone_from(&container.id);
        r.path = container.folder().to_string_lossy().into_owned();
    });
    assert_eq!(
        refused(shim.checkpoint(call(), &request)),
        Code::UNIMPLEMENTED
    );
}

#[test]
fn a_wait_does_not_hold_up_other_calls() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    let waiting = std::thread::spawn({
        let shim = shim.clone();
        let id = container.id.clone();
        move || shim.wait(call(), &with(|r: &mut WaitRequest| r.id = id))
    });
    for _ in 0..20 {
        let request = with(|r: &mut StateRequest| r.id.clone_from(&container.id));
        assert_eq!(
            shim.state(call(), &request).unwrap().status.enum_value(),
            Ok(Status::RUNNING)
        );
    }
    container.kill("KILL");
    assert_eq!(waiting.join().unwrap().unwrap().exit_status, 137);
}

#[test]
fn an_exec_has_a_terminal_if_its_request_says_so() {
    let containerd = Containerd::of_the_suite();
    let (container, shim) = running(&containerd);
    for (terminal, expected) in [(true, "hello\r\n"), (false, "hello\n")] {
        let fifo = container.folder().join(format!("out-{terminal}"));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let reading = thread::spawn({
            let fifo = fifo.clone();
            move || fs::read_to_string(fifo).unwrap()
        });
        let exec = ExecProcessRequest {
            id: container.id.clone(),
            exec_id: format!("exec-{terminal}"),
            terminal,
            stdout: fifo.to_string_lossy().into_owned(),
            spec: Some(Any {
                // Of the two the spec says the opposite.
                value: format!(
                    r#"{{"terminal": {}, "user": {{"uid": 0, "gid": 0}}, "cwd": "/",
                        "args": ["echo", "hello"], "env": ["PATH=/bin"]}}"#,
                    !terminal
                )
                .into_bytes(),
                ..Any::default()
            })
            .into(),
            ..ExecProcessRequest::default()
        };
        shim.exec(call(), &exec).unwrap();
        let start = with(|r: &mut StartRequest| {
            (r.id, r.exec_id) = (container.id.clone(), exec.exec_id.clone());
        });
        shim.start(call(), &start).unwrap();
        assert_eq!(reading.join().unwrap(), expected);
        let wait = with(|r: &mut WaitRequest| {
            (r.id, r.exec_id) = (container.id.clone(), exec.exec_id.clone());
        });
        assert_eq!(shim.wait(call(), &wait).unwrap().exit_status, 0);
        let delete = with(|r: &mut DeleteRequest| {
            (r.id, r.exec_id) = (container.id.clone(), exec.exec_id.clone());
        });
        shim.delete(call(), &delete).unwrap();
    }
}

#[test]
fn what_is_being_made_is_created_and_has_no_numbers_yet() {
    let containerd = Containerd::of_the_suite();
    let (first, shim) = running(&containerd);
    let late = containerd.ctr().container();
    // Its zygote is stopped: what it makes is being made for as long as it takes to ask.
    let top = shims(std::slice::from_ref(&first.id));
    let zygote = top
        .into_iter()
        .flat_map(descendants)
        .find(|pid| {
            status(*pid)
                .get("Name")
                .is_some_and(|name| name == "husk-zygote")
        })
        .unwrap();
    kill(zygote, Signal::SIGSTOP).unwrap();
    let group = format!("io.containerd.runc.v2.group={}", first.id);
    let mut command = late.command(
        &["--detach", "--null-io", "--annotation", &group],
        &["sleep", "1000000"],
    );
    let starting = thread::spawn(move || run(&mut command));
    let state = with(|r: &mut StateRequest| r.id.clone_from(&late.id));
    let seen = poll(DEADLINE, || shim.state(call(), &state).ok());
    let stats = shim.stats(
        call(),
        &with(|r: &mut StatsRequest| r.id.clone_from(&late.id)),
    );
    kill(zygote, Signal::SIGCONT).unwrap();
    assert_eq!(seen.unwrap().status.enum_value(), Ok(Status::CREATED));
    assert_eq!(refused(stats), Code::NOT_FOUND);
    let _ = starting.join().unwrap().ok();
}
