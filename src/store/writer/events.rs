//! The event of a transaction: how it changed the canonical chain.

use serde::Serialize;
use sqlx::{AssertSqlSafe, query};

use crate::{
    chain::Position,
    store::{
        backend::Backend,
        error::Result,
        model::{ChainState, EventKind, KEPT_EVENTS},
    },
};

/// Number of versions between two deletions of old events: finding the oldest that is kept takes a walk along all of
/// them.
const PRUNE_EVERY: u64 = 64;

/// The canonical chain before the transaction, and the part of it that was kept throughout.
pub struct History {
    old_tip: Option<Position>,
    old_length: u64,
    /// Set when the chain was rewound.
    lowest: Option<Lowest>,
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
    },
    Reorganised {
        ancestor: Option<&'a Position>,
        old_tip: Option<&'a Position>,
        new_tip: Option<&'a Position>,
        orphaned: u64,
        adopted: u64,
        reason: &'a str,
    },
}

impl History {
    /// The history of a transaction that has changed nothing yet.
    pub fn new(tip: Option<Position>, length: u64) -> Self {
        Self { old_tip: tip, old_length: length, lowest: None }
    }

    /// Records that the chain was rewound to `tip`.
    pub fn rewound(&mut self, tip: Option<Position>, length: u64, reason: &str) {
        if length < self.lowest.as_ref().map_or(self.old_length, |lowest| lowest.length) {
            self.lowest = Some(Lowest { length, tip, reason: reason.to_owned() });
        }
    }

    /// The change that led to a chain of this length with this tip.
    fn change<'a>(&'a self, tip: Option<&'a Position>, length: u64) -> Option<(EventKind, Change<'a>)> {
        match (&self.lowest, tip) {
            (Some(Lowest { length: kept, tip: ancestor, reason }), new_tip) => Some((
                EventKind::Reorganised,
                Change::Reorganised {
                    ancestor: ancestor.as_ref(),
                    old_tip: self.old_tip.as_ref(),
                    new_tip,
                    orphaned: self.old_length - kept,
                    adopted: length - kept,
                    reason,
                },
            )),
            (None, Some(tip)) if length > self.old_length => {
                Some((EventKind::Extended, Change::Extended { from: self.old_length, to: tip.index, tip }))
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
