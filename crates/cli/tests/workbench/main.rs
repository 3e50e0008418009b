//! The workbench of a plugin's author: `husk policy` and `husk plan`. Needs what
//! `plugins/build --all` builds and installs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod a_component_can_be_looked_into_and_measured;
mod a_hundred_compile_once;
mod a_new_project_builds;
mod a_plan_shows_what_would_be;
mod no_mistake_is_swallowed;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `husk`, with the tools of `plugins/build --all` on its PATH.
fn husk() -> Command {
    let mut husk = Command::new(env!("CARGO_BIN_EXE_husk"));
    husk.env("PATH", path());
    // What was compiled for an earlier run, CPython above all, is not compiled again.
    husk.env("XDG_CACHE_HOME", target().join("cache"));
    husk
}

fn path() -> OsString {
    let tools = target().join("tools");
    let own = ["bin", "node_modules/.bin", "python/bin"].map(|bin| tools.join(bin));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap()
}

/// Where `plugins/build` keeps what it makes.
fn target() -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    plugins.canonicalize().unwrap().join("target")
}

/// A component of `plugins/build`.
fn component(name: &str) -> PathBuf {
    let path = target()
        .join("components")
        .join(name)
        .with_extension("wasm");
    assert!(
        path.exists(),
        "{} is not there: run plugins/build --all",
        path.display()
    );
    path
}

/// What it wrote to stdout, for one that succeeded.
#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
