//! The measures that need no containerd.
use anyhow::{Context as _, Result};

use super::{FLOOR, Run};
use crate::candidate::Candidate;
use crate::floor::Floor;
use crate::links;
use crate::maker::Maker;
use crate::policies;
use crate::report::Measured;
use crate::shims::{self, Lasting};
use crate::turns::{Rounds, in_turn};

const LIFE: &str = "a container's life in a running shim: Create, Start, Wait, Delete of true";

/// Who takes a turn in a container's life.
enum Liver<'a> {
    Shim(Lasting<'a>),
    Floor(Floor<'a>),
}

impl Run<'_> {
    pub(super) async fn start(&self) -> Result<Vec<Measured>> {
        let titles = [("start", "start, from its execution to its answer")];
        self.with(&self.candidates, async |makers| {
            let turn = async |maker: &mut &Maker<'_>| Ok([shims::start(maker).await?]);
            in_turn(titles, &mut named(makers), self.rounds(), turn).await
        })
        .await
    }

    pub(super) async fn life(&self) -> Result<Vec<Measured>> {
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

    pub(super) async fn exec(&self) -> Result<Vec<Measured>> {
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

    pub(super) async fn pod(&self) -> Result<Vec<Measured>> {
        let title = "a pod's life: start, sandbox, one container's life, until the shim is gone";
        self.with(&self.candidates, async |makers| {
            let turn = async |maker: &mut &Maker<'_>| Ok([shims::pod(maker).await?]);
            in_turn([("pod", title)], &mut named(makers), self.rounds(), turn).await
        })
        .await
    }

    pub(super) async fn memory(
        &self,
        candidates: &[Candidate],
        names: [&str; 2],
    ) -> Result<Vec<Measured>> {
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

    pub(super) async fn pods(&self) -> Result<Vec<Measured>> {
        let mut measured = Vec::new();
        for count in self.args.pods.iter().copied().map(usize::from) {
            let (name, title) = (
                format!("pods-{count}"),
                format!("pods made at once, {count}: until all run; CPU and memory of each"),
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

    pub(super) async fn policies(&self) -> Result<Vec<Measured>> {
        let husk = self.candidates.iter().find(|candidate| candidate.is_husk());
        let husk = husk.context("policies: no candidate is husk's shim, and others have none")?;
        let variants = policies::variants(self.bed, husk, &self.args.plugins)?;
        let mut measured = self.lives(&variants, "policies-life", None).await?;
        let memory = self.memory(&variants, ["policies-memory-1", "policies-memory-3"]);
        measured.extend(memory.await?);
        Ok(measured)
    }

    pub(super) async fn links(&self) -> Result<Vec<Measured>> {
        let husk = self.candidates.iter().find(|candidate| candidate.is_husk());
        let husk = husk.context("links: no candidate is husk's shim, and others have none")?;
        let rounds = Rounds {
            warmups: 1,
            counted: usize::from(self.args.rounds).div_ceil(4),
        };
        let carriers = [links::carrier(self.bed, husk)?];
        let others = [self.account("haproxy")?, self.account("socat")?];
        let measured = self.with(&carriers, async |makers| {
            let maker = makers.first().context("there is no pod to link")?;
            links::traffic(maker, others.each_ref(), rounds).await
        });
        let measured = measured.await;
        for account in others {
            account.remove().await?;
        }
        let mut measured = measured?;
        let most = usize::from(self.args.rounds) + usize::from(self.args.warmups);
        let variants = links::variants(self.bed, husk, most)?;
        measured.extend(self.lives(&variants, "links-life", None).await?);
        let memory = self.memory(&variants, ["links-memory-1", "links-memory-3"]);
        measured.extend(memory.await?);
        Ok(measured)
    }
}

fn named<'a, 'b>(makers: &'a [Maker<'b>]) -> Vec<(String, &'a Maker<'b>)> {
    let named = makers
        .iter()
        .map(|maker| (maker.candidate.name.clone(), maker));
    named.collect()
}
