//! One run: who takes part, what is measured, and that nothing is left afterwards.
mod at_the_shim;
mod over_cri;
mod setup;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use husk_engine::account::Account;
use tokio::sync::watch;

use crate::Args;
use crate::bed::{Bed, tag};
use crate::candidate::Candidate;
use crate::cri::Cri;
use crate::machine::Machine;
use crate::maker::Maker;
use crate::measure::Measure;
use crate::report::{Described, Measured, Report};
use crate::turns::Rounds;
use husk_terminal::messages;

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

/// Measures what is asked for, and says whether all of it could be. Each measure clears away what
/// it left, however it ended.
pub(crate) async fn all(args: &Args) -> Result<(Report, bool)> {
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
    let (mut measured, mut complete) = (Vec::new(), true);
    for measure in measures {
        match run.measure(measure).await {
            Ok(more) => measured.extend(more),
            // What was measured until now may have taken long: it is not lost.
            Err(error) => {
                messages::error("husk bench", &error);
                complete = false;
            }
        }
        if *run.interrupted.borrow() {
            break;
        }
    }
    let report = Report {
        machine,
        candidates: described,
        baseline,
        warmups: args.warmups.into(),
        measures: measured,
    };
    Ok((report, complete))
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
            Measure::Links => self.links().await,
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
