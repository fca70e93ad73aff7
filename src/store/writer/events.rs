//! The event of a transaction: how it changed the canonical chain.

use std::collections::VecDeque;

use serde::Serialize;
use sqlx::{AssertSqlSafe, query};

use crate::{
    chain::Position,
    store::{
        backend::Backend,
        error::Result,
        model::{ChainState, EventKind, KEPT_EVENTS, MAX_LISTED_HASHES},
    },
};

/// Number of versions between two deletions of old events: finding the oldest that is kept takes a walk along all of
/// them.
const PRUNE_EVERY: u64 = 64;

/// Most bytes of the hashes in one list of an event: so many hashes of the usual 64 digits. Those of an unverified
/// chain may be any text.
const MAX_LISTED_BYTES: usize = 64 * MAX_LISTED_HASHES;

/// The canonical chain before the transaction, and the part of it that was kept throughout.
pub struct History {
    old_tip: Option<Position>,
    old_length: u64,
    /// Set when the chain was rewound.
    lowest: Option<Lowest>,
    /// The blocks that were canonical before and were removed, from the first index on.
    removed: Hashes,
    /// The blocks above the kept part, from the first index on.
    added: Hashes,
}

/// Hashes of blocks with consecutive indexes: those with the lowest ones, where there are too many.
#[derive(Default, Serialize)]
#[serde(transparent)]
struct Hashes {
    list: VecDeque<String>,
    #[serde(skip)]
    bytes: usize,
}

impl Hashes {
    /// Whether one more hash fits.
    fn has_room(&self, hash: &str) -> bool {
        self.list.len() < MAX_LISTED_HASHES && self.bytes + hash.len() <= MAX_LISTED_BYTES
    }

    /// Adds a block above the others, which must have room.
    fn push_above(&mut self, hash: &str) {
        self.bytes += hash.len();
        self.list.push_back(hash.to_owned());
    }

    /// Adds a block below the others; the highest ones are dropped where there is no room.
    fn push_below(&mut self, hash: &str) {
        self.bytes += hash.len();
        self.list.push_front(hash.to_owned());
        while self.list.len() > MAX_LISTED_HASHES || self.bytes > MAX_LISTED_BYTES {
            self.bytes -= self.list.pop_back().map_or(self.bytes, |hash| hash.len());
        }
    }

    /// Keeps the `count` lowest blocks.
    fn truncate(&mut self, count: u64) {
        self.list.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        self.bytes = self.list.iter().map(String::len).sum();
    }
}

/// The chain at its shortest during the transaction.
struct Lowest {
    length: u64,
    tip: Option<Position>,
    reason: String,
}

/// The document of an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Change<'a> {
    Extended {
        from: u64,
        to: u64,
        tip: &'a Position,
        previous_hash: Option<&'a str>,
        added: &'a Hashes,
    },
    Reorganised {
        ancestor: Option<&'a Position>,
        old_tip: Option<&'a Position>,
        new_tip: Option<&'a Position>,
        orphaned: u64,
        adopted: u64,
        reason: &'a str,
        removed: &'a Hashes,
        added: &'a Hashes,
    },
}

impl History {
    /// The history of a transaction that has changed nothing yet.
    pub fn new(tip: Option<Position>, length: u64) -> Self {
        let (removed, added) = (Hashes::default(), Hashes::default());
        Self { old_tip: tip, old_length: length, lowest: None, removed, added }
    }

    /// Number of blocks, from the first index on, that have been canonical throughout.
    fn kept(&self) -> u64 {
        self.lowest.as_ref().map_or(self.old_length, |lowest| lowest.length)
    }

    /// Records that a block was appended.
    pub fn appended(&mut self, index: u64, hash: &str) {
        // One that was left out leaves out all above.
        let follows = index == self.kept() + self.added.list.len() as u64;
        if follows && self.added.has_room(hash) {
            self.added.push_above(hash);
        }
    }

    /// Records that a block was orphaned by a rewind, which orphans them from the tip down; before
    /// [`rewound`](Self::rewound).
    pub fn orphaned(&mut self, index: u64, hash: &str) {
        // What this transaction has appended was not canonical before.
        if index < self.kept() {
            self.removed.push_below(hash);
        }
    }

    /// Records that the chain was rewound to `tip`.
    pub fn rewound(&mut self, tip: Option<Position>, length: u64, reason: &str) {
        self.added.truncate(length.saturating_sub(self.kept()));
        if length < self.kept() {
            self.lowest = Some(Lowest { length, tip, reason: reason.to_owned() });
        }
    }

    /// The change that led to a chain of this length with this tip.
    fn change<'a>(&'a self, tip: Option<&'a Position>, length: u64) -> Option<(EventKind, Change<'a>)> {
        let (old_tip, added) = (self.old_tip.as_ref(), &self.added);
        match (&self.lowest, tip) {
            (Some(Lowest { length: kept, tip: ancestor, reason }), new_tip) => Some((
                EventKind::Reorganised,
                Change::Reorganised {
                    ancestor: ancestor.as_ref(),
                    old_tip,
                    new_tip,
                    orphaned: self.old_length - kept,
                    adopted: length - kept,
                    reason,
                    removed: &self.removed,
                    added,
                },
            )),
            (None, Some(tip)) if length > self.old_length => {
                let previous_hash = old_tip.map(|tip| tip.hash.as_str());
                let from = self.old_length;
                Some((EventKind::Extended, Change::Extended { from, to: tip.index, tip, previous_hash, added }))
            }
            _ => None,
        }
    }
}

/// Records the event of a transaction that led to `state`, if it changed the canonical chain; deletes old ones if due.
pub async fn record_event<DB: Backend>(
    connection: &mut DB::Connection,
    history: &History,
    state: &ChainState,
) -> Result<()> {
    let tip = state.tip.as_ref().map(Position::from);
    if let Some((kind, change)) = history.change(tip.as_ref(), state.length) {
        let insert = format!(
            "INSERT INTO event (id, at, kind, tip_index, tip_hash, document) VALUES ($1, {}, $2, $3, $4, $5)",
            DB::NOW
        );
        query(AssertSqlSafe(insert))
            .bind(state.version as i64)
            .bind(kind.as_str().to_owned())
            .bind(tip.as_ref().map(|tip| tip.index as i64))
            .bind(tip.as_ref().map(|tip| tip.hash.clone()))
            // Texts and numbers, which serde_json never fails to write.
            .bind(serde_json::to_string(&change).unwrap_or_default())
            .execute(&mut *connection)
            .await
            .map_err(DB::error)?;
    }
    if state.version.is_multiple_of(PRUNE_EVERY) {
        // By number, not by id: a version may have had no event.
        let prune = "DELETE FROM event WHERE id <= \
                     (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET CAST($1 AS BIGINT))";
        query(prune).bind(KEPT_EVENTS as i64).execute(connection).await.map_err(DB::error)?;
    }
    Ok(())
}
