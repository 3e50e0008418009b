//! `husk run`.
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use husk_engine::manifest::{self, Pod};
use husk_engine::network::{Kind, Published, Wanted};
use husk_engine::pod::{self, Engine, Observer, Outcome, Paths, Stop};
use husk_engine::shim::Binary;
use nix::unistd::geteuid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::printer::{Log, Printer};
use crate::{detach, tail};
use husk_terminal::messages::say;

/// Run the pod of a Kubernetes manifest.
///
/// Its containers' output is printed line by line. Ctrl-C stops the pod: each container gets its
/// stop signal and, after the grace period, SIGKILL; a second Ctrl-C kills at once. The exit
/// status is that of the first container that failed.
///
/// Unless it says hostNetwork: true, a pod has a network of its own, which pasta, or the plugins of
/// CNI, lead to others.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The manifest; `-` reads stdin
    file: PathBuf,
    /// A shim v2: a path, a file name or a runtime type such as io.containerd.runc.v2 [default:
    /// containerd-shim-husk-v2, beside husk or in PATH]
    #[arg(long, value_name = "SHIM")]
    shim: Option<String>,
    /// The handler's configuration, given to the shim
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The pod's network: nothing but loopback; the node's; what pasta (of the package passt) carries; or
    /// what the plugins of CNI make [default: pasta where it is installed, else none]
    #[arg(long, value_name = "none|host|pasta|cni", value_parser = network)]
    network: Option<Kind>,
    /// Let a port of the node lead to one of the pod, beside the manifest's hostPort
    #[arg(short, long, value_name = "[ADDRESS:]NODE:POD[/tcp|/udp]")]
    publish: Vec<Published>,
    /// Where lists of CNI plugins are; the first, by name, is used
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_lists: PathBuf,
    /// Where CNI plugins are
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_programs: PathBuf,
    /// Return once every container runs
    #[arg(short, long)]
    detach: bool,
    /// Watch over a pod for `husk run --detach`
    #[arg(long, hide = true, conflicts_with = "detach")]
    supervise: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args, verbose: u8) -> Result<ExitCode> {
    let pod = read(&args.file)?;
    ensure!(
        geteuid().is_root(),
        "husk run makes namespaces, mounts and cgroups: run it as root"
    );
    let engine = engine(paths, args, &pod, verbose)?;
    if !args.detach {
        for word in &engine.network.left_aside {
            say(format_args!("{}: {word}", args.file.display()));
        }
    }
    if args.detach {
        return detach::start(&pod.name);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ran = runtime.block_on(async {
        if args.supervise {
            supervise(&engine, pod).await
        } else {
            attached(&engine, pod).await
        }
    })?;
    Ok(match ran.failed {
        None => ExitCode::SUCCESS,
        // Statuses are those of wait(2), 0 to 255.
        Some((_, code)) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
    })
}

fn network(name: &str) -> Result<Kind, String> {
    match name {
        "none" => Ok(Kind::None),
        "host" => Ok(Kind::Host),
        "pasta" => Ok(Kind::Pasta),
        "cni" => Ok(Kind::Cni),
        _ => Err(String::from("it is none, host, pasta or cni")),
    }
}

/// Reads a manifest; `-` is stdin.
pub(crate) fn read(file: &Path) -> Result<Pod> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("cannot read the manifest {}", file.display()))?;
    let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make a uid")?;
    let name = file.display().to_string();
    let pod = manifest::parse(&name, &text, uid.trim())?;
    for word in &pod.left_aside {
        say(format_args!("{name}: {word}"));
    }
    Ok(pod)
}

fn engine(paths: &Paths, args: &Args, pod: &Pod, verbose: u8) -> Result<Engine> {
    let wanted = Wanted {
        network: args.network,
        published: args.publish.clone(),
        cni_lists: args.cni_lists.clone(),
        cni_programs: args.cni_programs.clone(),
    };
    let absolute = |path: &PathBuf| {
        path.canonicalize()
            .with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Engine {
        paths: paths.clone(),
        manifests: manifests(&args.file)?,
        shim: Binary::find(args.shim.as_deref())?,
        config: args.config.as_ref().map(absolute).transpose()?,
        network: wanted.choose(pod.host_network, &pod.host_ports)?,
        pause: std::env::current_exe().context("cannot find husk's own binary")?,
        debug: verbose > 0,
    })
}

/// The manifest's directory; that of this process for stdin.
pub(crate) fn manifests(file: &Path) -> Result<PathBuf> {
    let dir = match file.parent() {
        Some(dir) if file != Path::new("-") && dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    dir.canonicalize()
        .with_context(|| format!("cannot find {}", dir.display()))
}

/// Runs a pod with its output on this terminal; nothing is kept of it.
async fn attached(engine: &Engine, pod: Pod) -> Result<Outcome> {
    let names = pod.init_containers.iter().chain(&pod.containers);
    let names = names.map(|container| container.name.clone()).collect();
    let (logs, follow) = mpsc::unbounded_channel();
    let observer = Arc::new(Printer::new(names, Some(logs)));
    let stop = stop_on_signals(&pod, Arc::<Printer>::clone(&observer))?;
    let (over, is_over) = watch::channel(false);
    let followers = tokio::spawn(follow_logs(follow, is_over));

    let ran = pod::run(engine, pod, false, observer, stop).await;
    over.send_replace(true);
    followers.await??;
    Ok(ran?)
}

/// Runs a pod for `husk run --detach`: its record and logs stay until `husk rm`.
async fn supervise(engine: &Engine, pod: Pod) -> Result<Outcome> {
    detach::leave_the_terminal_s_session()?;
    let names = pod.init_containers.iter().chain(&pod.containers);
    let names = names.map(|container| container.name.clone()).collect();
    let observer = Arc::new(detach::Reporter::new(
        Printer::new(names, None),
        &engine.paths,
    ));
    let stop = stop_on_signals(&pod, Arc::<detach::Reporter>::clone(&observer))?;
    Ok(pod::run(engine, pod, true, observer, stop).await?)
}

/// The first SIGINT or SIGTERM stops gently, the second at once.
fn stop_on_signals(pod: &Pod, observer: Arc<dyn Observer>) -> Result<watch::Sender<Stop>> {
    let (stop, _) = watch::channel(Stop::Not);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, grace) = (stop.clone(), pod.grace);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let next = match *sender.borrow() {
                Stop::Not => Stop::Gently,
                Stop::Gently | Stop::Now => Stop::Now,
            };
            match next {
                Stop::Gently => observer.notice(&pod::Notice::Stopping { grace }),
                _ => say("killing"),
            }
            sender.send_replace(next);
        }
    });
    Ok(stop)
}

/// Prints the logs of containers as they are started.
async fn follow_logs(
    mut logs: mpsc::UnboundedReceiver<Log>,
    mut over: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut printing = JoinSet::new();
    let until = over.clone();
    let mut follow = |log: Log| {
        let over = until.clone();
        printing.spawn(async move { tail::print(&*log?, over).await });
    };
    loop {
        tokio::select! {
            biased;
            Some(log) = logs.recv() => follow(log),
            _ = over.wait_for(|over| *over) => break,
        }
    }
    while let Some(printed) = printing.join_next().await {
        printed??;
    }
    Ok(())
}
