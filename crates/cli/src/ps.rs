//! `husk ps`.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use husk_engine::pod::{self, Paths};
use husk_node::process;
use husk_scope::record;
use serde::Serialize;

use crate::shims;

/// List pods: those made by `husk run`, and those that containerd made with husk's shim
#[derive(clap::Args)]
pub(crate) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A pod, as it is listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    id: String,
    name: String,
    /// The containerd namespace, `husk` for those of `husk run`.
    namespace: String,
    created_ms: u64,
    /// Status by container.
    containers: BTreeMap<String, String>,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let mut rows: Vec<_> = pod::Record::all(paths)?.into_iter().map(own).collect();
    for pod in shims::pods() {
        // A pod of `husk run` under husk's shim has both records; the engine's knows more.
        if !rows.iter().any(|row| row.id == pod.id) {
            rows.push(others(pod));
        }
    }
    rows.sort_by_key(|row| row.created_ms);
    let text = if args.json {
        serde_json::to_string_pretty(&rows)? + "\n"
    } else {
        table(&rows)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn own(record: pod::Record) -> Row {
    let watched = record.supervisor.is_some_and(process::is_alive);
    let containers = record.containers.into_iter().map(|container| {
        let again = match container.restarts {
            0 => String::new(),
            count => format!(", {count} restarts"),
        };
        let status = match container.status {
            pod::Status::Waiting if watched => String::from("waiting"),
            pod::Status::Waiting => String::from("never started"),
            pod::Status::Running if watched => String::from("running"),
            pod::Status::Running => String::from("unknown, its supervisor is gone"),
            pod::Status::Exited(code) => format!("exited {code}"),
        };
        (container.name, status + &again)
    });
    Row {
        id: record.id,
        name: record.name,
        namespace: String::from(husk_engine::shim::NAMESPACE),
        created_ms: record.created_ms,
        containers: containers.collect(),
    }
}

fn others(pod: record::Pod) -> Row {
    let served = pod.shim.is_some_and(process::is_alive);
    let containers = pod.containers.into_iter().map(|container| {
        let status = match (container.exit, served) {
            (Some(exit), _) => format!("exited {}", exit.code),
            (None, true) => format!("{:?}", container.status).to_lowercase(),
            (None, false) => String::from("unknown, its shim is gone"),
        };
        (container.name, status)
    });
    Row {
        name: if pod.name.is_empty() {
            pod.id.clone()
        } else {
            pod.name
        },
        id: pod.id,
        namespace: pod.namespace,
        created_ms: pod.created_ms,
        containers: containers.collect(),
    }
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![["POD", "ID", "NAMESPACE", "AGE", "CONTAINERS"].map(String::from)];
    for row in rows {
        let containers = row
            .containers
            .iter()
            .map(|(name, status)| format!("{name} ({status})"));
        lines.push([
            row.name.clone(),
            row.id.chars().take(12).collect(),
            row.namespace.clone(),
            age(row.created_ms),
            containers.collect::<Vec<_>>().join(", "),
        ]);
    }
    let width = |column: fn(&[String; 5]) -> &String| {
        lines
            .iter()
            .map(|line| column(line).chars().count())
            .max()
            .unwrap_or_default()
    };
    let (a, b, c, d) = (
        width(|l| &l[0]),
        width(|l| &l[1]),
        width(|l| &l[2]),
        width(|l| &l[3]),
    );
    lines
        .iter()
        .map(|[pod, id, namespace, age, containers]| {
            format!("{pod:a$}  {id:b$}  {namespace:c$}  {age:d$}  {containers}\n")
        })
        .collect()
}

/// `42s`, `17m`, `5h`, `3d`.
fn age(created_ms: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = now.as_secs().saturating_sub(created_ms / 1000);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |name: &str| Row {
            id: "0123456789abcdef".into(),
            name: name.into(),
            namespace: "husk".into(),
            created_ms: u64::MAX,
            containers: BTreeMap::from([("app".into(), "running".into())]),
        };
        let text = table(&[row("a"), row("a-long-name")]);
        let columns: Vec<_> = text
            .lines()
            .skip(1)
            .map(|line| line.find("0123456789ab").unwrap())
            .collect();
        assert_eq!(columns, [13, 13]);
        assert!(text.contains("app (running)"));
    }
}
