//! Limits, read back from the kernel.
use husk_tests::cgroup;
use husk_tests::containerd::Containerd;

#[test]
fn memory_and_cpu_limits_are_the_cgroups() {
    let containerd = Containerd::of_the_suite();
    let container = containerd
        .ctr()
        .container()
        .flag("--memory-limit=268435456")
        .flag("--cpus=0.5");
    container.start(&["sleep", "1000000"]);
    assert_eq!(cgroup::memory_limit(container.pid()), "268435456");
    assert_eq!(
        cgroup::cpu_quota(container.pid()),
        ("50000".into(), "100000".into())
    );
}

#[test]
fn an_exec_counts_towards_the_limits_too() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container().flag("--memory-limit=33554432");
    container.start(&["sleep", "1000000"]);
    let output = container.exec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(output.code, 137, "{output:?}");
    assert_eq!(container.status().as_deref(), Some("RUNNING"));
}

#[test]
fn cpu_shares_become_the_cgroups_weight() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container().flag("--cpu-shares=512");
    container.start(&["sleep", "1000000"]);
    let dir = cgroup::of(container.pid(), "cpu");
    if cgroup::is_v2() {
        let weight: u32 = cgroup::read(&dir, "cpu.weight").parse().unwrap();
        // Half the default share: 20 by the linear conversion, 59 by the newer one, 100 by none.
        assert!((20..100).contains(&weight), "{weight}");
    } else {
        assert_eq!(cgroup::read(&dir, "cpu.shares"), "512");
    }
}
