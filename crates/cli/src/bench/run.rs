//! One run: who takes part, what is measured, and that nothing is left afterwards.
mod at_the_shim;
mod over_cri;
mod setup;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use husk_engine::account::Account;
use tokio::sync::watch;

use super::Args;
use super::bed::{Bed, tag};
use super::candidate::Candidate;
use super::cri::Cri;
use super::machine::Machine;
use super::maker::Maker;
use super::measure::Measure;
use super::report::{Described, Measured, Report};
use super::turns::Rounds;

/// What the floor is called in the results.
const FLOOR: &str = "floor";

/// How many pods the rounds of a measure make together, unless the fewest rounds make more.
const PODS: usize = 300;
/// The fewest rounds.
const FEW: usize = 3;

/// A run that is going on.
struct Run<'a> {
    args: &'a Args,
    bed: &'a Bed,
    candidates: Vec<Candidate>,
    floor: Option<PathBuf>,
    /// Whether someone wants it to end.
    interrupted: watch::Receiver<bool>,
}

/// Measures what is asked for. Each measure clears away what it left, however it ended.
pub(crate) async fn all(args: &Args) -> Result<Report> {
    let machine = Machine::here();
    let candidates = if args.candidates.is_empty() {
        Candidate::found()
    } else {
        args.candidates.clone()
    };
    let baseline = setup::baseline(args.baseline.as_deref(), &candidates)?;
    let bed = Bed::make().await?;
    let run = Run {
        args,
        bed: &bed,
        candidates,
        floor: setup::floor(args.floor.as_ref())?,
        interrupted: setup::interruption()?,
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

impl Run<'_> {
    fn described(&self) -> Vec<Described> {
        let floor = self.floor.iter().map(|_| Described {
            name: FLOOR.into(),
            what: String::from("husk-floor, the least that a container takes"),
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
