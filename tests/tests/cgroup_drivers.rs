//! Who makes the cgroups: the shim itself, or systemd on its behalf.
use std::path::Path;
use std::process::Command;

use husk_tests::cgroup;
use husk_tests::command::run;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use k8s_cri::v1::LinuxContainerResources;

in_both_modes!(
    cgroupfs_puts_containers_below_the_pod,
    systemd_makes_a_scope_in_the_pods_slice
);

fn cgroupfs_puts_containers_below_the_pod(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    for controller in ["cpu", "memory", "pids"] {
        let cgroup = cgroup::of(app.pid(), controller);
        assert_eq!(
            cgroup.parent().unwrap(),
            pod.cgroup(controller),
            "{controller}"
        );
    }
}

fn systemd_makes_a_scope_in_the_pods_slice(mode: Mode) {
    if !Path::new("/run/systemd/private").exists() || !cgroup::is_v2() {
        eprintln!("skipped: systemd with cgroup v2 does not run here; it does in the guest");
        return;
    }
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let top = containerd.lab().tag();
    let slice = format!("{top}-{}.slice", unique("pod").replace('-', "_"));
    let parent = format!("/{top}.slice/{slice}");
    let pod = cri
        .pod_of("systemd", mode)
        .with(|config| config.linux.as_mut().unwrap().cgroup_parent = parent.clone())
        .run();
    let app = pod
        .container("app", &["sleep", "1000000"])
        .resources(|resources| {
            resources.memory_limit_in_bytes = 64 << 20;
            resources.cpu_quota = 20_000;
            resources.cpu_period = 100_000;
        })
        .start();
    let scope = format!("cri-containerd-{}.scope", app.id);
    let cgroup = cgroup::of(app.pid(), "memory");
    assert_eq!(
        cgroup,
        Path::new("/sys/fs/cgroup").join(&parent[1..]).join(&scope)
    );
    assert_eq!(cgroup::memory_limit(app.pid()), (64 << 20).to_string());
    let shown = |property: &str| {
        let mut command = Command::new("systemctl");
        run(command.args(["show", "--value", "--property", property, &scope])).ok()
    };
    // systemd must know the limits, or it puts its own back at the next reload.
    assert_eq!(shown("MemoryMax").trim(), (64 << 20).to_string());
    assert_eq!(shown("CPUQuotaPerSecUSec").trim(), "200ms");
    app.update(LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(cgroup::memory_limit(app.pid()), (96 << 20).to_string());
    assert_eq!(shown("MemoryMax").trim(), (96 << 20).to_string());
    app.stop(0);
    app.remove();
    assert!(!cgroup.exists());
    assert_ne!(shown("ActiveState").trim(), "active");
}
