//! A plain container, by `ctr run`: it runs, and its end is reported as it was.
use husk_tests::containerd::Containerd;

#[test]
fn the_exit_status_is_the_programs() {
    let containerd = Containerd::of_the_suite();
    for status in [0, 1, 42, 255] {
        let container = containerd.ctr().container();
        let output = container.run(&["sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.code, status, "{output:?}");
    }
}

#[test]
fn a_signal_is_reported_as_128_and_its_number() {
    let containerd = Containerd::of_the_suite();
    for (signal, status) in [("KILL", 137), ("TERM", 143)] {
        let container = containerd.ctr().container();
        // In its shell's place, pid 1 ignores what it has no handler for: let a child be signalled.
        let running = container.spawn(&["sh", "-c", "sleep 1000000 & echo $!; wait $!; exit $?"]);
        if signal == "KILL" {
            container.kill(signal);
        } else {
            let _ = container.exec(&["killall", "-TERM", "sleep"]).ok();
        }
        assert_eq!(running.join().unwrap().code, status, "after SIG{signal}");
    }
}

#[test]
fn a_plain_container_has_namespaces_of_its_own() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let its = husk_tests::process::namespaces(container.pid());
    let ours = husk_tests::process::namespaces(nix::unistd::getpid());
    for kind in ["net", "pid", "ipc", "uts", "mnt"] {
        assert_ne!(its[kind], ours[kind], "{kind}");
    }
    assert_eq!(its["user"], ours["user"], "user");
}

#[test]
fn the_program_finds_what_the_image_says() {
    let containerd = Containerd::of_the_suite();
    let container = containerd
        .ctr()
        .container()
        .flag("--env=FROM=ctr")
        .flag("--cwd=/tmp");
    let script = "echo $FROM $PATH $PWD; id -u; echo $$; cat /etc/passwd | head -1; ls /dev/null";
    let output = container.run(&["sh", "-c", script]).ok();
    assert_eq!(
        output,
        "ctr /bin /tmp\n0\n1\nroot:x:0:0:root:/:/bin/sh\n/dev/null\n"
    );
}

#[test]
fn a_name_may_be_used_again() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    for round in 0..3 {
        let output = container.run(&["echo", &round.to_string()]).ok();
        assert_eq!(output, format!("{round}\n"));
    }
}

#[test]
fn many_containers_run_at_once() {
    let containerd = Containerd::of_the_suite();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let containerd = &containerd;
            scope.spawn(move || {
                let container = containerd.ctr().container();
                let output = container
                    .run(&["sh", "-c", &format!("sleep 0.2; echo {number}")])
                    .ok();
                assert_eq!(output, format!("{number}\n"));
            });
        }
    });
}
