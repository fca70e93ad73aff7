//! The statistics of the canonical chain, which spare the readers a scan.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::{QueryBuilder, query_as};

use crate::{
    chain::{Deviation, Level, block::MAX_KEY_BYTES},
    store::{
        backend::{
            Backend,
            rows::{BlockRow, level},
            statements::ROWS_PER_STATEMENT,
        },
        error::Result,
        model::ChainState,
    },
};

/// Kinds of counts in the table `tally`: canonical blocks by epoch, by nominee and by verification level.
const EPOCH: &str = "epoch";
/// Counts nominees, the blocks' `nominated_peer_id`, for [`ChainState::miners`]: not the peers that mined the blocks.
pub const NOMINEE: &str = "miner";
const LEVEL: &str = "level";

/// Begins the value of a nominee that is kept as its SHA-256 in hex. No peer id begins with it.
const DIGEST_MARKER: &str = "\u{1}sha256:";

/// Changes to the numbers of canonical blocks, by kind and value.
type Changes = HashMap<(&'static str, String), i64>;

/// Adds canonical rows to the statistics, or removes them: `sign` is 1 or -1.
pub async fn count<DB: Backend>(
    connection: &mut DB::Connection,
    state: &mut ChainState,
    rows: &[BlockRow],
    sign: i64,
) -> Result<()> {
    let (mut epochs, mut nominees, mut levels) = (HashMap::new(), HashMap::new(), HashMap::new());
    for row in rows {
        *epochs.entry(row.block.epoch).or_default() += sign;
        *nominees.entry(row.block.nominated_peer_id.as_str()).or_default() += sign;
        *levels.entry(row.level).or_default() += sign;
    }
    let weakest = levels.keys().copied().chain(state.level).min();
    let epochs = epochs.into_iter().map(|(epoch, change)| ((EPOCH, epoch.to_string()), change));
    let nominees = nominees.into_iter().map(|(nominee, change)| ((NOMINEE, nominee_value(nominee)), change));
    let levels = levels.into_iter().map(|(level, change)| (level_key(level), change));
    let changes = epochs.chain(nominees).chain(levels).collect();
    let bytes: usize = rows.iter().map(|row| row.document.len()).sum();
    state.length = state.length.saturating_add_signed(sign * rows.len() as i64);
    state.bytes = state.bytes.saturating_add_signed(sign * bytes as i64);
    let largest = rows.iter().map(|row| row.document.len() as u64).max().unwrap_or_default();
    state.largest = state.largest.max(largest);
    for (deviation, count) in
        [(Deviation::Schedule, &mut state.off_schedule), (Deviation::Timestamp, &mut state.off_timestamp)]
    {
        let deviating = rows.iter().filter(|row| row.block.deviations.contains(&deviation)).count();
        *count = count.saturating_add_signed(sign * deviating as i64);
    }
    tally::<DB>(connection, state, changes).await?;
    match sign {
        1.. => state.level = weakest,
        _ => find_weakest::<DB>(connection, state).await?,
    }
    Ok(())
}

/// Moves canonical blocks, given as a number for each level, to the level `to`.
pub async fn raise<DB: Backend>(
    connection: &mut DB::Connection,
    state: &mut ChainState,
    blocks: &[(Level, i64)],
    to: Level,
) -> Result<()> {
    let removed = blocks.iter().map(|(from, count)| (level_key(*from), -count));
    let total = blocks.iter().map(|(_, count)| count).sum();
    tally::<DB>(connection, state, removed.chain([(level_key(to), total)]).collect()).await?;
    find_weakest::<DB>(connection, state).await
}

/// Applies changes to the table, and what follows from them to the state.
async fn tally<DB: Backend>(connection: &mut DB::Connection, state: &mut ChainState, changes: Changes) -> Result<()> {
    let entries: Vec<_> = changes.iter().collect();
    for entries in entries.chunks(ROWS_PER_STATEMENT) {
        let mut upsert = QueryBuilder::new("INSERT INTO tally (kind, value, blocks) ");
        upsert.push_values(entries, |mut values, ((kind, value), change)| {
            values.push_bind(kind.to_string()).push_bind(value.clone()).push_bind(**change);
        });
        upsert.push(
            " ON CONFLICT (kind, value) DO UPDATE SET blocks = tally.blocks + excluded.blocks \
             RETURNING kind, value, blocks",
        );
        let query = upsert.build_query_as::<(String, String, i64)>().persistent(false);
        for (kind, value, blocks) in query.fetch_all(&mut *connection).await.map_err(DB::error)? {
            let (kind, different) = match kind.as_str() {
                EPOCH => (EPOCH, &mut state.epochs),
                NOMINEE => (NOMINEE, &mut state.miners),
                _ => continue,
            };
            let before = blocks - changes.get(&(kind, value)).copied().unwrap_or_default();
            *different = different.saturating_add_signed(i64::from(blocks > 0) - i64::from(before > 0));
        }
    }
    Ok(())
}

/// Finds the weakest level of canonical blocks.
async fn find_weakest<DB: Backend>(connection: &mut DB::Connection, state: &mut ChainState) -> Result<()> {
    let weakest = query_as("SELECT CAST(min(value) AS BIGINT) FROM tally WHERE kind = $1 AND blocks > 0");
    let (weakest,): (Option<i64>,) = weakest.bind(LEVEL.to_owned()).fetch_one(connection).await.map_err(DB::error)?;
    state.level = weakest.map(level).transpose()?;
    Ok(())
}

/// The value of a nominee: the nominee, or its digest where a key can't hold it. Texts that look like a digest are
/// digested too, so that different nominees stay different.
pub fn nominee_value(nominee: &str) -> String {
    let plain = nominee.len() <= MAX_KEY_BYTES && !nominee.contains('\0') && !nominee.starts_with(DIGEST_MARKER);
    if plain { nominee.to_owned() } else { format!("{DIGEST_MARKER}{}", hex::encode(Sha256::digest(nominee))) }
}

fn level_key(level: Level) -> (&'static str, String) {
    (LEVEL, level.code().to_string())
}
