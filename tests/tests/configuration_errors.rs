//! A configuration that is wrong refuses the pod, and says where and what would be right.
use std::fs;

use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use husk_tests::ctr::unique;

in_both_modes!(a_pod_is_refused_with_file_line_and_the_nearest_key);

fn a_pod_is_refused_with_file_line_and_the_nearest_key(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let refused = cri.pod_of("unknown-key", mode).try_run();
    let error = refused.expect_err("a refusal").to_string();
    assert!(error.contains("unknown-key.toml:3:1"), "{error}");
    assert!(
        error.contains("netwrok") && error.contains("did you mean `network`"),
        "{error}"
    );
}

/// Runs a container with this configuration, which must be refused with all of these words.
#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let containerd = Containerd::of_the_suite();
    let config = containerd.lab().run.join(unique("config"));
    fs::write(&config, text).unwrap();
    let flag = format!("--runtime-config-path={}", config.display());
    let output = containerd.ctr().container().flag(&flag).run(&["true"]);
    assert_ne!(output.code, 0, "{output:?}");
    for word in words {
        assert!(
            output.stderr.contains(word),
            "no `{word}` in {}",
            output.stderr
        );
    }
}

#[test]
fn a_syntax_error() {
    refused("[scopes]\nnetwork = container\n", &[":2:"]);
}

#[test]
fn a_bad_value_gets_the_nearest_good_one() {
    refused(
        "[scopes]\nnetwork = \"contaner\"\n",
        &[":2:11", "contaner", "`container`"],
    );
}

#[test]
fn a_mount_namespace_of_the_pod() {
    refused("[scopes]\nmount = \"pod\"\n", &[":2:", "mount", "POD"]);
}

#[test]
fn a_user_namespace_of_the_pod_that_has_none() {
    refused("[scopes]\nuser = \"pod\"\n", &["user", "POD", "hostUsers"]);
}

#[test]
fn more_than_the_ceiling_allows() {
    refused(
        "[scopes]\nnetwork = \"node\"\n[ceiling]\nnetwork = \"pod\"\n",
        &[":2:", "ceiling", "network"],
    );
}

#[test]
fn a_target_that_is_not_there() {
    refused("[scopes]\npid = \"target:nobody\"\n", &["nobody", "pid"]);
}

#[test]
fn a_file_that_is_not_there() {
    let containerd = Containerd::of_the_suite();
    let flag = "--runtime-config-path=/no/such/config.toml";
    let output = containerd.ctr().container().flag(flag).run(&["true"]);
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("/no/such/config.toml"), "{output:?}");
}
