//! Answers that are true of a chain which holds a given block: the anchor.

use std::sync::Arc;

use super::{Declined, Served, Source, in_time, local};
use crate::{
    protocol::{Failure, Query},
    store::ChainState,
};

impl Source {
    /// Checks that `hash` is canonical; returns the version of the chain that this is true of.
    ///
    /// # Errors
    /// [`Code::AnchorNotCanonical`] with the common ancestor, [`Code::BlockNotFound`].
    async fn check_anchor(&self, hash: &str) -> Result<u64, Failure> {
        self.local.check_anchor(hash).await
    }

    /// Answers a list from the store, of a chain that holds the block `anchor`.
    ///
    /// # Errors
    /// As [`Self::check_anchor`] and [`Self::answer`].
    pub async fn answer_pinned(&self, query: Query, anchor: &str) -> Result<Arc<Served>, Declined> {
        Ok(in_time(self.pinned(query, anchor)).await?)
    }

    pub(super) async fn pinned(&self, query: Query, anchor: &str) -> Result<Arc<Served>, Failure> {
        let mut state = self.state().await?;
        for _ in 0..local::MAX_ATTEMPTS {
            if self.check_anchor(anchor).await? == state.version {
                let served = self.answer_at(&state, query.clone()).await?;
                if served.is_of(&state) {
                    return Ok(served);
                }
            }
            state = Arc::new(self.state_now().await?);
        }
        Err(local::unsteady())
    }

    /// Checks that `anchor` is on the chain that `state` is of.
    ///
    /// # Errors
    /// As [`Self::check_anchor`].
    pub async fn check_anchor_in(&self, state: &ChainState, anchor: &str) -> Result<(), Failure> {
        let version = self.check_anchor(anchor).await?;
        match &state.tip {
            Some(tip) if version != state.version && self.check_anchor(&tip.hash).await? != version => {
                Err(local::unsteady())
            }
            _ => Ok(()),
        }
    }
}
