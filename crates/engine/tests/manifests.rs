//! Manifests as people have them: what clients print, and the shapes of public ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use husk_engine::manifest::{Action, Pod, Volume, parse};

/// Every manifest of the suite, by its file's name.
fn suite() -> BTreeMap<String, Pod> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let each = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let pod = parse(&name, &text, "made-up").unwrap_or_else(|error| panic!("{error}"));
        (name, pod)
    });
    each.collect()
}

#[test]
fn every_manifest_is_taken() {
    assert_eq!(suite().len(), 50);
}

#[test]
fn what_is_left_aside_is_told() {
    let suite = suite();
    let told = |name: &str| -> Vec<String> {
        let words = suite[name].left_aside.iter();
        words
            .map(|word| word.split(':').take(2).collect::<Vec<_>>().join(":"))
            .collect()
    };
    // What an API server writes into every object says nothing.
    for silent in [
        "kubectl-run-dry-run",
        "kubectl-create-job",
        "empty-everything",
        "anchors",
    ] {
        assert!(told(silent).is_empty(), "{silent}: {:?}", told(silent));
    }
    assert_eq!(told("kubectl-get-pod"), ["line 54: spec.volumes"]);
    assert_eq!(
        told("deployment-with-its-service"),
        [
            "line 1: Namespace shop (v1) is left aside",
            "line 5: Service web (v1) is left aside",
            "line 16: spec.replicas",
            "line 31: Ingress web (networking.k8s.io/v1) is left aside",
        ]
    );
    assert_eq!(told("scheduling").len(), 7);
    assert_eq!(
        told("ephemeral-storage"),
        [
            "line 11: spec.volumes[0].emptyDir.sizeLimit",
            "line 9: spec.containers[0].resources.limits.ephemeral-storage",
            "line 9: spec.containers[0].resources.requests.ephemeral-storage",
        ]
    );
}

#[test]
fn objects_of_the_file_become_files_and_variables() {
    let suite = suite();
    let Volume::Files { files, secret } = &suite["config-map-volume"].volumes["some"] else {
        panic!("no files");
    };
    let file = &files[Path::new("sub/keys")];
    assert_eq!(
        (file.content.as_slice(), file.mode, *secret),
        (&b"very"[..], 0o400, false)
    );
    let Volume::Files { files, .. } = &suite["config-map-volume"].volumes["all"] else {
        panic!("no files");
    };
    let names: Vec<_> = files.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["SPECIAL_LEVEL", "game.properties", "logo.png"]);
    let container = &suite["config-map-env-from"].containers[0];
    assert_eq!(container.command, ["/bin/echo", "very"]);
    let secret = &suite["secret"].containers[0];
    let env: BTreeMap<_, _> = secret.env.iter().cloned().collect();
    assert_eq!(env["SECRET_USERNAME"], "my-app");
    assert_eq!(env["token"], "t0p");
    assert!(!env.contains_key("MAYBE"));
    assert!(!format!("{:?}", suite["secret"].volumes).contains("39528"));
}

#[test]
fn limits_of_zero_are_none_and_small_ones_are_kept() {
    let suite = suite();
    let of = |name: &str| suite[name].containers[0].resources;
    let zero = of("zero-is-no-limit");
    assert_eq!((zero.cpu_limit, zero.memory_limit), (None, None));
    let small = of("small-limits");
    assert_eq!(
        (small.cpu_limit, small.memory_limit),
        (Some(1), Some(6 << 20))
    );
}

#[test]
fn probes_and_hooks_are_read() {
    let suite = suite();
    let http = &suite["liveness-by-http"].containers[0];
    let probe = http.liveness.as_ref().unwrap();
    assert_eq!((probe.failures, probe.period), (1, Duration::from_secs(10)));
    let Action::Http { port, headers, .. } = &probe.action else {
        panic!("{probe:?}");
    };
    assert_eq!((*port, headers.len()), (8080, 1));
    assert_eq!(http.startup.as_ref().unwrap().failures, 30);
    let tcp = &suite["probes-by-tcp"].containers[0];
    assert_eq!(tcp.readiness.as_ref().unwrap().successes, 2);
    let grace = tcp.liveness.as_ref().unwrap().grace;
    assert_eq!(grace, Some(Duration::from_secs(60)));
    let sleep = &suite["pre-stop-sleep"].containers[0].pre_stop;
    assert_eq!(*sleep, Some(Action::Sleep(Duration::from_secs(5))));
    let shell = &suite["shared-processes"].containers[1];
    assert!(shell.stdin && shell.tty);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    let manifest = |container: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n  - name: \
             c\n    image: i\n{container}\n"
        )
    };
    for (container, said) in [
        (
            "    resources: {limits: {memory: -1Gi}}",
            "memory: `-1Gi` cannot be negative",
        ),
        (
            "    resources: {limits: {cpu: 1}, requests: {cpu: 2}}",
            "must not be above the limit",
        ),
        (
            "    livenessProbe: {periodSeconds: -1, exec: {command: [a]}}",
            "cannot be negative",
        ),
        (
            "    livenessProbe: {terminationGracePeriodSeconds: -1, exec: {command: [a]}}",
            "must be above 0, and is -1",
        ),
        (
            "    livenessProbe: {successThreshold: 2, exec: {command: [a]}}",
            "must be 1 here",
        ),
        (
            "    livenessProbe: {initialDelaySeconds: 1}",
            "must have one of exec",
        ),
        (
            "    livenessProbe: {httpGet: {port: http}}",
            "no port named `http`",
        ),
        (
            "    livenessProbe: {tcpSocket: {port: 99999}}",
            "99999 is no port",
        ),
        (
            "    livenessProbe: {httpGet: {port: 1, scheme: HTTPS}}",
            "HTTPS is not supported",
        ),
        (
            "    livenessProbe: {httpGet: {port: 1, path: \"/a\\r\\nX: y\"}}",
            "a line break",
        ),
        (
            "    livenessProbe: {grpc: {port: 1}}",
            "grpc: not supported by husk run",
        ),
        (
            "    envFrom: [{configMapRef: {name: m}}]",
            "the file has no ConfigMap `m`",
        ),
        (
            "    env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
            "the file has no Secret `s`",
        ),
        ("    enviroment: []", "is `env"),
        (
            "    imagePullPolicy: Sometimes",
            "`Sometimes` is not a value",
        ),
    ] {
        let error = parse("pod.yaml", &manifest(container), "uid")
            .unwrap_err()
            .to_string();
        let line = "pod.yaml:8: spec.containers[0].";
        assert!(
            error.contains(line) && error.contains(said),
            "{container}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
