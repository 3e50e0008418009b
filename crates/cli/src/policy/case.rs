//! `husk policy case`.
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use husk_audit::{Kept, Questions, text};
use husk_plugin_host::recorded::{Came, KeptContainer, Recorded};
use husk_plugin_host::subject::Pod;
use husk_scope::Scopes;
use husk_scope::config::AUDIT_DIR;
use husk_terminal::messages::say;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::line;

/// Make a test case of a question that was asked on this node
///
/// It expects what was answered then; change that to what should be. Where values of the environment
/// were not kept, fill in those that matter.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The question: `input` of a line of `husk audit`, or the beginning of one
    question: String,
    /// The directory of the record, as the handler's [audit] names it
    #[arg(long, value_name = "DIR", default_value = AUDIT_DIR)]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (kept, recorded) = find(args)?;
    if !recorded.input.starts_with(&args.question) {
        say(
            "husk: the plugins before that one had changed the container; the case has it as it came",
        );
    }
    let Pod {
        namespace, name, ..
    } = &recorded.pod;
    let about = format!("{namespace}/{name}");
    line(format_args!(
        "# {} of pod {}, asked at {}: question {}",
        recorded.question,
        about.escape_debug(),
        text(kept.when),
        recorded.input
    ))?;
    if !recorded.env {
        line("# The values of the environment were not kept.")?;
    }
    if let (Some(refused), None) = (&recorded.came.refused, &recorded.came.reason) {
        line(format_args!(
            "# It was refused, by no plugin's own words: {}",
            refused.escape_debug()
        ))?;
    }
    line(toml::to_string_pretty(&case(&recorded)?)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The one question that is meant.
fn find(args: &Args) -> Result<(Kept, Recorded)> {
    let dir = args.dir.display();
    ensure!(
        args.question.len() >= 6,
        "`{}` is too short for a question: give at least six digits of it",
        args.question
    );
    let all = Questions::new(&args.dir, u64::MAX).all();
    let all = all.with_context(|| format!("reading the questions in {dir}"))?;
    let named = |kept: &&Kept| kept.digest.starts_with(&args.question);
    let found: Vec<&Kept> = all.iter().filter(named).collect();
    match found.as_slice() {
        [only] => {
            let reading = || format!("question {}", only.digest);
            let json = only.read().with_context(reading)?;
            return Ok((
                (*only).clone(),
                Recorded::read(&json).with_context(reading)?,
            ));
        }
        [] => {}
        several => bail!(
            "{} questions begin with {}: give more of it",
            several.len(),
            args.question
        ),
    }
    // What a later plugin was asked is kept with what the first one was.
    for kept in all {
        let recorded = kept.read().ok().and_then(|json| Recorded::read(&json).ok());
        if let Some(recorded) = recorded
            && recorded
                .inputs
                .iter()
                .any(|input| input.starts_with(&args.question))
        {
            return Ok((kept, recorded));
        }
    }
    bail!(
        "there is no question {} in {dir}: it was not kept (record = \"questions\" in [audit]), or has \
         made way for later ones",
        args.question
    )
}

fn case(recorded: &Recorded) -> Result<Table> {
    let mut case = Table::new();
    case.insert("question".into(), recorded.question.clone().into());
    case.insert("expect".into(), expect(&recorded.question, &recorded.came)?);
    case.insert("pod".into(), pod(&recorded.pod)?.into());
    if let Some(found) = &recorded.container {
        case.insert("container".into(), container(found)?.into());
    }
    if let Some(process) = &recorded.process {
        let json = serde_json::to_string_pretty(process)?;
        case.insert("process-json".into(), json.into());
    }
    if let Some(update) = &recorded.update {
        let update = without_null(update);
        case.insert("update".into(), Value::try_from(update)?);
    }
    Ok(case)
}

fn pod(pod: &Pod) -> Result<Table> {
    let mut facts = Table::new();
    for (key, value) in [
        ("name", &pod.name),
        ("namespace", &pod.namespace),
        ("id", &pod.id),
        ("uid", &pod.uid),
        ("cgroup-parent", &pod.cgroup_parent),
    ] {
        facts.insert(key.into(), value.clone().into());
    }
    facts.insert("requested".into(), requested(&pod.requested).into());
    facts.insert("containers".into(), Value::try_from(&pod.containers)?);
    facts.insert("labels".into(), Value::try_from(&pod.labels)?);
    facts.insert("annotations".into(), Value::try_from(&pod.annotations)?);
    Ok(facts)
}

fn container(container: &KeptContainer) -> Result<Table> {
    let mut facts = Table::new();
    for (key, value) in [
        ("name", &container.name),
        ("id", &container.id),
        ("image", &container.image),
    ] {
        facts.insert(key.into(), value.clone().into());
    }
    let spec = serde_json::to_string_pretty(&container.spec)?;
    facts.insert("spec-json".into(), spec.into());
    facts.insert("requested".into(), requested(&container.requested).into());
    Ok(facts)
}

fn requested(scopes: &Scopes) -> Table {
    let words = scopes.iter();
    words
        .map(|(kind, scope)| (kind.name().to_owned(), scope.word().into()))
        .collect()
}

/// What was answered, as a case expects it.
fn expect(question: &str, came: &Came) -> Result<Value> {
    let of = |key: &str, value: Value| Value::from(Table::from_iter([(key.to_owned(), value)]));
    if came.refused.is_some() {
        let reason = came.reason.clone().unwrap_or_default();
        return Ok(of("denied", reason.into()));
    }
    if came.decided.is_empty() {
        return Ok("admitted".into());
    }
    Ok(match question {
        "scope-sandbox" | "scope-container" => {
            let scopes = came.decided.iter().filter_map(|word| word.split_once('='));
            let scopes = scopes.map(|(kind, scope)| (kind.to_owned(), scope.into()));
            of("scopes", Table::from_iter(scopes).into())
        }
        "container-creating" => {
            let edits = came.decided.iter().flat_map(|edits| edits.split("; "));
            of("edits", Value::Array(edits.map(Value::from).collect()))
        }
        _ => {
            // A link's words are not the keys of one: the case says so by failing.
            for link in &came.decided {
                line(format_args!("# It was answered: {link}"))?;
            }
            "admitted".into()
        }
    })
}

/// TOML has no null; a key that is not there means the same.
fn without_null(json: &Json) -> Json {
    match json {
        Json::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(key, value)| (key.clone(), without_null(value)))
                .collect()
        }
        Json::Array(values) => values.iter().map(without_null).collect(),
        other => other.clone(),
    }
}
