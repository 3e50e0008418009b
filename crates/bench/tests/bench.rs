//! `husk bench` measures what it says, of husk's shim and of one that it was not written with, and
//! leaves nothing behind.
//!
//! `tests/run` sets what it needs: root, and `HUSK_LAB`, the directory that `tests/lab/get` fills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn lab() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab");
    env::var_os("HUSK_LAB").map_or_else(default, PathBuf::from)
}

/// `husk bench` with husk's shim and runc's as candidates.
fn bench(words: &[&str]) -> Output {
    let husk = Path::new(env!("CARGO_BIN_EXE_husk-bench"));
    let shim = husk.with_file_name("containerd-shim-husk-v2");
    assert!(
        shim.exists(),
        "build containerd-shim-husk-v2 first: {}",
        shim.display()
    );
    let bin = lab().join("bin");
    let runc = format!(
        "runc={},runtime={}",
        bin.join("containerd-shim-runc-v2").display(),
        bin.join("runc").display()
    );
    Command::new(husk)
        .args(["--candidate", &format!("husk={}", shim.display())])
        .args(["--candidate", &runc])
        .args(words)
        .output()
        .unwrap()
}

/// What is named after a bench of this process's, which has ended.
fn left() -> Vec<String> {
    let mut left = Vec::new();
    for root in [
        "/run",
        "/run/husk/husk",
        "/run/husk-engine",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/cpuacct",
        "/sys/fs/cgroup/memory",
    ] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name
                .strip_prefix("husk-bench-")
                .and_then(|rest| rest.split('-').next());
            // One that still runs is somebody else's.
            let is_over = |pid: &str| !Path::new("/proc").join(pid).exists();
            if pid.is_some_and(is_over) {
                left.push(format!("{root}/{name}"));
            }
        }
    }
    left
}

#[test]
fn each_measure_gives_figures_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (json, svg, page) = (file("a.json"), file("a.svg"), file("a.md"));
    let output = bench(&[
        "start",
        "life",
        "exec",
        "pod",
        "memory",
        "pods",
        "--pods",
        "2",
        "--rounds",
        "2",
        "--warmups",
        "0",
        "--json",
        &json,
        "--svg",
        &svg,
        "--markdown",
        &page,
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let measures = report["measures"].as_array().unwrap();
    let names: Vec<_> = measures
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "start", "life", "exec", "pod", "memory-1", "memory-3", "pods-2"
        ]
    );
    for measure in measures {
        let name = &measure["name"];
        for outcome in measure["outcomes"].as_array().unwrap() {
            let values = outcome["values"].as_object().unwrap();
            assert!(values.len() >= 2, "{name}: {outcome}");
            for (quantity, spread) in values {
                let number = |key: &str| spread[key].as_f64().unwrap();
                let (min, median, max) = (number("min"), number("median"), number("max"));
                assert!(
                    0.0 < min && min <= median && median <= max,
                    "{name} {quantity} {spread}"
                );
            }
        }
    }
    assert!(fs::read_to_string(&svg).unwrap().ends_with("</svg>\n"));
    assert!(fs::read_to_string(&page).unwrap().contains("](a.svg)"));

    // The report tells the same without measuring again.
    let again = Command::new(env!("CARGO_BIN_EXE_husk-bench"))
        .args(["--from", &json])
        .output()
        .unwrap();
    assert_eq!(again.stdout, output.stdout);
    assert_eq!(left(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (words, problem) in [
        (
            &["life", "--baseline", "nobody"][..],
            "the baseline nobody is none of the candidates husk, runc",
        ),
        (&["cri"], "need --containerd SOCKET"),
        (
            &["life", "--candidate", "husk=/bin/true"],
            "the name husk of a candidate is taken",
        ),
        (&["start", "--candidate", "true=/bin/true"], "true"),
        (
            &["policies", "--plugins", "/no/such"],
            "`plugins/build` builds them",
        ),
        (&["--limits", "/no/such.toml"], "/no/such.toml"),
    ] {
        let output = bench(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(problem),
            "{words:?}: {said}"
        );
    }
}
