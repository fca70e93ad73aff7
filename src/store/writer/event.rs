//! What a transaction did to the canonical chain, told in one event.

use serde::Serialize;
use sqlx::{AssertSqlSafe, Executor, query};

use super::SqlWriter;
use crate::{
    chain::Position,
    store::{
        EventKind, KEPT_EVENTS, Result,
        sql::{Backend, Column},
    },
};

/// Every how many versions old events are deleted: finding the oldest that is kept takes a walk along all of them.
const FORGET_EVERY: u64 = 64;

/// What was canonical before the transaction, and how much of it it has kept so far.
pub(super) struct History {
    old_tip: Option<Position>,
    old_length: u64,
    /// Once it was rewound.
    lowest: Option<Lowest>,
}

/// The least of the chain that was left in between.
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
        tip: Position,
    },
    Reorganised {
        ancestor: Option<&'a Position>,
        old_tip: Option<&'a Position>,
        new_tip: Option<Position>,
        orphaned: u64,
        adopted: u64,
        reason: &'a str,
    },
}

impl History {
    pub(super) fn new(tip: Option<Position>, length: u64) -> Self {
        Self { old_tip: tip, old_length: length, lowest: None }
    }

    /// Notes that the chain was rewound to `tip`.
    pub(super) fn rewound(&mut self, tip: Option<Position>, length: u64, reason: &str) {
        if length < self.lowest.as_ref().map_or(self.old_length, |lowest| lowest.length) {
            self.lowest = Some(Lowest { length, tip, reason: reason.to_owned() });
        }
    }

    /// What has become of the chain, if `tip` is its tip now.
    fn change(&self, tip: Option<Position>, length: u64) -> Option<(EventKind, Change<'_>)> {
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

impl<DB: Backend> SqlWriter<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    i64: Column<DB>,
    String: Column<DB>,
    Option<i64>: Column<DB>,
    Option<String>: Column<DB>,
{
    /// The canonical chain's end as this transaction has it.
    pub(super) fn tip(&self) -> Option<Position> {
        self.state.tip.as_ref().map(Position::from)
    }

    /// Writes the event, if there is one.
    pub(super) async fn tell(&mut self) -> Result<()> {
        let tip = self.tip();
        let Some((kind, change)) = self.history.change(tip.clone(), self.state.length) else { return Ok(()) };
        let id = self.state.version as i64;
        let insert = format!(
            "INSERT INTO event (id, at, kind, tip_index, tip_hash, document) VALUES ($1, {}, $2, $3, $4, $5)",
            DB::NOW
        );
        query(AssertSqlSafe(insert))
            .bind(id)
            .bind(kind.as_str().to_owned())
            .bind(tip.as_ref().map(|tip| tip.index as i64))
            .bind(tip.map(|tip| tip.hash))
            // Texts and numbers, which serde_json never fails to write.
            .bind(serde_json::to_string(&change).unwrap_or_default())
            .execute(&mut *self.transaction)
            .await
            .map_err(DB::error)?;
        Ok(())
    }

    /// Deletes old events if it is time to. They are counted: an id may have had no event.
    pub(super) async fn forget_events(&mut self) -> Result<()> {
        if !self.state.version.is_multiple_of(FORGET_EVERY) {
            return Ok(());
        }
        let forget = "DELETE FROM event WHERE id <= \
                      (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET CAST($1 AS BIGINT))";
        query(forget).bind(KEPT_EVENTS as i64).execute(&mut *self.transaction).await.map_err(DB::error)?;
        Ok(())
    }
}
