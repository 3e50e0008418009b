//! What the processes of pods keep to themselves.
use anyhow::Result;

use crate::maker::Maker;
use crate::stats::{Quantity, Sample};
use husk_node::process;

/// Private and proportional memory of all processes that stay for the candidate's pods, the
/// containers' own left out, for each of so many pods.
pub(crate) fn of(maker: &Maker<'_>, inits: &[i32], pods: usize) -> Result<Sample> {
    let (mut private, mut pss) = (0, 0);
    for pid in maker.account.processes()? {
        if inits.contains(&pid) {
            continue;
        }
        // One that ends while it is looked at does not stay.
        let memory = process::memory(pid).unwrap_or_default();
        private += memory.private_dirty;
        pss += memory.pss;
    }
    Ok(vec![
        (Quantity::PrivateDirtyKib, kib(private, pods)),
        (Quantity::PssKib, kib(pss, pods)),
    ])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no machine has 2^53 bytes of memory"
)]
fn kib(bytes: u64, pods: usize) -> f64 {
    bytes as f64 / 1024.0 / pods as f64
}
