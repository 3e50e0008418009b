//! What a pod's author sets for the whole pod.
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::process::namespaces;
use k8s_cri::v1::NamespaceMode;

in_both_modes!(
    the_hostname_is_the_pods,
    sysctls_are_set_in_the_pods_namespaces,
    resolv_conf_and_hosts_are_there,
    any_user_may_bind_low_ports_and_ping,
    a_sysctl_that_does_not_exist_is_refused,
);

fn the_hostname_is_the_pods(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri
        .pod(mode)
        .with(|config| config.hostname = "a-name".into())
        .run();
    let app = pod.sleeper("app");
    assert_eq!(
        app.sh("hostname; cat /etc/hostname; echo $HOSTNAME"),
        "a-name\na-name\na-name"
    );
}

fn sysctls_are_set_in_the_pods_namespaces(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let sysctls = [
        ("net.ipv4.tcp_fin_timeout", "17"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.queues_max", "7"),
    ];
    let pod = cri
        .pod(mode)
        .with(|config| {
            let linux = config.linux.as_mut().unwrap();
            linux.sysctls = sysctls
                .map(|(name, value)| (name.into(), value.into()))
                .into();
        })
        .run();
    let app = pod.sleeper("app");
    for (name, value) in sysctls {
        assert_eq!(app.sh(&format!("sysctl -n {name}")), value, "{name}");
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let nodes = std::fs::read_to_string(&path).unwrap();
        assert_ne!(nodes.trim(), value, "{name} of the node");
    }
    assert_ne!(
        namespaces(app.pid())["net"],
        namespaces(nix::unistd::getpid())["net"]
    );
}

fn resolv_conf_and_hosts_are_there(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    let resolv = app.sh("cat /etc/resolv.conf");
    for line in [
        "nameserver 10.96.0.10",
        "search lab.test",
        "options ndots:5",
    ] {
        assert!(resolv.contains(line), "{resolv}");
    }
    assert!(app.sh("cat /etc/hosts").contains("localhost"));
    assert_eq!(
        app.sh("test -d /etc/resolv.conf && echo directory || echo file"),
        "file"
    );
}

fn any_user_may_bind_low_ports_and_ping(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    assert_eq!(app.sh("sysctl -n net.ipv4.ip_unprivileged_port_start"), "0");
    assert_eq!(
        app.sh("sysctl -n net.ipv4.ping_group_range"),
        "0\t2147483647"
    );
}

fn a_sysctl_that_does_not_exist_is_refused(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let sysctl = ("net.ipv4.no_such_thing".to_owned(), "1".to_owned());
    let refused = cri
        .pod(mode)
        .with(|config| config.linux.as_mut().unwrap().sysctls = [sysctl].into())
        .try_run();
    let error = refused.expect_err("a refusal").to_string();
    assert!(error.contains("no_such_thing"), "{error}");
}

/// As runc does: it would be the node's.
#[test]
fn a_hostname_of_a_pod_in_the_nodes_namespaces_is_refused() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let refused = cri
        .pod(Mode::Podsandbox)
        .namespaces(|namespaces| namespaces.network = NamespaceMode::Node.into())
        .with(|config| config.hostname = "a-name".into())
        .try_run();
    let error = refused.expect_err("a pod with a name that it does not have");
    assert!(error.message().contains("hostname"), "{error}");
}
