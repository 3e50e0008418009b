//! Resources that change while a container runs.
use husk_tests::cgroup;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use k8s_cri::v1::LinuxContainerResources;

in_both_modes!(
    limits_follow_the_update,
    swap_is_limited_beside_memory_without_a_limit,
    an_update_of_a_stopped_container_harms_nothing
);

fn limits_follow_the_update(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .resources(|resources| {
            resources.memory_limit_in_bytes = 64 << 20;
            resources.cpu_quota = 20_000;
            resources.cpu_period = 100_000;
        })
        .start();
    assert_eq!(cgroup::memory_limit(app.pid()), (64 << 20).to_string());
    app.update(LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        cpu_quota: 30_000,
        cpu_period: 100_000,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(cgroup::memory_limit(app.pid()), (96 << 20).to_string());
    assert_eq!(
        cgroup::cpu_quota(app.pid()),
        ("30000".into(), "100000".into())
    );
    // What the update does not name stays.
    app.update(LinuxContainerResources {
        cpu_quota: 40_000,
        cpu_period: 100_000,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(cgroup::memory_limit(app.pid()), (96 << 20).to_string());
    assert_eq!(app.sh("echo alive"), "alive");
}

fn swap_is_limited_beside_memory_without_a_limit(mode: Mode) {
    // In v1 the kernel knows the sum of both only, and refuses it.
    if !cgroup::is_v2() {
        return;
    }
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .resources(|resources| {
            resources.memory_limit_in_bytes = -1;
            resources.memory_swap_limit_in_bytes = 64 << 20;
        })
        .start();
    let dir = cgroup::of(app.pid(), "memory");
    assert_eq!(cgroup::read(&dir, "memory.max"), "max");
    assert_eq!(cgroup::read(&dir, "memory.swap.max"), "67108864");
    app.update(LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        memory_swap_limit_in_bytes: 128 << 20,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(cgroup::read(&dir, "memory.swap.max"), "33554432");
}

fn an_update_of_a_stopped_container_harms_nothing(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.container("app", &["true"]).start();
    let other = pod.sleeper("other");
    app.until_exited();
    let update = LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        ..Default::default()
    };
    // containerd takes it for the next start; the shim may or may not be asked.
    let _ = app.update(update);
    assert_eq!(other.sh("echo alive"), "alive");
}
