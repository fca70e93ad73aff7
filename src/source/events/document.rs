//! Events as followers get them: the JSON objects, and the text of a server-sent event.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::cursor::Cursor;
use crate::{
    chain::{BLOCKS_PER_EPOCH, EpochNumbering, words},
    protocol::{Ancestor, schema::Block},
};

/// `data` of `extended`: blocks were appended to the canonical chain.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExtendedEvent {
    /// Time of the change, unix seconds.
    #[serde(default)]
    #[schema(required)]
    pub at: i64,
    /// Index of the first block.
    pub from: u64,
    /// Index of the last block.
    pub to: u64,
    /// Hash of the block before the first, which was the tip; null for the first block of a chain, and in events of
    /// releases that did not record it.
    #[serde(default)]
    #[schema(required)]
    pub previous_hash: Option<String>,
    /// Hashes of the blocks in index order, at most 1000; null in events of releases that did not record them.
    #[serde(default)]
    #[schema(required)]
    pub added: Option<Vec<String>>,
    /// Whether `added` lacks the last ones.
    #[serde(default)]
    #[schema(required)]
    pub truncated: bool,
    /// The tip after the change: the last block.
    pub tip: Ancestor,
    /// With `include=blocks`: the blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<EventBlocks>,
}

/// `data` of `reorganised`: blocks left the canonical chain, and others may have come. No `extended` follows for these.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReorganisedEvent {
    /// Time of the change, unix seconds.
    #[serde(default)]
    #[schema(required)]
    pub at: i64,
    /// The last block that stayed; null if none did.
    #[schema(required)]
    pub ancestor: Option<Ancestor>,
    /// The tip before the change.
    #[schema(required)]
    pub old_tip: Option<Ancestor>,
    /// The tip after the change; null for an empty chain.
    #[schema(required)]
    pub new_tip: Option<Ancestor>,
    /// Number of blocks that left.
    pub orphaned: u64,
    /// Number of blocks that came.
    pub adopted: u64,
    /// The depth of the reorganisation: number of blocks that left; null where it is not known.
    #[serde(default)]
    #[schema(required)]
    pub depth: Option<u64>,
    /// Why.
    pub reason: String,
    /// Hashes of the blocks that left, in index order, at most 1000; null in events of releases that did not record
    /// them.
    #[serde(default)]
    #[schema(required)]
    pub removed: Option<Vec<String>>,
    /// Hashes of the blocks that came, in index order, at most 1000; null in events of releases that did not record
    /// them.
    #[serde(default)]
    #[schema(required)]
    pub added: Option<Vec<String>>,
    /// Whether `removed` or `added` lacks the last ones.
    #[serde(default)]
    #[schema(required)]
    pub truncated: bool,
    /// The epochs that were complete and lost blocks: their nominees are void. Null if there are none.
    #[serde(default)]
    #[schema(required)]
    pub epochs: Option<ChangedEpochs>,
    /// The tip after the change, as `new_tip`.
    #[serde(default)]
    #[schema(required)]
    pub tip: Option<Ancestor>,
    /// With `include=blocks`: the blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<EventBlocks>,
}

/// A run of epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedEpochs {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// The blocks of an event, as the store has them when the event is sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct EventBlocks {
    /// The blocks of `removed`; null where they are left out.
    #[schema(value_type = Option<Vec<Block>>, required)]
    pub removed: Option<Vec<Box<RawValue>>>,
    /// The blocks of `added`; null where they are left out.
    #[schema(value_type = Option<Vec<Block>>, required)]
    pub added: Option<Vec<Box<RawValue>>>,
    /// Where the blocks are left out, because they or their hashes are too many: the URL, relative to that of the
    /// events, of the first part of those that came. Those that left are found by their hashes.
    #[schema(required)]
    pub fetch: Option<String>,
}

/// `data` of `reset`: read the chain anew.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResetEvent {
    /// The tip of the chain; null for an empty one.
    #[schema(required)]
    pub tip: Option<Ancestor>,
    /// Why.
    pub reason: ResetReason,
    /// Number of versions of the chain that were missed; null where it is not known.
    #[schema(required)]
    pub missed: Option<u64>,
}

/// Why a follower has to read the chain anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The next events are no longer kept: the follower was away, or read too slowly.
    TooOld,
    /// Events that were sent are no longer true: the store lost its last writes, or was replaced.
    Replaced,
    /// The id is none of this store.
    UnknownId,
}

words!(ResetReason { TooOld = "too_old", Replaced = "replaced", UnknownId = "unknown_id" });

impl ExtendedEvent {
    /// Completes what is stored.
    pub(super) fn complete(&mut self) {
        self.truncated = is_short(self.added.as_ref(), (self.to + 1).saturating_sub(self.from));
    }
}

impl ReorganisedEvent {
    /// Completes what is stored.
    pub(super) fn complete(&mut self) {
        self.truncated = is_short(self.removed.as_ref(), self.orphaned) || is_short(self.added.as_ref(), self.adopted);
        self.depth = Some(self.orphaned);
        let first = self.ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1);
        self.epochs = self.old_tip.as_ref().and_then(|old_tip| changed_epochs(first, old_tip.index));
    }
}

fn is_short(hashes: Option<&Vec<String>>, count: u64) -> bool {
    hashes.is_some_and(|hashes| (hashes.len() as u64) < count)
}

/// The complete epochs of a chain up to `tip` that have blocks from index `first` on. The nominees' epochs begin after
/// the genesis, however a network numbers those of its blocks.
fn changed_epochs(first: u64, tip: u64) -> Option<ChangedEpochs> {
    let first = EpochNumbering::GenesisFirst.epoch(first);
    let complete = tip / BLOCKS_PER_EPOCH;
    (first < complete).then(|| ChangedEpochs { first, last: complete - 1 })
}

/// The text of a server-sent event. Without an `id` the client keeps the last one.
pub(super) fn sent_event(id: Option<Cursor>, name: &str, data: &impl Serialize) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    // Members and texts, which serde_json never fails to write, and in one line.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("{id}event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_complete(0, 39, None)]
    #[case::all(0, 40, Some((0, 0)))]
    #[case::last_block_of_an_epoch(40, 40, Some((0, 0)))]
    #[case::after_it(41, 79, None)]
    #[case::next_one(41, 80, Some((1, 1)))]
    #[case::across(40, 120, Some((0, 2)))]
    #[case::last_is_incomplete(40, 119, Some((0, 1)))]
    fn epochs_that_lose_blocks_are_named(#[case] first: u64, #[case] tip: u64, #[case] epochs: Option<(u64, u64)>) {
        let expected = epochs.map(|(first, last)| ChangedEpochs { first, last });
        assert_eq!(changed_epochs(first, tip), expected);
    }
}
