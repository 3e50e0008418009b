//! A container that wants more memory than it may have.
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::events::Events;

in_both_modes!(kubernetes_hears_oom_killed);

#[test]
fn running_out_of_memory_is_an_event_and_status_137() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let events = Events::subscribe(&ctr);
    let container = ctr.container().flag("--memory-limit=33554432");
    let output = container.run(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(output.code, 137, "{output:?}");
    let topics = events.topics_until(&container.id, "oom");
    assert_eq!(
        topics.iter().filter(|topic| *topic == "oom").count(),
        1,
        "{topics:?}"
    );
}

#[test]
fn a_container_that_survives_its_childs_death_reports_it_too() {
    let containerd = Containerd::of_the_suite();
    let ctr = containerd.ctr();
    let events = Events::subscribe(&ctr);
    let container = ctr.container().flag("--memory-limit=33554432");
    let script = "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000000";
    container.start(&["sh", "-c", script]);
    let _ = events.topics_until(&container.id, "oom");
    assert_eq!(container.status().as_deref(), Some("RUNNING"));
}

fn kubernetes_hears_oom_killed(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let hungry = pod
        .container(
            "hungry",
            &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"],
        )
        .resources(|resources| resources.memory_limit_in_bytes = 32 << 20)
        .start();
    let status = hungry.until_exited();
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
}
