//! The order in which plugins are told what has happened.
//!
//! Events are noted as they happen, under the pod's lock, and told in that order, one at a time, in
//! the background. A question waits until all that was noted before it is told. So what a plugin
//! hears of a pod is in the order in which it happened, and nothing is asked of a container whose
//! start the plugin has not heard of.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// The line in which events wait to be told.
#[derive(Debug, Default)]
pub(super) struct Order {
    noted: AtomicU64,
    told: watch::Sender<u64>,
}

/// An event's place in the line; the next one's turn comes when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    order: Arc<Order>,
    place: u64,
}

impl Order {
    /// Takes the next place.
    pub(super) fn note(self: &Arc<Self>) -> Turn {
        Turn {
            order: Arc::clone(self),
            place: self.noted.fetch_add(1, Ordering::SeqCst),
        }
    }

    /// Waits until everything that was noted before is told.
    pub(super) async fn settled(&self) {
        self.reached(self.noted.load(Ordering::SeqCst)).await;
    }

    async fn reached(&self, place: u64) {
        // The sender is here: it cannot be gone.
        let _ = self.told.subscribe().wait_for(|told| *told >= place).await;
    }
}

impl Turn {
    /// Waits until those before are told.
    pub(super) async fn comes(&self) {
        self.order.reached(self.place).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.place.saturating_add(1);
        self.order
            .told
            .send_modify(|told| *told = (*told).max(next));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinSet;

    use super::*;
    use crate::sync::lock;

    #[tokio::test]
    async fn events_are_told_in_the_order_in_which_they_were_noted() {
        let order = Arc::new(Order::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let turns: Vec<_> = (0..50).map(|_| order.note()).collect();
        let mut telling = JoinSet::new();
        // The last first: the scheduler is no help.
        for (number, turn) in turns.into_iter().enumerate().rev() {
            let told = Arc::clone(&told);
            telling.spawn(async move {
                turn.comes().await;
                tokio::task::yield_now().await;
                lock(&told).push(number);
            });
        }
        order.settled().await;
        assert_eq!(*lock(&told), (0..50).collect::<Vec<_>>());
        telling.join_all().await;
    }

    #[tokio::test]
    async fn nothing_noted_is_nothing_to_wait_for() {
        let order = Arc::new(Order::default());
        order.settled().await;
        drop(order.note());
        order.settled().await;
    }
}
