//! Who is nominated how often.

use std::collections::HashMap;

use super::{
    MAX_PAGE, MAX_RANKED_EPOCHS, Viewed, Views,
    epochs::epochs_within,
    model::{EPOCH_DEFINITION, Nominee, Ranked, Ranking},
};
use crate::{
    chain::{MinerBlock, election},
    protocol::Failure,
    source::store_answers::read_consistently,
    store::ChainState,
};

impl Views {
    /// The nominees of the newest `epochs` epochs, the most nominated first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`](crate::protocol::Code::StoreUnavailable).
    pub async fn nominees(&self, known: &ChainState, epochs: u64) -> Result<Viewed<Ranking>, Failure> {
        let to_epoch = known.tip.as_ref().and_then(|tip| election::epoch_of(tip.index)).unwrap_or(0);
        let epochs = epochs.clamp(1, MAX_RANKED_EPOCHS).min(epochs_within(known));
        let from_epoch = (to_epoch + 1).saturating_sub(epochs);
        let (snapshot, blocks) = self.epochs_of(from_epoch, to_epoch).await?;
        let (total, nominees) = (blocks.len() as u64, ranked(blocks));
        let data = Ranking { from_epoch, to_epoch, blocks: total, nominees, definition: EPOCH_DEFINITION };
        Ok(Viewed { snapshot, settled: false, data })
    }

    /// The canonical blocks below the index `before`, or all, that nominate `peer`, newest first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`](crate::protocol::Code::StoreUnavailable).
    pub async fn nominee(&self, peer: &str, before: Option<u64>, limit: u64) -> Result<Viewed<Nominee>, Failure> {
        let (before, limit) = (before.unwrap_or(u64::MAX), limit.clamp(1, MAX_PAGE));
        let read = |_| async {
            let total = self.store.nominations(peer).await?;
            Ok((total, self.store.by_nominee(peer, before, limit).await?))
        };
        let (_, (total, run)) = read_consistently(&self.store, read).await?;
        let data = Nominee { peer: peer.to_owned(), total, blocks: run.blocks, next_before: run.more_below };
        Ok(Viewed { snapshot: run.snapshot, settled: false, data })
    }
}

/// The nominees of these blocks, by number of blocks and then by the last of them.
fn ranked(blocks: Vec<MinerBlock>) -> Vec<Ranked> {
    let total = blocks.len() as f64;
    let mut counts: HashMap<String, (u64, u64)> = HashMap::new();
    for block in blocks {
        let (count, last_index) = counts.entry(block.nominated_peer_id).or_default();
        (*count, *last_index) = (*count + 1, block.index);
    }
    let nominee = |(peer, (blocks, last_index))| Ranked { peer, blocks, share: blocks as f64 / total, last_index };
    let mut nominees: Vec<_> = counts.into_iter().map(nominee).collect();
    nominees.sort_by_key(|nominee| std::cmp::Reverse((nominee.blocks, nominee.last_index)));
    nominees
}
