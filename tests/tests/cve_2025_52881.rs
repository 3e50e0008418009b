//! CVE-2025-52881: what the runtime writes to /proc (limits, labels, sysctls) must not go elsewhere.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;
use husk_tests::node_file::NodeFile;
use k8s_cri::v1::Mount;

#[test]
fn sysctls_and_limits_are_written_to_the_real_proc_only() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let target = NodeFile::new(&containerd);
    // /proc is the author's folder: writing oom_score_adj or attributes there must not follow a link.
    let fake = containerd.lab().run.join(unique("proc"));
    fs::create_dir_all(fake.join("self/attr")).unwrap();
    for name in ["self/oom_score_adj", "self/attr/exec", "self/setgroups"] {
        symlink(&target.path, fake.join(name)).unwrap();
    }
    let pod = cri.pod(Mode::Podsandbox).run();
    let mount = Mount {
        container_path: "/proc".into(),
        host_path: fake.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let container = pod
        .container("attacker", &["sleep", "1000000"])
        .with(|config| config.mounts = vec![mount])
        .resources(|resources| resources.oom_score_adj = 777);
    if let Ok(container) = container.try_create() {
        let _ = container.try_start();
    }
    target.assert_untouched();
}

#[test]
fn sysctls_are_set_whatever_hides_them() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri
        .pod(Mode::Podsandbox)
        .with(|config| {
            let linux = config.linux.as_mut().unwrap();
            linux.sysctls = [("net.ipv4.tcp_fin_timeout".into(), "17".into())].into();
        })
        .run();
    let container = pod
        .container("hiding", &["sleep", "1000000"])
        .security(|security| {
            security.masked_paths = vec!["/proc/self/oom_score_adj".into(), "/proc/sys/net".into()];
        })
        .resources(|resources| resources.oom_score_adj = 777)
        .start();
    // By the node's procfs: the container's is masked.
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", container.pid())).unwrap();
    assert_eq!(score, "777\n");
}
