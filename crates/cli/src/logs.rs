//! `husk logs`.
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use husk_engine::pod::{Error, Paths, Record};
use husk_node::process;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::shims;
use crate::tail::{self, Tail};

/// How often it is looked whether a followed pod is over.
const POLL: Duration = Duration::from_millis(200);

/// Print what the containers of a pod made by `husk run` have written.
///
/// Logs of pods made by containerd are where containerd's client put them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, id, or the beginning of one
    pod: String,
    /// Only this container; otherwise each line begins with the container's name
    #[arg(short, long)]
    container: Option<String>,
    /// Wait for more until the pod is over
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let elsewhere = "ask its client for the logs, `kubectl logs` or `crictl logs`";
    let record = Record::find(paths, &args.pod)
        .map_err(|error| shims::not_ours(error, &args.pod, elsewhere))?;
    let names = names(&record, args.container.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(print(paths, &record, &names, args.follow))?;
    Ok(ExitCode::SUCCESS)
}

fn names(record: &Record, wanted: Option<&str>) -> Result<Vec<String>, Error> {
    let all = record
        .containers
        .iter()
        .map(|container| container.name.clone());
    let all: Vec<_> = all.collect();
    match wanted {
        None => Ok(all),
        Some(wanted) if all.iter().any(|name| name == wanted) => Ok(vec![wanted.to_owned()]),
        Some(wanted) => Err(Error::NoSuchContainer {
            pod: record.name.clone(),
            container: wanted.to_owned(),
            names: all,
        }),
    }
}

async fn print(paths: &Paths, record: &Record, names: &[String], follow: bool) -> Result<()> {
    let (over, is_over) = watch::channel(!follow);
    let width = names.iter().map(String::len).max().unwrap_or_default();
    let mut printing = JoinSet::new();
    for name in names {
        let log = paths.log(&record.id, name);
        let prefix = if names.len() == 1 {
            String::new()
        } else {
            format!("{name:width$} | ")
        };
        let is_over = is_over.clone();
        // A container that has not been started has no log.
        if log.exists() {
            let tail = Mutex::new(Tail::open(&log, prefix)?);
            printing.spawn(async move { tail::print(&tail, is_over).await });
        }
    }
    let ended = async {
        while record.supervisor.is_some_and(process::is_alive) {
            sleep(POLL).await;
        }
        over.send_replace(true);
    };
    if follow {
        ended.await;
    }
    while let Some(printed) = printing.join_next().await {
        printed??;
    }
    Ok(())
}
