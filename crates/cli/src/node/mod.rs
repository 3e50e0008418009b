//! `husk node`: installs husk on a node and keeps it as a directory says; tells how it is.
mod decisions;
mod http;
mod keep;
mod metrics;
mod pods;
mod root;
mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use husk_scope::record::STATE_DIR;
use husk_terminal::messages::{self, say};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::doctor::{Finding, State};
use crate::install::Place;
use decisions::Decisions;
use http::Page;
use keep::{Keeper, Refused};
use metrics::Metrics;
use pods::Watch;
use root::Root;
use source::{Fingerprint, Source};

/// How long until it is tried again to install what could not be installed: containerd may have been restarted
/// for it, and that is not to be done all the time.
const AGAIN: Duration = Duration::from_secs(600);

/// What stands for the directory among the files that are not taken.
const DIRECTORY: &str = "(the directory)";

/// Install husk on this node, keep handlers' configurations and plugins as a directory says, and tell how the node
/// is: what a DaemonSet runs. SIGTERM ends it, and leaves what is installed
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory with handlers' configurations, NAME.toml, and plugins, *.wasm, such as a mounted ConfigMap; it
    /// may change
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Where the node's root is mounted, if this runs in a container
    #[arg(long, value_name = "DIR", default_value = "/")]
    host_root: PathBuf,
    /// A process of the node's, to run the node's programs where it runs; with --host-root
    #[arg(long, value_name = "PID", default_value_t = 1)]
    host_process: i32,
    /// Take husk away from this node, instead, once no pods run with it
    #[arg(long)]
    uninstall: bool,
    /// Where /healthz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9790")]
    listen: SocketAddr,
    /// How often to look at the directory and at pods, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// How often to look at the node as `husk doctor` does, and whether it still is as it was made, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86400))]
    examine: u64,
    /// The audit record that decisions are counted from
    #[arg(long, value_name = "FILE", default_value = "/var/log/husk/audit.jsonl")]
    audit: PathBuf,
    /// Where husk's programs are [default: where this one is]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// # Errors
/// The address cannot be listened at. A node that cannot be made ready is no error: it is told, and tried again.
pub(crate) fn run(data: &Path, args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("listening at {}", args.listen))?;
        say(format_args!(
            "/healthz and /metrics are at {}",
            listener.local_addr()?
        ));
        let (tell, told) = watch::channel(Arc::new(Page {
            problems: vec!["it is being installed".to_owned()],
            metrics: String::new(),
        }));
        tokio::spawn(http::serve(listener, told));
        let mut node = Node::new(data, args)?;
        let mut tick = tokio::time::interval(Duration::from_secs(args.interval));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // What is being done to the node is done before it ends.
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = tick.tick() => {
                    tell.send_replace(Arc::new(node.tick().await));
                }
            }
        }
        say("ends; what is installed stays");
        Ok(ExitCode::SUCCESS)
    })
}

struct Node<'a> {
    args: &'a Args,
    root: Root,
    keeper: Keeper,
    metrics: Metrics,
    watch: Watch,
    decisions: Decisions,
    /// What the directory was when the node was made so.
    made: Option<Fingerprint>,
    /// When it is to be made anew, whether or not the directory has changed.
    due: Instant,
    /// Why it could not be made.
    failure: Option<String>,
    refused: Refused,
    findings: Vec<Finding>,
}

impl<'a> Node<'a> {
    fn new(data: &Path, args: &'a Args) -> Result<Self> {
        let root = Root::new(args.host_root.clone(), args.host_process);
        let audit = root
            .path(&args.audit)
            .unwrap_or_else(|_| args.audit.clone());
        Ok(Self {
            args,
            keeper: Keeper::new(root.clone(), args.place.clone(), data, args.from.as_deref())?,
            root,
            metrics: Metrics::new(),
            watch: Watch::default(),
            decisions: Decisions::new(audit),
            made: None,
            due: Instant::now(),
            failure: None,
            refused: Refused::new(),
            findings: Vec::new(),
        })
    }

    async fn tick(&mut self) -> Page {
        if let Err(error) = self.keep().await {
            let doing = if self.args.uninstall {
                "taking husk away from this node"
            } else {
                "installing husk on this node"
            };
            let error = error.context(doing);
            messages::error("husk", &error);
            self.metrics.count_failure();
            self.failure = Some(format!("{error:#}"));
            let again = if self.args.uninstall {
                Duration::from_secs(self.args.examine)
            } else {
                AGAIN
            };
            self.due = Instant::now() + again;
        }
        self.look();
        let problems = self.problems();
        self.metrics.set_ready(problems.is_empty());
        Page {
            problems,
            metrics: self.metrics.text(),
        }
    }

    /// Makes the node as it is to be, if the directory has changed or it is time to see to it.
    async fn keep(&mut self) -> Result<()> {
        let is_due = Instant::now() >= self.due;
        if self.args.uninstall {
            if is_due {
                self.due = Instant::now() + Duration::from_secs(self.args.examine);
                self.keeper.remove().await?;
                self.failure = None;
            }
            return Ok(());
        }
        let source = self.args.source.as_deref().map(Source::read).transpose();
        let source = match source {
            // One that is not mounted yet, or no more, says nothing.
            Err(error) => {
                let why = format!("{error:#}");
                if self.made.is_none() {
                    self.failure = Some(why.clone());
                }
                self.refuse(DIRECTORY, &why);
                return Ok(());
            }
            Ok(source) => source,
        };
        if self.refused.remove(DIRECTORY).is_some() {
            self.metrics.set_refused(self.refused.len());
        }
        let fingerprint = source.as_ref().map(Source::fingerprint).unwrap_or_default();
        if !is_due && self.made.as_ref() == Some(&fingerprint) {
            return Ok(());
        }
        // It is remembered even if it fails: it would fail again.
        self.made = Some(fingerprint);
        let refused = self.keeper.step(source.as_ref()).await?;
        for (file, why) in &refused {
            if self.refused.get(file) != Some(why) {
                say(format_args!(
                    "{file} is not taken, and what was there before stays: {why}"
                ));
            }
        }
        let untold = source.map_or(0, |it| it.untold);
        self.metrics
            .set_refused(refused.len().saturating_add(untold));
        self.refused = refused;
        self.failure = None;
        self.metrics.set_installed_now();
        self.due = Instant::now() + Duration::from_secs(self.args.examine);
        self.examine().await
    }

    fn refuse(&mut self, file: &str, why: &str) {
        if self.refused.get(file).map(String::as_str) != Some(why) {
            say(why);
            self.refused.insert(file.to_owned(), why.to_owned());
        }
        self.metrics.set_refused(self.refused.len());
    }

    async fn examine(&mut self) -> Result<()> {
        let findings = self.keeper.findings().await?;
        for finding in &findings {
            let is_new = !self.findings.contains(finding);
            if finding.state != State::Ok && is_new {
                say(finding);
            }
        }
        self.metrics.set_findings(&findings);
        self.findings = findings;
        Ok(())
    }

    fn look(&mut self) {
        let state = self.root.path(Path::new(STATE_DIR));
        let (pods, cgroups) =
            pods::of_node(&state.unwrap_or_else(|_| STATE_DIR.into()), self.root.dir());
        self.metrics.set_pods(&self.watch.look(&pods, &cgroups));
        self.metrics.count_decisions(self.decisions.next());
        if let (Ok(dir), Ok(handlers)) = (self.keeper.in_force(), self.keeper.handlers()) {
            self.metrics.set_configurations(&dir, &handlers);
        }
    }

    /// Why no pods should come to this node.
    fn problems(&self) -> Vec<String> {
        let errors = self.findings.iter().filter(|it| it.state == State::Error);
        let errors = errors.map(ToString::to_string);
        self.failure.iter().cloned().chain(errors).collect()
    }
}
