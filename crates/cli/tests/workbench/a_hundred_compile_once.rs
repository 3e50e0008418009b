//! A hundred pods that start at once have their plugin compiled by one of them.
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use crate::{component, husk};

#[test]
fn of_a_hundred_at_once_one_compiles() {
    let cache = tempfile::tempdir().unwrap();
    // As the shim runs it, but for the cache.
    let compilers: Vec<_> = (0..100)
        .map(|_| {
            husk()
                .args(["policy", "compile", "--confined", "--cache"])
                .arg(cache.path())
                .arg(component("isolate"))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut compiled = 0;
    for compiler in compilers {
        let output = compiler.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Whoever compiles says so; whoever finds it compiled says nothing.
        compiled += said.matches("machine code").count();
    }
    assert_eq!(compiled, 1);
    let entries = || {
        let files = fs::read_dir(cache.path()).unwrap();
        let mut entries: Vec<_> = files
            .map(|file| file.unwrap())
            .filter(|file| file.file_name().to_string_lossy().ends_with(".cwasm"))
            .map(|file| (file.file_name(), file.metadata().unwrap().ino()))
            .collect();
        entries.sort();
        entries
    };
    let before = entries();
    assert_eq!(before.len(), 1);
    let later = husk()
        .args(["policy", "compile", "--confined", "--cache"])
        .arg(cache.path())
        .arg(component("isolate"))
        .output()
        .unwrap();
    assert!(
        later.status.success() && later.stdout.is_empty(),
        "{later:?}"
    );
    assert_eq!(entries(), before, "the entry is the same file");
}
