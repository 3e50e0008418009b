//! `husk policy check`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use husk_plugin_host::case::ordinary_pod;
use husk_plugin_host::plugin::Failure;
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Host, Plugin};

use super::{Subject, describe::Description, line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The component
    file: PathBuf,
    /// The plugin's settings, as JSON, for validate-settings
    #[arg(long, default_value = "{}")]
    settings: String,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let subject = Subject::read(&args.file)?;
    let description = Description::of(&subject)?;
    let host = Host::new()?;
    let plugin = subject.plugin(&host, &args.settings)?;
    let mut problems = foreign_imports(&description);
    problems.extend(settings_refused(&plugin));
    let questions = plugin.questions();
    let exports = plugin.exports();
    let parts = [
        (exports.decides_scopes, "a policy"),
        (exports.decides_links, "links"),
        (exports.follows_lifecycle, "hooks"),
    ];
    let worlds: Vec<&str> = parts
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    line(format_args!(
        "{}: {}, {} bytes, sha256 {}",
        args.file.display(),
        worlds.join(" and "),
        subject.bytes.len(),
        plugin.digest(),
    ))?;
    let list = |answers: bool| {
        let names = questions.iter().filter(|(_, is)| *is == answers);
        names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    line(format_args!("  answers {}", list(true)))?;
    if questions.iter().any(|(_, answers)| !answers) {
        line(format_args!(
            "  a handler also asks, and this component has no answer to: {}",
            list(false)
        ))?;
    }
    for problem in &problems {
        line(format_args!("  {problem}"))?;
    }
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Imports that are answered by nothing.
fn foreign_imports(description: &Description) -> Vec<String> {
    description
        .imports
        .iter()
        .filter(|name| !name.starts_with("husk:plugin/"))
        .map(|name| {
            format!(
                "imports {name}, which is answered by empty values or a trap: build without it \
                 (`--stub-wasi` of componentize-py and componentize-qjs, `no_std` or \
                 wasm32-unknown-unknown for Rust)"
            )
        })
        .collect()
}

fn settings_refused(plugin: &Plugin) -> Option<String> {
    let reply = plugin.ask(&Arc::new(ordinary_pod()), &Question::ValidateSettings);
    match reply.answer {
        Ok(_) => None,
        Err(Failure::Denied(problem)) => Some(format!("refuses its {problem}")),
        Err(failure) => Some(format!("validate-settings: {failure}")),
    }
}
