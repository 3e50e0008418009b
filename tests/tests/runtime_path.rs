//! A handler of runc's type whose program is husk's: how releases of containerd that ask no other
//! type for its features learn of husk's.
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use k8s_cri::v1::{IdMapping, NamespaceMode, StatusRequest, UserNamespace};

const HANDLER: &str = "by-path";

#[test]
fn its_features_are_known() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let status = cri
        .call(async |mut client| client.status(StatusRequest::default()).await)
        .unwrap();
    let features = |name: &str| {
        let mut handlers = status.runtime_handlers.iter();
        let found = handlers.find(|handler| handler.name == name);
        found
            .and_then(|handler| handler.features)
            .unwrap_or_default()
    };
    let by_path = features(HANDLER);
    assert!(by_path.user_namespaces && by_path.recursive_read_only_mounts);
    assert_eq!(
        by_path,
        features("runc"),
        "what runc offers, husk offers: {status:?}"
    );
}

#[test]
fn its_pods_run_and_are_husks() {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let ids = vec![IdMapping {
        container_id: 0,
        host_id: 300_000,
        length: 65_536,
    }];
    let pod = cri
        .pod_of(HANDLER, Mode::Podsandbox)
        .namespaces(|namespaces| {
            namespaces.userns_options = Some(UserNamespace {
                mode: NamespaceMode::Pod.into(),
                uids: ids.clone(),
                gids: ids,
            });
        })
        .run();
    let app = pod.sleeper("app");
    assert_eq!(app.sh("tr -s ' ' < /proc/self/uid_map"), " 0 300000 65536");
    let record = format!("/run/husk/k8s.io/{}/pod.json", pod.id);
    assert!(std::fs::exists(&record).unwrap(), "{record}");
    assert!(
        pod.stats().memory.is_some(),
        "metrics are runc's type's too"
    );
}
