//! How long an answer may become, told from its request alone: so much memory is set aside before anything is read.

use bytes::Bytes;

use crate::{
    p2p::BLOCK_BYTES,
    protocol::{MAX_CHUNK, MAX_RESPONSE_BYTES, Query, Request},
    store::ChainState,
};

/// What an answer takes while it is being made, in sizes of the answer: rows of the store, and the text.
const WORKING_FACTOR: usize = 2;
/// Blocks of an epoch, the first one's 41 included.
const EPOCH_BLOCKS: u64 = 41;

/// Longer requests are weighed by their path alone: reading what they ask with takes time and memory.
const MAX_READ_BYTES: usize = 32 << 10;

/// Bytes that a block may have without being counted as more than [`BLOCK_BYTES`]: lists of such blocks were never weighed
/// by their longest.
const ORDINARY_BYTES: u64 = 8192;

/// Bytes that the answer to `request` takes at most, about, where the chain is this; `None`: it isn't known.
pub(super) fn weight(request: &Bytes, state: Option<&ChainState>) -> usize {
    let length = state.map_or(u64::MAX, |state| state.length);
    let largest = state.map(|state| state.largest).filter(|largest| *largest > ORDINARY_BYTES);
    let bytes_of = |blocks| bytes_of(blocks, largest.map_or(BLOCK_BYTES, |largest| largest as usize));
    // One block that is not ordinary is worth as much as many that are.
    let single = if largest.is_some() { bytes_of(1) } else { 0 };
    let Ok(parsed) = Request::parse(request) else { return 0 };
    if request.len() > MAX_READ_BYTES {
        return match &*parsed.path {
            "/ping" | "/data/miner_block/find_ancestor" => request.len(),
            "/data/miner_block/canonical" => bytes_of(length),
            "/data/miner_block/get" => single,
            "/inspect" | "/data/miner_block/debug_index" => 0,
            _ => bytes_of(length.min(MAX_CHUNK)),
        };
    }
    let Ok(query) = parsed.query() else { return 0 };
    let blocks = match query {
        // Its check points, read.
        Query::FindAncestor { .. } => return request.len(),
        Query::Canonical => length,
        Query::ChainInfo { include_blocks: true, .. } => length.min(MAX_CHUNK),
        Query::Range { from_index, to_index, chunk_size } | Query::Headers { from_index, to_index, chunk_size } => {
            (to_index.saturating_sub(from_index).saturating_add(1)).min(chunk_size).min(length)
        }
        Query::Epoch { .. } => EPOCH_BLOCKS,
        Query::Get { .. } => return single,
        _ => 0,
    };
    bytes_of(blocks)
}

fn bytes_of(blocks: u64, each: usize) -> usize {
    usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(WORKING_FACTOR * each).min(MAX_RESPONSE_BYTES)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("range", r#"{"from_index":5,"to_index":14}"#, 10)]
    #[case("range", r#"{"from_index":0,"to_index":4000,"max_chunk_size":7}"#, 7)]
    #[case("range", r#"{"from_index":0,"to_index":4000}"#, 1000)]
    #[case("canonical", "{}", 3000)]
    #[case("chain_info", r#"{"include_blocks":true}"#, 1000)]
    #[case("chain_info", "{}", 0)]
    #[case("epoch", r#"{"epoch":1}"#, 41)]
    fn as_much_is_set_aside_as_blocks_are_asked_for(#[case] path: &str, #[case] data: &str, #[case] blocks: usize) {
        let request = |padding| {
            Bytes::from(format!(r#"{{"path":"/data/miner_block/{path}","data":{data}{}}}"#, " ".repeat(padding)))
        };
        let expected = blocks * WORKING_FACTOR * BLOCK_BYTES;
        let ordinary = ChainState { length: 3000, largest: 8192, ..ChainState::default() };
        assert_eq!(weight(&request(0), Some(&ordinary)), expected);
        // Of a long one, as much as may be asked for in this way.
        assert!((expected..=MAX_RESPONSE_BYTES).contains(&weight(&request(1 << 20), Some(&ordinary))));
        assert!(
            path == "canonical" || weight(&request(1 << 20), Some(&ordinary)) <= 1000 * WORKING_FACTOR * BLOCK_BYTES
        );
    }

    #[test]
    fn one_long_block_makes_all_answers_weigh_more() {
        let long = ChainState { length: 3000, largest: 60_000, ..ChainState::default() };
        let weigh = |path: &str, data: &str| {
            let request = format!(r#"{{"path":"/data/miner_block/{path}","data":{data}}}"#);
            weight(&Bytes::from(request), Some(&long))
        };
        assert_eq!(weigh("range", r#"{"from_index":5,"to_index":14}"#), 10 * WORKING_FACTOR * 60_000);
        assert_eq!(weigh("range", r#"{"from_index":0,"to_index":4000}"#), MAX_RESPONSE_BYTES);
        assert_eq!(weigh("get", r#"{"hash":"h"}"#), WORKING_FACTOR * 60_000);
        assert_eq!(weigh("debug_index", r#"{"index":1}"#), 0);
    }

    #[test]
    fn what_a_long_request_asks_with_is_not_read() {
        let deep = format!(r#"{{"path":"/ping","data":[{}]}}"#, vec!["[0]"; 100_000].join(","));
        let request = Bytes::from(deep);
        assert_eq!(weight(&request, None), request.len());
    }

    #[test]
    fn check_points_weigh_what_they_have_and_nonsense_nothing() {
        let request = Bytes::from(r#"{"path":"/data/miner_block/find_ancestor","data":{"check_points":[]}}"#);
        assert_eq!(weight(&request, None), request.len());
        assert_eq!(weight(&Bytes::from("nonsense"), None), 0);
    }
}
