//! The /dev/shm of a pod.
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;

in_both_modes!(a_program_in_dev_shm_runs);

/// containerd mounts it `noexec`, and binds it `rw`: with runc, what is not said of a bind is off.
fn a_program_in_dev_shm_runs(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    let said = app.sh("cp /bin/busybox /dev/shm/ && /dev/shm/busybox echo ran");
    assert_eq!(said, "ran");
}
