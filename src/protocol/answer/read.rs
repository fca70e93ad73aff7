//! Reading a peer's answer.

use serde::Deserialize;

use super::data::{CanonicalData, ChainInfoData, DebugIndexData, EpochData, FindAncestorData, HeadersData, RangeData};
use super::{Answer, BlockList};
use crate::{chain::MinerBlock, protocol::Query};

impl Answer {
    /// Reads a peer's `data` as the answer to `query`, in either dialect. What the peer says is passed on: several
    /// blocks at an index, gaps, any order; counts are those of the lists. Headers, which only gateways give, are to be
    /// without gaps and in order.
    ///
    /// # Errors
    /// Why it is no answer to the question, for the log and the client: it has another shape; a block of another hash,
    /// epoch or index than asked for; other check points; a work that is no number.
    pub fn decode(query: &Query, data: &str) -> Result<Self, String> {
        match query {
            Query::Ping { .. } => Ok(Self::Ping(data.into())),
            Query::Inspect => parse(data).map(Self::Inspect),
            Query::Get { hash } => {
                let block: MinerBlock = parse(data)?;
                expect(block.hash == *hash, || "a block of another hash".into())?;
                Ok(Self::Get(block.to_json()))
            }
            Query::Canonical => {
                let data: CanonicalData = parse(data)?;
                Ok(Self::Canonical(BlockList::of(&data.blocks)))
            }
            Query::Epoch { epoch } => {
                let data: EpochData = parse(data)?;
                expect(data.epoch == *epoch, || format!("epoch {} instead of {epoch}", data.epoch))?;
                expect(data.blocks.iter().all(|block| block.epoch == *epoch), || "a block of another epoch".into())?;
                Ok(Self::Epoch { epoch: *epoch, blocks: BlockList::of(&data.blocks) })
            }
            Query::Range { from_index, to_index, chunk_size } => {
                let data: RangeData = parse(data)?;
                let asked = *from_index..=*to_index;
                let stray = data.blocks.iter().find(|block| !asked.contains(&block.index));
                expect(stray.is_none(), || {
                    format!("block {}, not asked for", stray.map(|block| block.index).unwrap_or_default())
                })?;
                // A chunk without blocks covers what its sender says, one with blocks no less than their last.
                let last = data.blocks.iter().map(|block| block.index).max();
                let covered = data.to_index.max(*from_index).min(*to_index);
                Ok(Self::Range {
                    from_index: *from_index,
                    to_index: last.map_or(covered, |last| covered.max(last)),
                    requested_to: *to_index,
                    chunk_size: *chunk_size,
                    has_more: data.has_more,
                    blocks: BlockList::of(&data.blocks),
                })
            }
            Query::Headers { from_index, to_index, chunk_size } => {
                let data: HeadersData = parse(data)?;
                let indexes = data.headers.iter().map(|header| header.index);
                check_order(indexes, data.count, *from_index, *to_index)?;
                expect(data.count <= *chunk_size, || format!("{} headers, more than asked", data.count))?;
                Ok(Self::Headers(data))
            }
            Query::ChainInfo { include_blocks, .. } => {
                let mut data: ChainInfoData = parse(data)?;
                let number = &data.cumulative_difficulty;
                expect(!number.is_empty() && number.len() <= 78 && number.bytes().all(|b| b.is_ascii_digit()), || {
                    "a cumulative_difficulty that is no number".into()
                })?;
                let blocks = data.blocks.take().filter(|_| *include_blocks).map(|blocks| BlockList::of(&blocks));
                Ok(Self::ChainInfo { info: data, blocks })
            }
            Query::FindAncestor { check_points } => {
                let data: FindAncestorData = parse(data)?;
                let asked = check_points.iter().map(|point| (point.index, &point.hash));
                expect(data.matches.iter().map(|found| (found.index, &found.hash)).eq(asked), || {
                    "other check points than asked".into()
                })?;
                Ok(Self::FindAncestor(data))
            }
            Query::DebugIndex { index } => {
                let data: DebugIndexData = parse(data)?;
                expect(data.index == *index, || format!("index {} instead of {index}", data.index))?;
                Ok(Self::DebugIndex(data))
            }
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Checks that there are `count` indexes, ascending without a gap from `first`, none past `last`.
fn check_order(indexes: impl ExactSizeIterator<Item = u64>, count: u64, first: u64, last: u64) -> Result<(), String> {
    expect(indexes.len() as u64 == count, || format!("count {count} over {} blocks", indexes.len()))?;
    for (place, index) in (0..).zip(indexes) {
        let expected = first.checked_add(place);
        expect(expected == Some(index), || match expected {
            Some(expected) => format!("block {index} where {expected} belongs"),
            None => format!("block {index} behind the last one that can be"),
        })?;
        expect(index <= last, || format!("block {index}, past the end asked for"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::MAX_CHUNK;

    fn header(index: u64) -> Value {
        json!({"hash": format!("h{index}"), "index": index, "epoch": 0, "timestamp": 7, "previous_hash": "p",
            "data_hash": "d", "nonce": "340282366920938463463374607431768211455", "target_difficulty": "1", "new": []})
    }

    fn decode(indexes: &[u64], count: u64) -> Result<Answer, String> {
        let query = Query::Headers { from_index: 5, to_index: 9, chunk_size: 3 };
        let headers: Vec<_> = indexes.iter().copied().map(header).collect();
        let data = json!({"from_index": 5, "to_index": 7, "headers": headers, "count": count, "has_more": true});
        Answer::decode(&query, &data.to_string())
    }

    #[test]
    fn nothing_follows_the_largest_index() {
        assert_eq!(check_order([u64::MAX - 1, u64::MAX].into_iter(), 2, u64::MAX - 1, u64::MAX), Ok(()));
        let error = check_order([u64::MAX; 2].into_iter(), 2, u64::MAX, u64::MAX).unwrap_err();
        assert!(error.contains("behind the last"), "{error}");
        let (from_index, requested_to) = (u64::MAX - 1, u64::MAX);
        let range = |has_more| Answer::Range {
            from_index,
            to_index: requested_to,
            requested_to,
            chunk_size: MAX_CHUNK,
            has_more,
            blocks: BlockList::default(),
        };
        assert_eq!(range(true).encode(), range(false).encode(), "whatever a peer claims");
    }

    #[test]
    fn headers_are_those_asked_for_or_the_answer_is_none() {
        let Answer::Headers(data) = decode(&[5, 6, 7], 3).unwrap() else { panic!("headers") };
        assert_eq!((data.headers[2].index, data.headers[2].nonce), (7, u128::MAX));
        assert!(decode(&[], 0).is_ok() && decode(&[5], 1).is_ok());
        for (indexes, count, says) in [
            (&[6, 7][..], 2, "block 6 where 5 belongs"),
            (&[5, 7], 2, "block 7 where 6 belongs"),
            (&[5, 5], 2, "block 5 where 6 belongs"),
            (&[5, 6], 3, "count 3 over 2"),
            (&[5, 6, 7, 8], 4, "more than asked"),
            (&[5, 6, 7, 8, 9, 10], 6, "past the end"),
        ] {
            let error = decode(indexes, count).unwrap_err();
            assert!(error.contains(says), "{indexes:?}: {error}");
        }
        let numbers = json!({"from_index": 5, "to_index": 5, "count": 1, "has_more": false,
            "headers": [{"hash": "h", "index": 5, "epoch": 0, "timestamp": 7, "previous_hash": "p", "data_hash": "d",
                "nonce": 7, "target_difficulty": "1"}]});
        let query = Query::Headers { from_index: 5, to_index: 5, chunk_size: 1 };
        assert!(Answer::decode(&query, &numbers.to_string()).is_err(), "a nonce is text");
    }
}
