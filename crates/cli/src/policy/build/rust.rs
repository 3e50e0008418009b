//! Rust: cargo, with whichever compiler can build for wasm32.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Project, output};

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler, which may be there beside rustup's.
const DEBIAN: (&str, &str) = ("/usr/bin/rustc", "/usr/bin/cargo");

/// The linkers that are looked for where the compiler brings none.
const LINKERS: [&str; 2] = ["wasm-ld-19", "wasm-ld"];

const GET_RUST: &str = "there is no Rust compiler for wasm32; get one by one of\n  \
     rustup target add wasm32-unknown-unknown\n  \
     apt-get install rustc libstd-rust-dev-wasm32 lld     (Debian 13)\n  \
     apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld-19     (Debian 12: \
     builds std from source, once, in minutes)";

/// A cargo and what it must be told to build for wasm32.
struct Toolchain {
    cargo: PathBuf,
    /// The compiler, where cargo would take another one.
    rustc: Option<PathBuf>,
    /// Whether std is built from source: the compiler has none for this target.
    builds_std: bool,
    /// The linker, where the compiler brings none.
    linker: Option<PathBuf>,
}

/// The core module of a project.
pub(super) fn module(project: &Project) -> Result<Vec<u8>> {
    let toolchain = Toolchain::find(project)?;
    let mut build = toolchain.build();
    build.current_dir(&project.dir).stderr(Stdio::inherit());
    let said = build
        .output()
        .with_context(|| format!("running {}", toolchain.cargo.display()))?;
    if !said.status.success() {
        bail!("the project does not compile");
    }
    let module = made(&String::from_utf8_lossy(&said.stdout)).context(
        "cargo made no .wasm file: the crate's type must be `cdylib` (see `husk policy new`)",
    )?;
    fs::read(&module).with_context(|| format!("reading {}", module.display()))
}

/// The module among what cargo says it made; the last, for dependencies come first.
fn made(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().rev();
    let mut artifacts = messages
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            message.get("reason").and_then(Value::as_str) == Some("compiler-artifact")
        });
    artifacts.find_map(|artifact| {
        let files = artifact.get("filenames")?.as_array()?.iter();
        let mut files = files.filter_map(Value::as_str).map(PathBuf::from);
        files.find(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
    })
}

impl Toolchain {
    /// The compiler on PATH if it has the target, else Debian's if it has it, or the source of std.
    fn find(project: &Project) -> Result<Self> {
        let on_path = sysroot(Path::new("rustc"), project);
        if on_path.as_deref().is_some_and(has_target) {
            return Ok(Self {
                cargo: "cargo".into(),
                rustc: None,
                builds_std: false,
                linker: None,
            });
        }
        let (rustc, cargo) = DEBIAN;
        let Some(sysroot) = sysroot(Path::new(rustc), project) else {
            bail!("{GET_RUST}");
        };
        let builds_std = !has_target(&sysroot);
        if builds_std && !sysroot.join("lib/rustlib/src/rust/library").is_dir() {
            bail!("{GET_RUST}");
        }
        Ok(Self {
            cargo: cargo.into(),
            rustc: Some(rustc.into()),
            builds_std,
            linker: on_path
                .and_then(|sysroot| bundled_linker(&sysroot))
                .or_else(|| LINKERS.iter().find_map(|name| project.tool(name, "").ok())),
        })
    }

    fn build(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.args(["build", "--release", "--target", TARGET]);
        // The result's path, whatever the crate and the target directory are called.
        cargo.arg("--message-format=json-render-diagnostics");
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if self.builds_std {
            cargo.env("RUSTC_BOOTSTRAP", "1");
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        if let Some(linker) = &self.linker {
            let linker = linker.display();
            cargo.arg(format!("--config=target.{TARGET}.linker='{linker}'"));
            cargo.arg(format!(
                "--config=target.{TARGET}.rustflags=['-Clinker-flavor=wasm-ld']"
            ));
        }
        cargo
    }
}

/// Where a compiler has its libraries, if it is there.
fn sysroot(rustc: &Path, project: &Project) -> Option<PathBuf> {
    let mut ask = Command::new(rustc);
    // In the project: a toolchain file may choose another compiler there.
    ask.args(["--print", "sysroot"]).current_dir(&project.dir);
    let printed = output(&mut ask).ok()?;
    Some(PathBuf::from(printed.trim()))
}

fn has_target(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .is_dir()
}

/// The linker that rustup's toolchains bring along: it is told by rustc which linker it is. `gcc-ld/wasm-ld`
/// beside it would tell it once more, which it refuses.
fn bundled_linker(sysroot: &Path) -> Option<PathBuf> {
    let targets = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
    let mut linkers = targets
        .flatten()
        .map(|target| target.path().join("bin/rust-lld"));
    linkers.find(|linker| linker.is_file())
}
