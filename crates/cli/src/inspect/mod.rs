//! `husk inspect`: what a pod is made of.
//!
//! Everything is read, nothing is asked (but for what links have carried): the pod's record says where to look, `/proc` and the
//! cgroups say what is there. So it works on any live pod, under containerd too, and on one whose
//! shim has died.
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use husk_scope::record::STATE_DIR;

pub(crate) mod cgroups;
mod find;
#[cfg(test)]
mod fixture;
mod links;
mod matrix;
mod picture;
mod report;
mod sharing;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod units;
mod watch;

/// Show what a pod is made of: who shares which namespace with whom, cgroups, processes.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// The pod's id, the beginning of it, or its name; may be left out when there is only one.
    pod: Option<String>,
    /// Look only in this containerd namespace.
    #[arg(long, short)]
    namespace: Option<String>,
    #[command(flatten)]
    form: Form,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: Color,
    /// Where the shims keep their records.
    #[arg(long, default_value = STATE_DIR)]
    state_dir: PathBuf,
}

/// What is written; a page of tables if nothing is said.
#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
struct Form {
    /// Write JSON; its fields are only ever added to.
    #[arg(long)]
    json: bool,
    /// Write a picture, as an SVG document.
    #[arg(long)]
    svg: bool,
    /// Write an HTML page: the picture and the tables.
    #[arg(long)]
    html: bool,
    /// Look again every second, on a terminal, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// Prints what the pod is made of.
///
/// # Errors
/// No such pod, several that could be meant (they are listed), or an unreadable record.
pub(crate) fn run(args: InspectArgs) -> Result<()> {
    if args.form.watch {
        return watch::watch(&args);
    }
    let pod = find::find(
        &args.state_dir,
        args.namespace.as_deref(),
        args.pod.as_deref(),
    )?;
    let mut report = report::look(&pod);
    links::count(&mut report, &pod);
    let text = match args.form {
        Form { json: true, .. } => {
            let mut text =
                serde_json::to_string_pretty(&report).context("writing the report as JSON")?;
            text.push('\n');
            text
        }
        Form { svg: true, .. } => crate::picture::svg(&picture::picture(&report)),
        Form { html: true, .. } => {
            let page = text::page(&report, false);
            crate::picture::page(&picture::picture(&report), page.blocks())
        }
        _ => text::render(&report, args.color.wanted()),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to the standard output"),
    }
}

impl Color {
    pub(crate) fn wanted(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}
