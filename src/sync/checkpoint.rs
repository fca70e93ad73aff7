//! Checkpoints that the chain in the store breaks: named after it was stored, or by another program.

use super::service::Service;
use crate::{
    chain::unix_now,
    source::job::{Genesis, SyncStatus},
    store::StoreError,
};

impl Service {
    /// Rewinds the chain below the first checkpoint at which it has another block.
    pub(super) async fn enforce_checkpoints(&mut self) -> Result<(), StoreError> {
        let indexes: Vec<_> = self.network.checkpoints.iter().map(|point| point.index).collect();
        if indexes.is_empty() {
            return Ok(());
        }
        let ours = self.store.canonical_hashes(&indexes).await?;
        let broken = |index: u64, hash: &str| ours.get(&index).is_some_and(|ours| ours != hash);
        let points = self.network.checkpoints.iter().filter(|point| broken(point.index, &point.hash));
        let Some(point) = points.min_by_key(|point| point.index).cloned() else { return Ok(()) };
        let reason = format!("the network's checkpoint at {} has another block", point.index);
        let mut writer = self.store.write().await?;
        writer.clear_stage().await?;
        let rewound = writer.rewind(point.index.checked_sub(1), &reason, Some(&point.hash), unix_now()).await?;
        writer.commit().await?;
        if point.index == 0 && self.network.genesis_hash.is_none() {
            // Another genesis is needed than the one that was settled for.
            Genesis::open(&*self.store).await?;
        }
        tracing::warn!(
            checkpoint = point.index,
            blocks = rewound,
            "the chain in the store was rewound below a checkpoint"
        );
        let told = format!("{reason}: {rewound} blocks were taken back, and a chain that has it is waited for");
        self.rewound = Some((point.index, told));
        Ok(())
    }

    /// A status, unless a chain with the checkpoint is still waited for that ours was rewound for.
    pub(super) async fn unless_rewound(&mut self, status: SyncStatus) -> Result<SyncStatus, StoreError> {
        let Some((index, told)) = self.rewound.clone() else { return Ok(status) };
        let tip = self.store.state().await?.tip;
        if tip.is_some_and(|tip| tip.index >= index) {
            self.rewound = None;
            return Ok(status);
        }
        Ok(SyncStatus::stalled(told))
    }
}
