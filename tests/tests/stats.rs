//! Figures of a container's use of the machine.
use husk_tests::cgroup;
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::Container;
use serde_json::Value;

in_both_modes!(kubernetes_gets_figures_of_containers_and_of_the_pod);

fn metrics(container: &Container<'_>) -> Value {
    let text = container.task(&["metrics", "--format", "json"]).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn memory(metrics: &Value) -> u64 {
    let memory = &metrics["memory"];
    let usage = if cgroup::is_v2() {
        &memory["usage"]
    } else {
        &memory["usage"]["usage"]
    };
    usage
        .as_u64()
        .unwrap_or_else(|| panic!("no use of memory in {metrics}"))
}

fn cpu(metrics: &Value) -> u64 {
    let cpu = &metrics["cpu"];
    let usage = if cgroup::is_v2() {
        &cpu["usage_usec"]
    } else {
        &cpu["usage"]["total"]
    };
    usage
        .as_u64()
        .unwrap_or_else(|| panic!("no use of CPU in {metrics}"))
}

#[test]
fn memory_processes_and_cpu_are_counted() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let script =
        "head -c 20000000 /dev/zero > /dev/shm/twenty; sleep 1000001 & sleep 1000002 & wait";
    container.start(&["sh", "-c", script]);
    until("both sleep", || {
        husk_tests::process::descendants(container.pid()).len() == 2
    });
    let before = metrics(&container);
    assert_eq!(before["pids"]["current"], 3, "{before}");
    assert!(
        (20_000_000..60_000_000).contains(&memory(&before)),
        "{before}"
    );

    let _ = container
        .exec(&[
            "sh",
            "-c",
            "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
        ])
        .ok();
    let after = metrics(&container);
    assert!(cpu(&after) > cpu(&before), "{before} {after}");
}

#[test]
fn figures_are_there_until_the_task_is_deleted() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
    ]);
    container.until_status("STOPPED");
    let figures = metrics(&container);
    assert!(cpu(&figures) > 0, "{figures}");
}

fn kubernetes_gets_figures_of_containers_and_of_the_pod(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let (one, two) = (pod.sleeper("one"), pod.sleeper("two"));
    let _ = one.sh("head -c 20000000 /dev/zero > /dev/shm/twenty");
    until("the container's memory is counted", || {
        one.memory_in_use() > 20_000_000
    });
    assert!(two.memory_in_use() < 20_000_000);
    until("the pod's memory is counted", || {
        let memory = pod.stats().memory.expect("the pod's memory");
        memory
            .working_set_bytes
            .is_some_and(|bytes| bytes.value > 20_000_000)
    });
    let stats = pod.stats();
    assert_eq!(stats.containers.len(), 2, "{stats:?}");
    assert!(stats.cpu.expect("the pod's CPU").timestamp > 0);
}
