//! Tips that clients have seen in answers of other gateways on the same database.

use std::str::FromStr;

use moka::sync::Cache;

use super::{
    local::LocalSource,
    store_answers::{MAX_ATTEMPTS, chain_changed, store_failure},
};
use crate::{chain::block::MAX_KEY_BYTES, protocol::Failure, store::Anchor};

/// Tips that are remembered, so that clients who send them again cost no read.
const REMEMBERED: u64 = 1024;

/// A tip as an answer's header has it: `<index>:<hash>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTip {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
}

/// Text that is no [`ClientTip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the x-modal-tip of an earlier answer: an index, `:` and a hash")]
pub struct MalformedTip;

impl FromStr for ClientTip {
    type Err = MalformedTip;

    fn from_str(text: &str) -> Result<Self, MalformedTip> {
        let (index, hash) = text.split_once(':').ok_or(MalformedTip)?;
        // `parse` alone accepts a leading plus sign.
        let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        match index.parse() {
            Ok(index) if is_number && (1..=MAX_KEY_BYTES).contains(&hash.len()) => {
                Ok(Self { index, hash: hash.into() })
            }
            _ => Err(MalformedTip),
        }
    }
}

/// The tips that the chain read by this process is known to have had, or to have passed.
pub(super) struct SeenTips(Cache<String, ()>);

impl SeenTips {
    pub(super) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }

    /// See [`Source::reach`](super::Source::reach).
    pub(super) async fn reach(&self, local: &LocalSource, tip: &ClientTip) -> Result<(), Failure> {
        let mut state = local.state().await?;
        let is_tip = state.tip.as_ref().is_some_and(|own| own.index == tip.index && own.hash == tip.hash);
        if is_tip || self.0.contains_key(&tip.hash) {
            return Ok(());
        }
        let store = local.store();
        let mut found = store.anchor(&tip.hash).await.map_err(store_failure)?;
        if found.0 == Anchor::Unknown {
            store.require_block(&tip.hash).await.map_err(store_failure)?;
            found = store.anchor(&tip.hash).await.map_err(store_failure)?;
        }
        let (anchor, version) = found;
        if anchor == Anchor::Unknown {
            return Ok(());
        }
        // The state that answers are read for may be a little older than this read.
        for _ in 0..MAX_ATTEMPTS {
            if state.version >= version {
                self.0.insert(tip.hash.clone(), ());
                return Ok(());
            }
            local.state.forget().await;
            state = local.state().await?;
        }
        Err(chain_changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_is_an_index_and_a_hash() {
        let tip = "60:0017cb".parse::<ClientTip>().unwrap();
        assert_eq!(tip, ClientTip { index: 60, hash: "0017cb".into() });
        assert_eq!("7:a:b".parse::<ClientTip>().unwrap().hash, "a:b", "without verification a hash may be any text");
        for text in ["", "60", ":0017cb", "+60:0017cb", "-1:0017cb", "60:", "0x3:0017cb", "18446744073709551616:a"] {
            assert_eq!(text.parse::<ClientTip>(), Err(MalformedTip), "{text:?}");
        }
        assert_eq!(format!("1:{}", "a".repeat(MAX_KEY_BYTES + 1)).parse::<ClientTip>(), Err(MalformedTip));
    }
}
