//! `husk install` and `husk uninstall`: husk as a runtime of this node's containerd.
//!
//! What is to be is worked out first, and shown or done: files are written whole and renamed, containerd is
//! asked beforehand what it would make of its configuration, and what it does not come back with is undone.
mod containerd;
mod files;
mod record;
mod service;
mod uninstall;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use husk_scope::config::Config;
use husk_terminal::messages::say;

use containerd::Sandboxer;
pub(crate) use containerd::{Containerd, run, runtimes};
use files::Change;
pub(crate) use files::Wanted;
use record::Record;
pub(crate) use record::{FILE as RECORD, digest_of};
pub(crate) use service::Service;
pub(crate) use uninstall::Args as UninstallArgs;
pub(crate) use uninstall::run as uninstall;

/// What containerd looks for husk's shim by: the program [`SHIM`] on its PATH.
pub(crate) const RUNTIME_TYPE: &str = "io.containerd.husk.v2";
pub(crate) const SHIM: &str = "containerd-shim-husk-v2";
/// What is installed; the first two must be there.
const PROGRAMS: [&str; 3] = [SHIM, "husk", "husk-bench"];

/// The handler that there is if nobody names one.
const DEFAULT_HANDLER: &str = "husk";
const RUNTIME_CLASSES: &str = "runtimeclasses.yaml";
/// Where plugins are, beside the configurations, and what their names end in.
const PLUGINS: &str = "plugins";
pub(crate) const COMPONENT: &str = "wasm";

/// What a pod costs besides its containers: the private memory of its shim, below 0.5 MB without plugins and
/// 1.1 MB with one, by `husk bench memory`.
const OVERHEAD: &str = "1200Ki";

/// Make husk a runtime of this node's containerd: programs, configurations of handlers, a drop-in for
/// containerd, which is restarted; pods run on
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A handler, and the configuration that its pods get; again for more [default: those installed, else husk]
    #[arg(long = "handler", value_name = "NAME[=FILE]")]
    handlers: Vec<Named>,
    /// Plugins, `*.wasm` in this directory, to be copied beside the configurations, into `plugins`; without it
    /// those that are there stay
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Where husk's programs are [default: where this one is]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// Where things are to be, and how.
#[derive(Clone, clap::Args)]
pub(crate) struct Place {
    /// Where handlers' configurations are
    #[arg(long, value_name = "DIR", default_value = "/etc/husk")]
    pub(crate) configs: PathBuf,
    /// Who makes pods' sandboxes
    #[arg(long, value_enum, default_value_t)]
    sandboxer: Sandboxer,
    /// Where programs are to be, a directory that containerd looks for shims in
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    bin: PathBuf,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// What `install` and `uninstall` have in common.
#[derive(Clone, clap::Args)]
pub(crate) struct Node {
    /// containerd's program
    #[arg(long, value_name = "PROGRAM", default_value = "containerd")]
    containerd: PathBuf,
    /// containerd's configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/containerd/config.toml"
    )]
    containerd_config: PathBuf,
    /// Leave it to somebody else to restart containerd
    #[arg(long)]
    no_restart: bool,
}

/// A handler, and the file that its configuration is a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: String,
    from: Option<PathBuf>,
}

impl Place {
    /// The same, as `husk install` is told it.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = self.node.words();
        let sandboxer = self.sandboxer.to_possible_value();
        let sandboxer = sandboxer.map_or_else(OsString::new, |it| it.get_name().into());
        words.extend(["--configs".into(), self.configs.clone().into()]);
        words.extend(["--sandboxer".into(), sandboxer]);
        words.extend(["--bin".into(), self.bin.clone().into()]);
        words
    }
}

impl Node {
    /// The same, as `husk install` and `husk uninstall` are told it.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = self.containerd_words();
        if self.no_restart {
            words.push("--no-restart".into());
        }
        words
    }

    /// The part of it that `husk doctor` is told, too.
    pub(crate) fn containerd_words(&self) -> Vec<OsString> {
        let config = self.containerd_config.clone();
        vec![
            "--containerd".into(),
            self.containerd.clone().into(),
            "--containerd-config".into(),
            config.into(),
        ]
    }
}

impl FromStr for Named {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, from) = match text.split_once('=') {
            Some((name, from)) => (name, Some(from.into())),
            None => (text, None),
        };
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            from,
        })
    }
}

/// A handler's name becomes the name of an object of Kubernetes, of a file and of a table; see RFC 1123.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = name.len() <= 63
        && name.chars().all(plain)
        && !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-');
    ensure!(
        is_label,
        "{name:?} cannot be a handler: use lower-case letters, digits and `-`, at most 63"
    );
    Ok(())
}

/// A handler of pods, as a RuntimeClass names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handler {
    pub(crate) name: String,
    /// What its configuration is a copy of, if it is to be replaced.
    from: Option<PathBuf>,
    /// Where its configuration is.
    pub(crate) config: PathBuf,
}

pub(crate) fn install(data: &Path, args: &Args) -> Result<ExitCode> {
    let record = Record::read(data)?;
    let handlers = handlers(args, record.as_ref())?;
    let containerd = Containerd::find(
        &args.place.node.containerd,
        &args.place.node.containerd_config,
    )?;
    let sandboxer = containerd.sandboxer(args.place.sandboxer);
    if sandboxer == "shim" && containerd.panics_at_host_network() {
        say(format_args!(
            "containerd {} panics at a pod with hostNetwork where the shim makes sandboxes; releases from \
             2.3 on do not",
            containerd.version
        ));
    }
    let service = Service::running().filter(|_| !args.place.node.no_restart);
    if let Some(service) = &service {
        let searched = service.search_path()?;
        ensure!(
            searched.contains(&args.place.bin),
            "containerd looks for shims in {searched:?}, not in {}: name one of those by --bin",
            args.place.bin.display()
        );
    }

    let files = containerd.with(&handlers, sandboxer)?;
    let mut wanted = programs(args.from.as_deref(), &args.place.bin)?;
    wanted.extend(configurations(&handlers)?);
    let plugins = args.place.configs.join(PLUGINS);
    if let Some(from) = &args.plugins {
        wanted.extend(components(from, &plugins)?);
    }
    wanted.push(Wanted::text(
        args.place.configs.join(RUNTIME_CLASSES),
        runtime_classes(&handlers),
    ));
    // A plugin stays as a configuration does: until somebody says what there is to be.
    let keeps = |path: &Path| {
        let is_plugin = args.plugins.is_none() && path.parent() == Some(&plugins);
        is_plugin || handlers.iter().any(|handler| handler.config == path)
    };
    let installed = Record::new(&handlers, &wanted, &containerd, record.as_ref(), keeps);
    wanted.extend(record.iter().flat_map(|it| it.obsolete(&installed)));
    let of_containerd = [
        Wanted::text(containerd.drop_in(), files.drop_in.clone()),
        Wanted::text(containerd.config.clone(), files.main.clone()),
    ];

    let (others, of_containerd) = (changes(wanted)?, changes(of_containerd)?);
    if !of_containerd.is_empty() {
        containerd.try_out(
            Some(&files.main),
            Some(&files.drop_in),
            &handlers,
            sandboxer,
        )?;
    }
    if args.dry_run {
        show(others.iter().chain(&of_containerd))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Known before it is there: whatever comes in between, `uninstall` finds it.
    installed.and(record.as_ref()).write(data)?;
    make(&others)?;
    let restarted = change_containerd(&containerd, service.as_ref(), &of_containerd)?;
    installed.finished()?.write(data)?;

    for change in others.iter().chain(&of_containerd) {
        say(change.done());
    }
    if others.is_empty() && of_containerd.is_empty() {
        say("nothing has changed: husk is installed");
    } else if !restarted && !of_containerd.is_empty() {
        say("containerd reads its configuration when it is started: restart it");
    }
    say(format_args!(
        "for a cluster: kubectl apply -f {}",
        args.place.configs.join(RUNTIME_CLASSES).display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Those that were named, else those that are there, else one.
fn handlers(args: &Args, record: Option<&Record>) -> Result<Vec<Handler>> {
    let mut named = args.handlers.clone();
    if named.is_empty() {
        let default = || vec![DEFAULT_HANDLER.to_owned()];
        let names = record.map_or_else(default, |it| it.handlers.clone());
        named = names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_>>()?;
    }
    let handlers: Vec<_> = named
        .into_iter()
        .map(|Named { name, from }| Handler {
            config: args.place.configs.join(format!("{name}.toml")),
            name,
            from,
        })
        .collect();
    let mut seen = BTreeSet::new();
    for handler in &handlers {
        ensure!(
            seen.insert(&handler.name),
            "the handler {} is named twice",
            handler.name
        );
    }
    Ok(handlers)
}

/// husk's programs in another directory; those beside this one unless others are named.
pub(crate) fn programs(from: Option<&Path>, to: &Path) -> Result<Vec<Wanted>> {
    let from = match from {
        Some(from) => from.to_owned(),
        None => {
            let own = std::env::current_exe().context("finding this program")?;
            own.parent()
                .context("this program has no directory")?
                .to_owned()
        }
    };
    let mut wanted = Vec::new();
    for (index, name) in PROGRAMS.iter().enumerate() {
        let path = from.join(name);
        if index >= 2 && !path.exists() {
            continue;
        }
        let content = fs::read(&path).with_context(|| {
            format!(
                "reading {}: build it by `crates/build`, or say --from",
                path.display()
            )
        })?;
        wanted.push(Wanted {
            path: to.join(name),
            content: Some(content),
            mode: 0o755,
        });
    }
    Ok(wanted)
}

/// The plugins of a directory in another one.
fn components(from: &Path, to: &Path) -> Result<Vec<Wanted>> {
    let reading = || format!("reading the plugins in {}", from.display());
    let mut wanted = Vec::new();
    for entry in fs::read_dir(from).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = entry.path();
        if path.extension().is_some_and(|it| it == COMPONENT) {
            wanted.push(Wanted {
                path: to.join(entry.file_name()),
                content: Some(fs::read(&path).with_context(reading)?),
                mode: 0o644,
            });
        }
    }
    Ok(wanted)
}

/// The configurations of handlers: copies of those that were named, and one that says nothing where there is
/// none. One that is there is the operator's.
fn configurations(handlers: &[Handler]) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for handler in handlers {
        let text = match &handler.from {
            Some(from) => fs::read_to_string(from)
                .with_context(|| format!("reading the configuration {}", from.display()))?,
            None if handler.config.exists() => {
                // It is not written, but must be one.
                check(&fs::read_to_string(&handler.config)?, &handler.config)?;
                continue;
            }
            None => format!(
                "# The configuration of the handler {}. Every key may be left out: husk's examples/config.toml \
                 has them all.\n",
                handler.name
            ),
        };
        check(&text, handler.from.as_deref().unwrap_or(&handler.config))?;
        wanted.push(Wanted::text(handler.config.clone(), text));
    }
    Ok(wanted)
}

fn check(text: &str, path: &Path) -> Result<()> {
    // The error names the file.
    Config::parse(&path.display().to_string(), text)?;
    Ok(())
}

fn runtime_classes(handlers: &[Handler]) -> String {
    let class = |Handler { name, .. }: &Handler| {
        format!(
            "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: {name}\nhandler: {name}\n\
             overhead:\n  podFixed:\n    memory: {OVERHEAD}\n"
        )
    };
    let classes: Vec<_> = handlers.iter().map(class).collect();
    format!(
        "# Written by `husk install`: pods choose one by `runtimeClassName`.\n{}",
        classes.join("---\n")
    )
}

fn changes(wanted: impl IntoIterator<Item = Wanted>) -> Result<Vec<Change>> {
    let changes = wanted.into_iter().map(Wanted::change);
    changes.filter_map(Result::transpose).collect()
}

fn show<'a>(changes: impl Iterator<Item = &'a Change>) -> Result<()> {
    let shown: String = changes.map(Change::shown).collect();
    if shown.is_empty() {
        say("nothing would change");
    }
    stdout().lock().write_all(shown.as_bytes())?;
    Ok(())
}

fn make(changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(Change::make)
}

/// Writes containerd's files and restarts it; if it does not come back with them, it gets back those it had.
/// Answers whether it was restarted.
fn change_containerd(
    containerd: &Containerd,
    service: Option<&Service>,
    changes: &[Change],
) -> Result<bool> {
    if changes.is_empty() {
        return Ok(false);
    }
    make(changes)?;
    let Some(service) = service else {
        return Ok(false);
    };
    let socket = socket(&containerd.dump()?);
    let Err(error) = service.restart(&socket) else {
        return Ok(true);
    };
    for change in changes.iter().rev() {
        change.undo()?;
    }
    let back = service.restart(&socket);
    let error = error.context("containerd did not start with husk in its configuration");
    Err(match back {
        Ok(()) => error.context("its configuration is what it was before, and it runs again"),
        Err(again) => error.context(format!(
            "its configuration is what it was before, and still it does not start: {again:#}"
        )),
    })
}

fn socket(dump: &toml::Table) -> PathBuf {
    let at = |path: &[&str]| {
        let mut value = dump.get(*path.first()?)?;
        for key in path.get(1..)? {
            value = value.get(key)?;
        }
        value.as_str().filter(|it| !it.is_empty())
    };
    let newer = at(&["plugins", "io.containerd.server.v1.grpc", "address"]);
    let address = newer.or_else(|| at(&["grpc", "address"]));
    PathBuf::from(address.unwrap_or("/run/containerd/containerd.sock"))
}
