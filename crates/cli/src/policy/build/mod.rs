//! `husk policy build`: from a project to a component, by the language's own tools.
mod c;
mod exports;
mod rust;

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use wit_component::ComponentEncoder;

use super::new::WIT;
use super::{Subject, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The project: a folder with a Cargo.toml, or a .c, .js or .py file
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The plugin's world in the project's WIT package; in Rust the source says it
    #[arg(long, default_value = "policy")]
    world: String,
}

/// A project to be built.
struct Project {
    dir: PathBuf,
    world: String,
    /// The component to be made, `NAME.wasm` in the project's folder.
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let project = Project::open(args)?;
    // What an earlier build made must not be taken for what this one failed to make.
    match fs::remove_file(&project.out) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", project.out.display()));
        }
        _ => {}
    }
    if project.dir.join("Cargo.toml").exists() {
        fs::write(&project.out, component(&rust::module(&project)?)?)
            .with_context(|| format!("writing {}", project.out.display()))?;
    } else if let Some(source) = project.source("js")? {
        javascript(&project, &source)?;
    } else if let Some(source) = project.source("py")? {
        python(&project, &source)?;
    } else if project.source("c")?.is_some() {
        fs::write(&project.out, component(&c::module(&project)?)?)
            .with_context(|| format!("writing {}", project.out.display()))?;
    } else {
        bail!(
            "{} holds no Cargo.toml, no .c, no .js and no .py file; `husk policy new` makes a project",
            project.dir.display()
        );
    }
    let made = Subject::read(&project.out)?;
    if let Err(problem) = exports::complete(&project, &made) {
        let _ = fs::remove_file(&project.out);
        return Err(problem);
    }
    line(format_args!(
        "made {}: {} bytes, sha256 {}",
        project.out.display(),
        made.bytes.len(),
        made.digest
    ))?;
    Ok(ExitCode::SUCCESS)
}

impl Project {
    fn open(args: &Args) -> Result<Self> {
        let dir = args
            .dir
            .canonicalize()
            .with_context(|| format!("opening the project {}", args.dir.display()))?;
        let name = dir
            .file_name()
            .context("the project's folder has no name")?;
        let out = dir.join(name).with_extension("wasm");
        Ok(Self {
            dir,
            world: args.world.clone(),
            out,
        })
    }

    /// The project's sources in a language, in the order of their names.
    fn sources(&self, extension: &str) -> Result<Vec<PathBuf>> {
        let reading = || format!("reading {}", self.dir.display());
        let mut sources = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            if path.extension() == Some(OsStr::new(extension)) {
                sources.push(path);
            }
        }
        sources.sort();
        Ok(sources)
    }

    fn source(&self, extension: &str) -> Result<Option<PathBuf>> {
        Ok(self.sources(extension)?.into_iter().next())
    }

    /// The contract that the project is built for.
    fn wit(&self) -> Result<PathBuf> {
        let wit = self.dir.join(WIT);
        if wit.is_dir() {
            return Ok(wit);
        }
        // A project of an earlier husk has the contract of its time, which is as good.
        let versions = self.dir.join("wit");
        let earlier = fs::read_dir(&versions).into_iter().flatten().flatten();
        let mut earlier: Vec<PathBuf> = earlier
            .map(|entry| entry.path())
            .filter(|path| path.join("plugin.wit").is_file())
            .collect();
        earlier.sort();
        earlier.pop().with_context(|| {
            format!(
                "{} is not there: the project needs the WIT package of husk:plugin; `husk policy \
                 new` makes a project that has it",
                wit.display()
            )
        })
    }

    /// A tool of the project's own, else one on PATH; `how` tells how to get it.
    fn tool(&self, name: &str, how: &str) -> Result<PathBuf> {
        let own = [".venv/bin", "node_modules/.bin"].map(|bin| self.dir.join(bin));
        let path = std::env::var_os("PATH").unwrap_or_default();
        own.into_iter()
            .chain(std::env::split_paths(&path))
            .map(|dir| dir.join(name))
            .find(|tool| tool.is_file())
            .with_context(|| format!("there is no {name}; get it by\n  {how}"))
    }
}

/// Runs a tool in the project; what it prints is the user's to see.
fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command
        .status()
        .with_context(|| format!("running {program}"))?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}

/// What a tool prints.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("running {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The component around a core module, whose custom section tells its world.
fn component(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .context(
            "making a component of the compiled module; what it imports beyond husk:plugin must go: \
             files, clocks and standard output are not there for plugins",
        )
}

fn javascript(project: &Project, source: &Path) -> Result<()> {
    let tool = project.tool(
        "componentize-qjs",
        "npm install     (in the project; Debian: apt-get install npm)",
    )?;
    succeed(
        Command::new(tool)
            .args(["--sync", "--stub-wasi", "--world", &project.world, "--wit"])
            .arg(project.wit()?)
            .arg("--js")
            .arg(source)
            .arg("-o")
            .arg(&project.out)
            .current_dir(&project.dir),
    )
}

fn python(project: &Project, source: &Path) -> Result<()> {
    let tool = project.tool(
        "componentize-py",
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt     (in the project)",
    )?;
    let module = source.file_stem().context("the source has no name")?;
    succeed(
        Command::new(tool)
            .arg("-d")
            .arg(project.wit()?)
            .args(["-w", &project.world, "componentize", "--stub-wasi"])
            .arg(module)
            .arg("-o")
            .arg(&project.out)
            .current_dir(&project.dir),
    )
}
