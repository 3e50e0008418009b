//! Without Kubernetes, containers that carry the annotation `io.husk.pod` with one value are a pod.
use husk_tests::containerd::Containerd;
use husk_tests::ctr::{Container, unique};
use husk_tests::process::{self, namespaces};

/// A container of the pod `pod` that runs until it is removed.
fn member<'a>(containerd: &'a Containerd, pod: &str) -> Container<'a> {
    let container = containerd
        .ctr()
        .container()
        .flag("--annotation")
        .flag(&format!("io.husk.pod={pod}"));
    container.start(&["sleep", "1000000"]);
    container
}

#[test]
fn containers_that_name_one_pod_share_it() {
    let containerd = Containerd::of_the_suite();
    let pod = unique("pod");
    let (one, two) = (member(&containerd, &pod), member(&containerd, &pod));
    let other = member(&containerd, &unique("pod"));
    assert_eq!(
        process::shims(&[one.id.clone(), two.id.clone(), pod]).len(),
        1
    );

    let (its, same, apart) = (
        namespaces(one.pid()),
        namespaces(two.pid()),
        namespaces(other.pid()),
    );
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(its[kind], same[kind], "{kind}");
        assert_ne!(its[kind], apart[kind], "{kind}");
    }
    for kind in ["mnt", "pid"] {
        assert_ne!(its[kind], same[kind], "{kind}");
    }
}

#[test]
fn the_pod_lives_until_its_last_container_is_removed() {
    let containerd = Containerd::of_the_suite();
    let pod = unique("pod");
    let (first, last) = (member(&containerd, &pod), member(&containerd, &pod));
    let network = namespaces(last.pid())["net"].clone();
    first.remove();
    assert_eq!(last.exec(&["echo", "alive"]).ok(), "alive\n");
    let late = member(&containerd, &pod);
    assert_eq!(namespaces(late.pid())["net"], network);
}
