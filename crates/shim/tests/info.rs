//! What `-info` and `-v` print.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::PROGRAM;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::introspection::RuntimeInfo;

#[test]
fn the_version_is_printed() {
    let output = Command::new(PROGRAM).arg("-v").output().unwrap();
    assert!(output.status.success());
    let expected = format!("containerd-shim-husk-v2 {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn info_is_a_runtime_info_and_nothing_else() {
    let options = Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        ..Any::default()
    };
    for (stdin, given) in [
        (Vec::new(), None),
        (options.write_to_bytes().unwrap(), Some(options)),
    ] {
        let mut child = Command::new(PROGRAM)
            .arg("-info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!(info.name, "io.containerd.husk.v2");
        assert_eq!(info.options.into_option(), given);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert!(features["linux"]["namespaces"].is_array());
    }
}

#[test]
fn an_unknown_action_is_an_error() {
    let output = Command::new(PROGRAM).arg("begin").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("begin"));
}
