//! `husk exec`.
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use husk_engine::pod::{self, ContainerRecord, Control, Exec, Paths, Request};
use husk_engine::shim::{Shim, address_of};
use husk_scope::record;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, stdin};
use tokio::signal::unix::{SignalKind, signal};

use crate::shims;
use husk_terminal::{self as terminal, Raw};

/// Run a command in a container of a running pod.
///
/// Pods made by containerd with husk's shim are named by their sandbox's id, or its beginning. The
/// exit status is the command's.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, id, or the beginning of one
    pod: String,
    /// The container [default: the pod's first]
    #[arg(short, long)]
    container: Option<String>,
    /// Pass stdin on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// A container to run something in.
struct Target {
    address: String,
    version: u32,
    container: String,
    bundle: PathBuf,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let target = target(paths, args)?;
    // Before the terminal is raw, so that what goes wrong until then can be read.
    let raw = if args.tty { Some(Raw::set()?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ran = runtime.block_on(execute(paths, target, args));
    drop(raw);
    // A read of stdin cannot be cancelled and must not keep the command from ending.
    runtime.shutdown_background();
    Ok(ExitCode::from(u8::try_from(ran?).unwrap_or(u8::MAX)))
}

fn target(paths: &Paths, args: &Args) -> Result<Target> {
    match pod::Record::find(paths, &args.pod) {
        Ok(record) => own(paths, &record, args),
        Err(pod::Error::NoSuchPod(_)) => containerds(args),
        Err(error) => Err(error.into()),
    }
}

fn own(paths: &Paths, record: &pod::Record, args: &Args) -> Result<Target> {
    let name = |container: &ContainerRecord| container.name.clone();
    let container = choose(args, &record.containers, name, |container| !container.init)?;
    ensure!(
        container.status == pod::Status::Running,
        "container {} of pod {} does not run; see `husk ps`",
        container.name,
        record.name
    );
    Ok(Target {
        address: record.address.clone(),
        version: record.version,
        container: container.id.clone(),
        bundle: paths.bundle(&record.id, &container.id),
    })
}

/// A pod that containerd made with husk's shim: its record says where the shim listens.
fn containerds(args: &Args) -> Result<Target> {
    let pod = shims::find(&args.pod)?;
    let name = |container: &record::Container| container.name.clone();
    // A pause container has the sandbox's id.
    let container = choose(args, &pod.containers, name, |container| {
        container.id != pod.id
    })?;
    Ok(Target {
        address: address_of(&pod.socket),
        version: 3,
        container: container.id.clone(),
        bundle: container.bundle.clone(),
    })
}

/// The container of the wanted name; the first that is `usual`, or simply the first, if none is
/// wanted.
fn choose<'a, Container>(
    args: &Args,
    containers: &'a [Container],
    name: impl Fn(&Container) -> String,
    usual: impl Fn(&Container) -> bool,
) -> Result<&'a Container> {
    let found = match &args.container {
        Some(wanted) => containers
            .iter()
            .find(|container| name(container) == *wanted),
        None => containers
            .iter()
            .find(|container| usual(container))
            .or(containers.first()),
    };
    let Some(found) = found else {
        ensure!(!containers.is_empty(), "pod {} has no container", args.pod);
        return Err(pod::Error::NoSuchContainer {
            pod: args.pod.clone(),
            container: args.container.clone().unwrap_or_default(),
            names: containers.iter().map(name).collect(),
        }
        .into());
    };
    Ok(found)
}

async fn execute(paths: &Paths, target: Target, args: &Args) -> Result<u32> {
    let shim = Shim::connect(&target.address, target.version).await?;
    fs::create_dir_all(&paths.state)
        .with_context(|| format!("cannot make {}", paths.state.display()))?;
    let request = Request {
        container: target.container,
        bundle: target.bundle,
        args: args.command.clone(),
        stdin: args.interactive,
        terminal: args.tty,
    };
    let mut exec = Exec::start(shim.task(), &request, &paths.state).await?;
    let control = exec.control();
    if let Some(to) = exec.stdin.take() {
        let control = control.clone();
        tokio::spawn(async move {
            if let Err(error) = copy_stdin(to, &control).await {
                log::debug!("stdin: {error}");
            }
        });
    }
    if args.tty {
        tokio::spawn(follow_size(control.clone()));
    }
    let stderr = async {
        match exec.stderr.take() {
            Some(from) => copy(from, tokio::io::stderr()).await,
            None => Ok(()),
        }
    };
    let (out, err, exit) = tokio::join!(
        copy(exec.stdout, tokio::io::stdout()),
        stderr,
        control.wait()
    );
    let exit = exit?;
    out.and(err)
        .context("cannot pass on what the command wrote")?;
    Ok(exit.code)
}

/// Copies as things come; a terminal cannot wait for a full buffer.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(text) = buffer.get(..count).filter(|text| !text.is_empty()) else {
            return Ok(());
        };
        to.write_all(text).await?;
        to.flush().await?;
    }
}

async fn copy_stdin(to: impl AsyncWrite + Unpin, control: &Control) -> Result<()> {
    copy(stdin(), to).await?;
    // The fifo is closed above; the shim must let go of its end too (contract 40).
    Ok(control.close_stdin().await?)
}

/// Tells the command's terminal the size of this one, now and whenever it changes.
async fn follow_size(control: Control) -> Result<()> {
    if !io::stdout().is_terminal() {
        return Ok(());
    }
    let mut changed = signal(SignalKind::window_change())?;
    loop {
        if let Some((width, height)) = terminal::size()
            && let Err(error) = control.resize(width, height).await
        {
            log::debug!("resizing: {error}");
        }
        changed.recv().await;
    }
}
