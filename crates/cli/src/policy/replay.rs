//! `husk policy replay`.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use husk_audit::Questions;
use husk_plugin_host::case::ordinary_pod;
use husk_plugin_host::recorded::{Came, Recorded, RecordedError};
use husk_plugin_host::subject::Question;
use husk_plugin_host::{Chain, Outcome, decide};
use husk_scope::config::{AUDIT_DIR, Config};
use husk_terminal::messages::say;
use serde::Serialize;
use time::OffsetDateTime;

use crate::plan;

/// The exit status when an answer would be another one.
const CHANGED: u8 = 3;

/// How many pods of a change are named.
const NAMED: usize = 3;

/// Ask the policies of a configuration what was asked on this node, and show what would change
///
/// What was asked is kept where a handler's [audit] says record = "questions". A decision is a function
/// of its question, so this is what would have been; where values of the environment were left out,
/// policies see empty ones. Nothing is made or recorded. The exit status is 3 when an answer would be
/// another one, 1 when there is none.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The configuration whose plugins and ceiling are asked
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What was first asked from this time on: 2026-03-04T05:06:07Z, 2026-03-04, or 90m, 12h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = crate::audit::time)]
    since: Option<OffsetDateTime>,
    /// The directory of the record, as the handler's [audit] names it
    #[arg(long, value_name = "DIR", default_value = AUDIT_DIR)]
    dir: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What a replay shows.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// How many questions were asked again.
    asked: u64,
    /// Of how many pods they were.
    pods: usize,
    /// How many could not be asked.
    unreadable: u64,
    /// Of how many the values of the environment were left out.
    without_env: u64,
    changes: Vec<Change>,
}

/// Questions whose answers change alike.
#[derive(Debug, Serialize)]
struct Change {
    question: String,
    container: Option<String>,
    before: String,
    after: String,
    /// By namespace and name.
    pods: BTreeSet<String>,
    /// The questions, for `husk policy case`.
    questions: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let file = args.config.display().to_string();
    let text = fs::read_to_string(&args.config)
        .with_context(|| format!("reading the configuration {file}"))?;
    let config = Config::parse(&file, &text)?;
    let chain = chain(&config)?;
    let report = replay(args, &config, &chain)?;
    ensure!(
        report.asked > 0,
        "there is no question to ask again in {}: a handler's [audit] keeps them with record = \
         \"questions\"",
        args.dir.display()
    );
    let text = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        report.words()
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(if report.changes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(CHANGED)
    })
}

/// The plugins of the configuration, which take their settings.
fn chain(config: &Config) -> Result<Chain> {
    let chain = settled(plan::load(config)?)?;
    settled(chain.validate_settings(&Arc::new(ordinary_pod())))?;
    Ok(chain.keeping(true))
}

fn settled<T>(outcome: Outcome<T>) -> Result<T> {
    for (plugin, _, line) in &outcome.log {
        say(format_args!("{plugin}: {line}"));
    }
    match outcome.result {
        Ok(result) => Ok(result),
        Err(denied) => bail!("{denied}"),
    }
}

fn replay(args: &Args, config: &Config, chain: &Chain) -> Result<Report> {
    let dir = args.dir.display();
    let reading = || format!("reading the questions in {dir}");
    // Whatever max-questions was, all that is there is read.
    let all = Questions::new(&args.dir, u64::MAX).all();
    let all = all.with_context(reading)?;
    let mut report = Report::default();
    let mut pods = BTreeSet::new();
    let mut changes: BTreeMap<_, Change> = BTreeMap::new();
    for kept in all {
        if args.since.is_some_and(|since| kept.when < since) {
            continue;
        }
        let recorded = kept
            .read()
            .map_err(|error| error.to_string())
            .and_then(|json| Recorded::read(&json).map_err(|error| error.to_string()));
        let again = recorded.and_then(|recorded| {
            let after = again(config, chain, &recorded).map_err(|error| error.to_string())?;
            Ok((recorded, after))
        });
        let (recorded, after) = match again {
            Ok(asked) => asked,
            Err(problem) => {
                say(format_args!("husk: question {}: {problem}", kept.digest));
                report.unreadable = report.unreadable.saturating_add(1);
                continue;
            }
        };
        report.asked = report.asked.saturating_add(1);
        report.without_env = report.without_env.saturating_add(u64::from(!recorded.env));
        let pod = format!("{}/{}", recorded.pod.namespace, recorded.pod.name);
        pods.insert(recorded.pod.id.clone());
        if is_same(&recorded.came, &after) {
            continue;
        }
        let container = recorded.container().map(str::to_owned);
        let (before, after) = (words(&recorded.came), words(&after));
        let key = (recorded.question, container, before, after);
        let change = changes.entry(key.clone()).or_insert_with(|| Change {
            question: key.0,
            container: key.1,
            before: key.2,
            after: key.3,
            pods: BTreeSet::new(),
            questions: Vec::new(),
        });
        change.pods.insert(pod);
        change.questions.push(kept.digest);
    }
    report.pods = pods.len();
    report.changes = changes.into_values().collect();
    Ok(report)
}

/// What the new policies, and the ceiling that they are below, make of a question.
fn again(config: &Config, chain: &Chain, recorded: &Recorded) -> Result<Came, RecordedError> {
    recorded.ask(|pod, question| match question {
        Question::ScopeSandbox => came(chain.scopes(pod, None), |assigned| {
            decide::sandbox_plan(config, &pod.requested, &assigned)
                .map(drop)
                .map_err(|error| error.to_string())
        }),
        Question::ScopeContainer(container) => {
            came(chain.scopes(pod, Some(container)), |assigned| {
                let (name, requested) = (&container.name, &container.requested);
                decide::container_plan(config, name, requested, assigned, Vec::new())
                    .map(drop)
                    .map_err(|error| error.to_string())
            })
        }
        Question::LinkContainer(container) => came(chain.links(pod, container), |links| {
            decide::container_links(config, &container.name, links)
                .map(drop)
                .map_err(|error| error.to_string())
        }),
        Question::ContainerCreating(container) => {
            came(chain.container_creating(pod, container), |_| Ok(()))
        }
        other => came(chain.notify(pod, other), |()| Ok(())),
    })
}

/// What was answered, unless the handler would not take it.
fn came<T>(outcome: Outcome<T>, take: impl FnOnce(T) -> Result<(), String>) -> Came {
    let answered = outcome.recorded.map(|recorded| recorded.came);
    match outcome.result.map(take) {
        Ok(Err(refused)) => Came::refused(refused),
        // The chain keeps every question that is kept at all.
        _ => answered.unwrap_or_default(),
    }
}

/// Whether an answer is the same: how a refusal is worded is no matter.
fn is_same(before: &Came, after: &Came) -> bool {
    match (&before.refused, &after.refused) {
        (None, None) => before.decided == after.decided,
        (Some(_), Some(_)) => true,
        _ => false,
    }
}

fn words(came: &Came) -> String {
    match &came.refused {
        Some(refused) => format!("refused: {refused}"),
        None if came.decided.is_empty() => String::from("nothing against it"),
        None => came.decided.join("; "),
    }
}

impl Report {
    fn words(&self) -> String {
        let mut text = String::new();
        let mut changed = 0_usize;
        for change in &self.changes {
            changed = changed.saturating_add(change.questions.len());
            let of = change.container.as_ref();
            let of = of.map(|name| format!(" of {name}")).unwrap_or_default();
            let named: Vec<&str> = change.pods.iter().take(NAMED).map(String::as_str).collect();
            let more = change.pods.len().saturating_sub(NAMED);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            text.push_str(&format!(
                "{}{of}: {}{more}\n  - {}\n  + {}\n",
                change.question,
                named.join(", "),
                change.before,
                change.after
            ));
            if let Some(first) = change.questions.first() {
                text.push_str(&format!("  husk policy case {first}\n"));
            }
        }
        let harmless = |c: char| if c.is_control() && c != '\n' { '?' } else { c };
        let mut text: String = text.chars().map(harmless).collect();
        let pods = self.changes.iter().flat_map(|change| &change.pods);
        let pods: BTreeSet<_> = pods.collect();
        text.push_str(&format!(
            "{} questions of {} pods asked again: {changed} answers, of {} pods, would be others\n",
            self.asked,
            self.pods,
            pods.len()
        ));
        if self.without_env > 0 {
            text.push_str(&format!(
                "{} of them without the values of the environment, which were not kept\n",
                self.without_env
            ));
        }
        text
    }
}
