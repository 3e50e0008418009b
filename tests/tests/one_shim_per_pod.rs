//! A pod has one shim, however many containers it has.
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process;

in_both_modes!(three_containers_are_served_by_one_process);

fn three_containers_are_served_by_one_process(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let containers = ["one", "two", "three"].map(|name| pod.sleeper(name));
    assert_eq!(process::shims(&pod.ids()).len(), 1);
    let other = cri.pod(mode).run();
    assert_eq!(process::shims(&other.ids()).len(), 1);
    for container in &containers {
        assert_eq!(container.sh("echo alive"), "alive");
    }
}

#[test]
fn a_plain_container_has_a_shim_of_its_own() {
    let containerd = Containerd::of_the_suite();
    let (one, two) = (containerd.ctr().container(), containerd.ctr().container());
    one.start(&["sleep", "1000000"]);
    two.start(&["sleep", "1000000"]);
    assert_eq!(process::shims(&[one.id.clone(), two.id.clone()]).len(), 2);
}
