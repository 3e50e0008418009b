//! One run: who takes part, what is measured, and that nothing is left afterwards.
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use husk_engine::account::Account;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::bed::{Bed, tag};
use super::candidate::{Candidate, program};
use super::cri::{Cri, Handler, Network};
use super::floor::Floor;
use super::machine::Machine;
use super::measure::Measure;
use super::pod::Maker;
use super::pods_over_cri::Kubelet;
use super::report::{Described, Measured, Report};
use super::shims::{self, Lasting};
use super::turns::{Rounds, in_turn};
use super::{Args, policies};

/// What the floor is called in the results.
const FLOOR: &str = "floor";

/// How many pods the rounds of a measure make together, at most: 200 at once, three times.
const PODS: usize = 600;
/// The fewest rounds.
const FEW: usize = 3;

const LIFE: &str = "a container's life in a running shim: Create, Start, Wait, Delete of true";

/// A run that is going on.
struct Run<'a> {
    args: &'a Args,
    bed: &'a Bed,
    candidates: Vec<Candidate>,
    floor: Option<PathBuf>,
    /// Whether someone wants it to end.
    interrupted: watch::Receiver<bool>,
}

/// Who takes a turn in a container's life.
enum Liver<'a> {
    Shim(Lasting<'a>),
    Floor(Floor<'a>),
}

/// Measures what is asked for. Each measure clears away what it left, however it ended.
pub(crate) async fn all(args: &Args) -> Result<Report> {
    let machine = Machine::here();
    let candidates = if args.candidates.is_empty() {
        Candidate::found()
    } else {
        args.candidates.clone()
    };
    let baseline = baseline(args.baseline.as_deref(), &candidates)?;
    let bed = Bed::make().await?;
    let run = Run {
        args,
        bed: &bed,
        candidates,
        floor: floor(args.floor.as_ref())?,
        interrupted: interruption()?,
    };
    let measures = if args.measures.is_empty() {
        Measure::USUAL.to_vec()
    } else {
        args.measures.clone()
    };
    let mut described = run.described();
    if let Some(socket) = &args.containerd {
        let version = Cri::connect(socket, &args.image).await?.version().await?;
        described.push(Described {
            name: "CRI".into(),
            what: version,
        });
    }
    let mut measured = Vec::new();
    for measure in measures {
        measured.extend(run.measure(measure).await?);
    }
    Ok(Report {
        machine,
        candidates: described,
        baseline,
        warmups: args.warmups.into(),
        measures: measured,
    })
}

/// Whom the others are compared with; also checks that the names tell the candidates apart.
fn baseline(wanted: Option<&str>, candidates: &[Candidate]) -> Result<String> {
    let names: Vec<_> = candidates.iter().map(|one| one.name.as_str()).collect();
    let first = names
        .first()
        .context("there is nothing to measure: no shim is in PATH; name one with --candidate")?;
    for (at, name) in names.iter().enumerate() {
        let taken = names.iter().take(at).any(|other| other == name) || *name == FLOOR;
        ensure!(!taken, "the name {name} of a candidate is taken");
    }
    let usual = names.iter().find(|name| **name == "runc").unwrap_or(first);
    let baseline = wanted.unwrap_or(usual);
    ensure!(
        names.contains(&baseline),
        "the baseline {baseline} is none of the candidates {}",
        names.join(", ")
    );
    Ok(baseline.to_owned())
}

/// The program `husk-floor`; `None` if it was not asked for and is not there.
fn floor(asked: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    if let Some(path) = asked {
        return program(&path.to_string_lossy()).map(Some);
    }
    let own = std::env::current_exe().context("find husk's own binary")?;
    let beside = own.with_file_name("husk-floor");
    if beside.is_file() {
        return Ok(Some(beside));
    }
    Ok(program("husk-floor").ok())
}

/// Turns true at the first SIGINT or SIGTERM.
fn interruption() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_replace(true);
        // Whoever waits for it must not take the end of this task for the end of its hope.
        sender.closed().await;
    });
    Ok(receiver)
}

impl Run<'_> {
    fn described(&self) -> Vec<Described> {
        let floor = self.floor.iter().map(|floor| Described {
            name: FLOOR.into(),
            what: floor.display().to_string(),
        });
        let candidates = self.candidates.iter().map(|candidate| Described {
            name: candidate.name.clone(),
            what: candidate.describe(),
        });
        candidates.chain(floor).collect()
    }

    fn rounds(&self) -> Rounds {
        Rounds {
            warmups: self.args.warmups.into(),
            counted: self.args.rounds.into(),
        }
    }

    /// Many pods at once are measured less often: there are many figures in each round.
    fn rounds_of_pods(&self, count: usize) -> Rounds {
        let most = usize::from(self.args.rounds);
        Rounds {
            warmups: usize::from(count < FEW * FEW),
            counted: (PODS / count.max(1)).clamp(FEW.min(most), most),
        }
    }

    async fn measure(&self, measure: Measure) -> Result<Vec<Measured>> {
        match measure {
            Measure::Start => self.start().await,
            Measure::Life => self.life().await,
            Measure::Exec => self.exec().await,
            Measure::Pod => self.pod().await,
            Measure::Memory => {
                self.memory(&self.candidates, ["memory-1", "memory-3"])
                    .await
            }
            Measure::Pods => self.pods().await,
            Measure::Policies => self.policies().await,
            Measure::Cri => self.cri().await,
            Measure::CriPods => self.cri_pods().await,
        }
    }

    async fn start(&self) -> Result<Vec<Measured>> {
        let titles = [("start", "start, from its execution to its answer")];
        self.with(&self.candidates, async |makers| {
            let turn = async |maker: &mut &Maker<'_>| Ok([shims::start(maker).await?]);
            in_turn(titles, &mut named(makers), self.rounds(), turn).await
        })
        .await
    }

    async fn life(&self) -> Result<Vec<Measured>> {
        let floor = match &self.floor {
            Some(program) => {
                let account = self.account(FLOOR)?;
                Some(Floor::start(self.bed, program, account)?)
            }
            None => None,
        };
        self.lives(&self.candidates, "life", floor).await
    }

    /// The life of containers of these candidates, and of the floor's.
    async fn lives(
        &self,
        candidates: &[Candidate],
        name: &str,
        floor: Option<Floor<'_>>,
    ) -> Result<Vec<Measured>> {
        let account = floor.as_ref().map(|floor| floor.account.clone());
        let measured = self.with(candidates, async |makers| {
            let mut livers = Vec::new();
            for maker in makers {
                let lasting = Lasting::make(maker).await?;
                livers.push((maker.candidate.name.clone(), Liver::Shim(lasting)));
            }
            livers.extend(floor.map(|floor| (FLOOR.to_owned(), Liver::Floor(floor))));
            let turn = async |liver: &mut Liver<'_>| match liver {
                Liver::Shim(lasting) => Ok([lasting.life().await?]),
                Liver::Floor(floor) => Ok([floor.life().await?]),
            };
            let measured = in_turn([(name, LIFE)], &mut livers, self.rounds(), turn).await?;
            for (_, liver) in livers {
                if let Liver::Shim(lasting) = liver {
                    lasting.pod.end().await?;
                }
            }
            Ok(measured)
        });
        let measured = measured.await;
        if let Some(account) = account {
            account.remove().await?;
        }
        measured
    }

    async fn exec(&self) -> Result<Vec<Measured>> {
        let titles = [("exec", "an exec's life: Exec, Start, Wait, Delete of true")];
        self.with(&self.candidates, async |makers| {
            let mut pods = Vec::new();
            for maker in makers {
                pods.push((maker.candidate.name.clone(), Lasting::make(maker).await?));
            }
            let turn = async |pod: &mut Lasting<'_>| Ok([pod.exec().await?]);
            let measured = in_turn(titles, &mut pods, self.rounds(), turn).await?;
            for (_, lasting) in pods {
                lasting.pod.end().await?;
            }
            Ok(measured)
        })
        .await
    }

    async fn pod(&self) -> Result<Vec<Measured>> {
        let title = "a pod's life: start, sandbox, one container's life, until the shim is gone";
        self.with(&self.candidates, async |makers| {
            let turn = async |maker: &mut &Maker<'_>| Ok([shims::pod(maker).await?]);
            in_turn([("pod", title)], &mut named(makers), self.rounds(), turn).await
        })
        .await
    }

    async fn memory(&self, candidates: &[Candidate], names: [&str; 2]) -> Result<Vec<Measured>> {
        let titles = [
            "memory of a pod that stays, 1 container",
            "memory of a pod that stays, 3 containers",
        ];
        let [one, three] = names;
        let titles = match titles {
            [first, second] => [(one, first), (three, second)],
        };
        // Memory hardly differs from round to round.
        let rounds = Rounds {
            warmups: 1,
            counted: usize::from(self.args.rounds).div_ceil(4),
        };
        self.with(candidates, async |makers| {
            let turn = async |maker: &mut &Maker<'_>| shims::memory(maker).await;
            in_turn(titles, &mut named(makers), rounds, turn).await
        })
        .await
    }

    async fn pods(&self) -> Result<Vec<Measured>> {
        let mut measured = Vec::new();
        for count in self.args.pods.iter().copied().map(usize::from) {
            let (name, title) = (
                format!("pods-{count}"),
                format!("{count} pods at once: until all run; CPU and memory of each"),
            );
            let rounds = self.rounds_of_pods(count);
            let pods = self.with(&self.candidates, async |makers| {
                let turn = async |maker: &mut &Maker<'_>| Ok([shims::pods(maker, count).await?]);
                in_turn([(&name, &title)], &mut named(makers), rounds, turn).await
            });
            measured.extend(pods.await?);
        }
        Ok(measured)
    }

    async fn policies(&self) -> Result<Vec<Measured>> {
        let husk = self.candidates.iter().find(|candidate| candidate.is_husk());
        let husk = husk.context("policies: no candidate is husk's shim, and others have none")?;
        let variants = policies::variants(self.bed, husk, &self.args.plugins)?;
        let mut measured = self.lives(&variants, "policies-life", None).await?;
        let memory = self.memory(&variants, ["policies-memory-1", "policies-memory-3"]);
        measured.extend(memory.await?);
        Ok(measured)
    }

    async fn cri(&self) -> Result<Vec<Measured>> {
        let (all, mut measured) = (&self.args.handlers, Vec::new());
        for (name, network, whose) in [
            ("cri-node", Network::Node, "the node's network"),
            ("cri-cni", Network::Cni, "CNI's network"),
        ] {
            let fits = |handler: &&Handler| network == Network::Cni || handler.node_network;
            let handlers: Vec<_> = all.iter().filter(fits).cloned().collect();
            let title =
                format!("a pod's life over CRI, {whose}: sandbox, a container, an exec, the end");
            let lives = self.with_kubelets(&handlers, async |kubelets| {
                let turn = async |one: &mut Kubelet| Ok([one.life(network).await?]);
                in_turn([(name, &title)], kubelets, self.rounds(), turn).await
            });
            measured.extend(lives.await?);
        }
        Ok(measured)
    }

    async fn cri_pods(&self) -> Result<Vec<Measured>> {
        let mut measured = Vec::new();
        for count in self.args.pods.iter().copied().map(usize::from) {
            let name = format!("cri-pods-{count}");
            let title = format!("{count} pods at once over CRI: until all run; CPU of each");
            let rounds = self.rounds_of_pods(count);
            let pods = self.with_kubelets(&self.args.handlers, async |kubelets| {
                let turn = async |one: &mut Kubelet| Ok([one.pods(count).await?]);
                in_turn([(&name, &title)], kubelets, rounds, turn).await
            });
            measured.extend(pods.await?);
        }
        Ok(measured)
    }

    /// Does something with pods of each handler, and clears away what that left.
    async fn with_kubelets(
        &self,
        handlers: &[Handler],
        body: impl AsyncFnOnce(&mut [(String, Kubelet)]) -> Result<Vec<Measured>>,
    ) -> Result<Vec<Measured>> {
        let socket = self.args.containerd.as_deref();
        let socket = socket.context("measures over CRI need --containerd SOCKET")?;
        ensure!(
            !handlers.is_empty(),
            "measures over CRI need --handler NAME=HANDLER"
        );
        let cri = Cri::connect(socket, &self.args.image).await?;
        let mut kubelets = Vec::new();
        for handler in handlers {
            let account = self.account(&handler.name)?;
            let logs = self.bed.file("logs");
            let kubelet = Kubelet::new(cri.clone(), handler.clone(), account, logs);
            kubelets.push((handler.name.clone(), kubelet));
        }
        let mut interrupted = self.interrupted.clone();
        let done = tokio::select! {
            done = body(&mut kubelets) => done,
            _ = interrupted.wait_for(|interrupted| *interrupted) => Err(anyhow!("interrupted")),
        };
        for (name, kubelet) in kubelets {
            let cleared = kubelet.clear().await;
            cleared.with_context(|| format!("clear away what {name} left"))?;
        }
        done
    }

    fn account(&self, name: &str) -> Result<Account> {
        let path = format!("/{}/{name}", tag());
        Account::create(&path).with_context(|| format!("make the cgroup {path}"))
    }

    /// Does something with makers of pods for each candidate, and clears away what that left.
    async fn with<T>(
        &self,
        candidates: &[Candidate],
        body: impl AsyncFnOnce(&[Maker<'_>]) -> Result<T>,
    ) -> Result<T> {
        let mut makers = Vec::new();
        for candidate in candidates {
            let account = self.account(&candidate.name)?;
            makers.push(Maker::new(self.bed, candidate.clone(), account));
        }
        let mut interrupted = self.interrupted.clone();
        let done = tokio::select! {
            done = probed(&mut makers, body) => done,
            _ = interrupted.wait_for(|interrupted| *interrupted) => Err(anyhow!("interrupted")),
        };
        for maker in makers {
            let name = maker.candidate.name.clone();
            let cleared = maker.clear().await;
            if let Err(error) = cleared.with_context(|| format!("clear away what {name} left")) {
                if done.is_ok() {
                    return Err(error);
                }
                log::warn!("{error:#}");
            }
        }
        done
    }
}

async fn probed<T>(
    makers: &mut [Maker<'_>],
    body: impl AsyncFnOnce(&[Maker<'_>]) -> Result<T>,
) -> Result<T> {
    for maker in &mut *makers {
        let name = maker.candidate.name.clone();
        let probed = maker.probe().await;
        probed.with_context(|| format!("make a sandbox of {name}"))?;
    }
    body(makers).await
}

fn named<'a, 'b>(makers: &'a [Maker<'b>]) -> Vec<(String, &'a Maker<'b>)> {
    let named = makers
        .iter()
        .map(|maker| (maker.candidate.name.clone(), maker));
    named.collect()
}
