//! The store over either database: lookups for people and programs that explore the chain.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, query_as};

use super::{
    backend::{
        Backend,
        rows::{BlocksRow, EventRow, IndexRow, clamp},
        statements,
    },
    error::{Result, StoreError},
    model::{Blocks, Event, IndexEntry, Run},
    reader::{SqlStore, read},
    traits::LookupStore,
    writer::statistics::{NOMINEE, nominee_value},
};
use crate::chain::MinerBlock;

/// Characters of a nominee that are indexed; a peer id has 52.
const KEY_CHARACTERS: usize = 64;

#[async_trait]
impl<DB: Backend> LookupStore for SqlStore<DB> {
    async fn by_nominee(&self, nominee: &str, before: u64, limit: u64) -> Result<Run> {
        let (sql, key) = (statements::by_nominee::<DB>(), nominee_key(nominee));
        let row: BlocksRow =
            read!(self.fetch_one(AssertSqlSafe(sql.clone()), key.clone(), clamp(before), clamp(limit)))?;
        let mut run = run(row, limit)?;
        // Nominees that differ behind the key share it.
        run.blocks.retain(|block| block.nominated_peer_id == nominee);
        Ok(run)
    }

    async fn nominations(&self, nominee: &str) -> Result<u64> {
        let sql = "SELECT blocks FROM tally WHERE kind = $1 AND value = $2";
        let row: Option<(i64,)> = read!(self.fetch_optional(sql, NOMINEE.to_owned(), nominee_value(nominee)))?;
        Ok(row.map_or(0, |(blocks,)| blocks as u64))
    }

    async fn orphans(&self, from: u64, after: &str, limit: u64) -> Result<Run> {
        let after: String = after.chars().filter(|c| *c != '\0').collect();
        let row: BlocksRow = read!(self.fetch_one(statements::ORPHANS, clamp(from), after.clone(), clamp(limit)))?;
        run(row, limit)
    }

    async fn with_prefix(&self, prefix: &str, limit: u64) -> Result<Vec<IndexEntry>> {
        // The first text behind all that continue hex digits with hex digits.
        let end = format!("{prefix}g");
        let rows: Vec<IndexRow> =
            read!(self.fetch_all(statements::HASHES_BETWEEN, prefix.to_owned(), end.clone(), clamp(limit)))?;
        Ok(rows.into_iter().map(IndexEntry::from).collect())
    }

    async fn reorganisations(&self, before: u64, limit: u64) -> Result<Vec<Event>> {
        let rows: Vec<EventRow> = read!(self.fetch_all(statements::REORGANISATIONS, clamp(before), clamp(limit)))?;
        rows.into_iter().map(Event::try_from).collect()
    }
}

fn run(row: BlocksRow, limit: u64) -> Result<Run> {
    let Blocks { snapshot, list, .. } = row.try_into()?;
    let read = list.parse().map_err(|error| StoreError::Damaged(format!("a stored block: {error}")));
    let blocks: Vec<MinerBlock> = read?;
    let more_below = blocks.last().filter(|_| list.count == limit).map(|last| last.index);
    Ok(Run { snapshot, blocks, more_below })
}

/// The key under which the index `block_nominee` has the blocks of a nominee: of its text in JSON the characters before
/// the first quote, at most 64.
pub fn nominee_key(nominee: &str) -> String {
    // A text is always written.
    let json = serde_json::to_string(nominee).unwrap_or_default();
    json.trim_matches('"').chars().take_while(|c| *c != '"').take(KEY_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "12D3KooWPBRNZsyrRYEiJAQT4c6eGYvCkDYvVRNPCJEMVhWA7Ctn",
        "12D3KooWPBRNZsyrRYEiJAQT4c6eGYvCkDYvVRNPCJEMVhWA7Ctn"
    )]
    #[case("", "")]
    #[case("a\"b", "a\\")]
    #[case("\"", "\\")]
    #[case("a\0b", "a\\u0000b")]
    #[case(&"ä".repeat(100), &"ä".repeat(64))]
    fn a_key_is_what_a_document_has(#[case] nominee: &str, #[case] key: &str) {
        assert_eq!(nominee_key(nominee), key);
    }
}
