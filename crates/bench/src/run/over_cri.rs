//! The measures over CRI.
use anyhow::{Context as _, Result, anyhow, ensure};

use super::Run;
use crate::cri::{Cri, Network};
use crate::handler::Handler;
use crate::pods_over_cri::Kubelet;
use crate::report::Measured;
use crate::turns::in_turn;

impl Run<'_> {
    pub(super) async fn cri(&self) -> Result<Vec<Measured>> {
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

    pub(super) async fn cri_pods(&self) -> Result<Vec<Measured>> {
        let mut measured = Vec::new();
        for count in self.args.pods.iter().copied().map(usize::from) {
            let name = format!("cri-pods-{count}");
            let title = format!("pods made at once over CRI, {count}: until all run; CPU of each");
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
}
