//! `husk rm`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use husk_engine::network::Chosen;
use husk_engine::pod::{self, Engine, PAUSE, Paths, Record};
use husk_engine::shim::Binary;

use crate::shims;

/// How much longer than its grace period a pod may take before its supervisor is killed.
const PATIENCE: Duration = Duration::from_secs(40);

/// Remove pods that `husk run` made, with their logs and volumes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names, ids, or the beginning of one
    #[arg(required = true)]
    pods: Vec<String>,
    /// Stop a running pod first
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(paths: Paths, args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for wanted in &args.pods {
        let elsewhere = "remove it with its client, `kubectl`, `crictl` or `ctr`";
        let record = Record::find(&paths, wanted)
            .map_err(|error| shims::not_ours(error, wanted, elsewhere))?;
        let engine = Engine {
            paths: paths.clone(),
            shim: Binary::find(record.shim.to_str())?,
            manifests: PathBuf::new(),
            config: None,
            network: Chosen::default(),
            pause: PAUSE.into(),
            debug: false,
        };
        runtime.block_on(pod::remove(&engine, &record, args.force, PATIENCE))?;
    }
    Ok(ExitCode::SUCCESS)
}
