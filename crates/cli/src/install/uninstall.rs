//! `husk uninstall`.
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use husk_node::process;
use husk_scope::record::{FILE, Pod, STATE_DIR};
use husk_terminal::messages::say;

use super::files::Wanted;
use super::record::Record;
use super::{Containerd, Node, PLUGINS, Service, change_containerd, changes, make, show};

/// Take away what `husk install` has put on this node
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files that were changed since, too, such as handlers' configurations
    #[arg(long)]
    purge: bool,
    /// Even though pods run: nothing could be done with them any more
    #[arg(long)]
    force: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: Node,
}

pub(crate) fn run(data: &Path, args: &Args) -> Result<ExitCode> {
    let record = Record::read(data)?.with_context(|| {
        format!(
            "nothing is on record in {}: `husk install` has not been run here",
            data.display()
        )
    })?;
    let pods = pods(&record);
    ensure!(
        pods.is_empty() || args.force || args.dry_run,
        "pods run with this shim, and nothing could be done with them without it: {}. Remove them first",
        pods.join(", ")
    );
    let containerd = Containerd::find(&args.node.containerd, &record.containerd_config)?;
    let main = containerd.without(record.created)?;
    let of_containerd = [
        match &main {
            Some(text) => Wanted::text(containerd.config.clone(), text.clone()),
            None => Wanted::gone(containerd.config.clone()),
        },
        Wanted::gone(containerd.drop_in()),
    ];
    let of_containerd = changes(of_containerd)?;
    if !of_containerd.is_empty() {
        containerd.try_out(main.as_deref(), None, &[], "")?;
    }
    let others = if args.purge {
        record
            .files()
            .map(|path| Wanted::gone(path.to_owned()))
            .collect()
    } else {
        record.obsolete(&Record::default())
    };
    let others = changes(others)?;
    if args.dry_run {
        show(of_containerd.iter().chain(&others))?;
        return Ok(ExitCode::SUCCESS);
    }
    let kept: Vec<_> = record.changed().into_iter().map(Path::to_owned).collect();
    let service = Service::running().filter(|_| !args.node.no_restart);
    // First of all nobody may ask for the shim any more.
    let restarted = change_containerd(&containerd, service.as_ref(), &of_containerd)?;
    make(&others)?;
    for change in of_containerd.iter().chain(&others) {
        say(change.done());
        remove_empty(change.path());
    }
    for path in kept.iter().filter(|path| path.exists()) {
        say(format_args!(
            "kept, as it was changed since: {}",
            path.display()
        ));
    }
    Record::remove(data)?;
    if !restarted && !of_containerd.is_empty() {
        say("containerd reads its configuration when it is started: restart it");
    }
    Ok(ExitCode::SUCCESS)
}

/// Directories that installing may have made.
fn remove_empty(path: &Path) {
    let above = path.ancestors().skip(1).take(2);
    for dir in above.flat_map(|dir| [dir.join(PLUGINS), dir.to_owned()]) {
        let ours = ["husk", "husk/plugins", "conf.d"];
        if ours.into_iter().any(|it| dir.ends_with(it)) {
            // Refused while there is something in it.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Pods whose shim is of the installation: of its file as it is, or of one that it has replaced.
fn pods(record: &Record) -> Vec<String> {
    let shims = record.shims();
    let below = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let all = below(Path::new(STATE_DIR));
    let records = all.iter().flat_map(|namespace| below(namespace));
    let pods = records.filter_map(|dir| {
        let text = fs::read(dir.join(FILE)).ok()?;
        serde_json::from_slice::<Pod>(&text).ok()
    });
    let ours = pods.filter(|pod| {
        let shim = pod.shim.filter(|shim| process::is_alive(*shim));
        shim.is_some_and(|shim| {
            let program = PathBuf::from(format!("/proc/{}/exe", shim.pid));
            let found = fs::metadata(program);
            found.is_ok_and(|it| shims.contains(&(it.dev(), it.ino())))
        })
    });
    ours.map(|pod| match pod.name.as_str() {
        "" => pod.id,
        name => name.to_owned(),
    })
    .collect()
}
