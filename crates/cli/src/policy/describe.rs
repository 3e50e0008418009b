//! `husk policy inspect`.
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldItem, WorldKey};

use super::{Subject, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The component
    file: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What a component offers and needs.
#[derive(Serialize)]
pub(in crate::policy) struct Description {
    file: PathBuf,
    sha256: String,
    bytes: usize,
    /// Interfaces and functions, by full name.
    pub(in crate::policy) exports: Vec<String>,
    /// Interfaces and functions, by full name.
    pub(super) imports: Vec<String>,
}

impl Description {
    pub(in crate::policy) fn of(subject: &Subject) -> Result<Self> {
        let decoded = wit_component::decode(&subject.bytes).with_context(|| {
            format!("{} is not a WebAssembly component", subject.path.display())
        })?;
        let DecodedWasm::Component(resolve, world) = decoded else {
            bail!(
                "{} is a WIT package, not a component",
                subject.path.display()
            );
        };
        let world = resolve
            .worlds
            .get(world)
            .context("the component has no world")?;
        Ok(Self {
            file: subject.path.clone(),
            sha256: subject.digest.clone(),
            bytes: subject.bytes.len(),
            exports: names(&resolve, world.exports.iter()),
            imports: names(&resolve, world.imports.iter()),
        })
    }
}

fn names<'a>(
    resolve: &Resolve,
    items: impl Iterator<Item = (&'a WorldKey, &'a WorldItem)>,
) -> Vec<String> {
    items.map(|(key, _)| resolve.name_world_key(key)).collect()
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let description = Description::of(&Subject::read(&args.file)?)?;
    if args.json {
        line(format_args!(
            "{}",
            serde_json::to_string_pretty(&description)?
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    line(format_args!(
        "{}  {} bytes",
        args.file.display(),
        description.bytes
    ))?;
    line(format_args!("sha256  {}", description.sha256))?;
    for (title, names) in [
        ("exports", &description.exports),
        ("imports", &description.imports),
    ] {
        for name in names {
            line(format_args!("{title} {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
