//! C: wit-bindgen writes the bindings, clang compiles them with the project's sources.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Project, succeed};

/// The compilers that are looked for, the first that is there counts.
const CLANG: [&str; 2] = ["clang-19", "clang"];

const GET_CLANG: &str =
    "apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32     (Debian)";

const GET_WIT_BINDGEN: &str = "cargo install --locked wit-bindgen-cli --version 0.61.1 \
     --no-default-features --features c";

/// The core module of a project.
pub(super) fn module(project: &Project) -> Result<Vec<u8>> {
    let bindings = project.dir.join("target/bindings");
    let wit_bindgen = project.tool("wit-bindgen", GET_WIT_BINDGEN)?;
    succeed(
        Command::new(wit_bindgen)
            .args(["c", "--world", &project.world, "--out-dir"])
            .arg(&bindings)
            .arg(project.wit()?),
    )?;
    let generated = project.world.replace('-', "_");
    let module = project.dir.join("target/module.wasm");
    // No stdio, no start function: what a reactor exports is called, and nothing else.
    let mut compile = Command::new(clang(project)?);
    compile
        .args([
            "--target=wasm32-wasi",
            "-Os",
            "-Wall",
            "-mexec-model=reactor",
        ])
        .arg("-Wl,--no-entry,--strip-all,--gc-sections")
        .arg("-I")
        .arg(&bindings)
        .args(project.sources("c")?)
        .arg(bindings.join(format!("{generated}.c")))
        .arg(bindings.join(format!("{generated}_component_type.o")))
        .arg("-o")
        .arg(&module);
    succeed(&mut compile)
        .with_context(|| format!("if it lacks headers or libraries for wasm32: {GET_CLANG}"))?;
    fs::read(&module).with_context(|| format!("reading {}", module.display()))
}

fn clang(project: &Project) -> Result<PathBuf> {
    let found = CLANG
        .iter()
        .find_map(|name| project.tool(name, GET_CLANG).ok());
    found.with_context(|| format!("there is no clang; get it by\n  {GET_CLANG}"))
}
