//! `husk audit`.
mod filter;
mod summary;

use std::io::{self, ErrorKind, Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use husk_audit::{Entry, Reader};
use husk_scope::config::AUDIT_DIR;
use husk_terminal::messages::say;

use filter::Filter;
pub(crate) use filter::time;
use summary::Summary;

/// How often a followed record is looked at; a file says nothing by itself.
const POLL: Duration = Duration::from_millis(200);

/// Show what plugins have answered on this node, and what was refused
///
/// The record outlives the pods. Each line is one answer of one plugin, oldest first; what is said
/// several times of one option is alternatives, and different options must all hold.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Go on with what is written from now on
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// As JSON: the lines as they are on record, or the summary
    #[arg(long)]
    json: bool,
    /// How often each plugin answered what, and why
    #[arg(long, conflicts_with = "follow")]
    summary: bool,
    /// The directory of the record, as the handler's [audit] names it
    #[arg(long, value_name = "DIR", default_value = AUDIT_DIR)]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        args.follow || args.dir.exists(),
        "there is no audit record in {}: no plugin was asked on this node, or the [audit] of its \
         handler names another directory, which --dir takes",
        args.dir.display()
    );
    let mut reader = Reader::new(&args.dir, args.filter.since());
    let shown = if args.summary {
        summarize(args, &mut reader)
    } else {
        show(args, &mut reader)
    };
    match shown {
        // `head` has seen enough.
        Err(error) if is_broken_pipe(&error) => {}
        shown => shown?,
    }
    if reader.spoilt() > 0 {
        let spoilt = reader.spoilt();
        say(format_args!(
            "husk: {spoilt} lines cannot be read: they were cut, or are none of husk's"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The next line that is asked for.
fn next(args: &Args, reader: &mut Reader) -> Result<Option<Entry>> {
    loop {
        let entry = reader
            .next_entry()
            .with_context(|| format!("reading the audit record in {}", args.dir.display()))?;
        match entry {
            Some(entry) if !args.filter.admits(&entry.line) => {}
            other => return Ok(other),
        }
    }
}

fn show(args: &Args, reader: &mut Reader) -> Result<()> {
    let mut out = stdout().lock();
    let mut any = false;
    loop {
        while let Some(Entry { line, json }) = next(args, reader)? {
            any = true;
            if args.json {
                writeln!(out, "{json}")?;
            } else {
                let second = line.time.get(..19).unwrap_or(&line.time);
                writeln!(out, "{second}Z {line}")?;
            }
        }
        out.flush()?;
        if !args.follow {
            break;
        }
        sleep(POLL);
    }
    if !any {
        say("husk: no line of the audit record is as asked for");
    }
    Ok(())
}

fn summarize(args: &Args, reader: &mut Reader) -> Result<()> {
    let mut summary = Summary::default();
    while let Some(entry) = next(args, reader)? {
        summary.add(entry.line);
    }
    let text = if args.json {
        summary.json()? + "\n"
    } else {
        summary.table()
    };
    Ok(stdout().write_all(text.as_bytes())?)
}
