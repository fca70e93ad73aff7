//! The estimated length of an answer, from its request alone: the memory is reserved before anything is read.

use bytes::Bytes;

use crate::{
    p2p::{BLOCK_BYTES, MAX_INLINE_BYTES},
    protocol::{Failure, MAX_CHUNK, MAX_RESPONSE_BYTES, Query, Request},
    store::ChainState,
};

/// Memory for making an answer, in multiples of its length: rows of the store, and the text.
const WORKING_FACTOR: usize = 2;
/// Most blocks of an epoch: epoch 0 has 41.
const EPOCH_BLOCKS: u64 = 41;

/// Longest block that counts as [`BLOCK_BYTES`]. With a longer one in the chain, every block counts as its longest.
const ORDINARY_BYTES: u64 = 8192;

/// Parses a request.
pub(super) fn parse(request: &Bytes) -> Result<Query, Failure> {
    Request::parse(request)?.query()
}

/// Most bytes of the answer to `request`, estimated from the chain's state (`None`: not known yet); and the parsed
/// request, unless it is longer than [`MAX_INLINE_BYTES`]: then its path decides.
pub(super) fn estimate(request: &Bytes, state: Option<&ChainState>) -> (usize, Option<Result<Query, Failure>>) {
    let length = state.map_or(u64::MAX, |state| state.length);
    let largest = state.map(|state| state.largest).filter(|largest| *largest > ORDINARY_BYTES);
    let bytes_of = |blocks| bytes_of(blocks, largest.map_or(BLOCK_BYTES, |largest| largest as usize));
    // One very long block takes as much as many ordinary ones.
    let single = if largest.is_some() { bytes_of(1) } else { 0 };
    if request.len() > MAX_INLINE_BYTES {
        let bytes = Request::parse(request).map_or(0, |parsed| match &*parsed.path {
            "/ping" | "/data/miner_block/find_ancestor" => request.len(),
            "/data/miner_block/canonical" => bytes_of(length),
            "/data/miner_block/get" => single,
            "/inspect" | "/data/miner_block/debug_index" => 0,
            _ => bytes_of(length.min(MAX_CHUNK)),
        });
        return (bytes, None);
    }
    let parsed = parse(request);
    let bytes = match &parsed {
        // The parsed check points.
        Ok(Query::FindAncestor { .. }) => request.len(),
        Ok(Query::Canonical) => bytes_of(length),
        Ok(Query::ChainInfo { include_blocks: true, .. }) => bytes_of(length.min(MAX_CHUNK)),
        Ok(Query::Range { from_index, to_index, chunk_size } | Query::Headers { from_index, to_index, chunk_size }) => {
            bytes_of(to_index.saturating_sub(*from_index).saturating_add(1).min(*chunk_size).min(length))
        }
        Ok(Query::Epoch { .. }) => bytes_of(EPOCH_BLOCKS),
        Ok(Query::Get { .. }) => single,
        // Short whatever the chain holds. A new query must say which of these it is.
        Ok(Query::Ping { .. } | Query::Inspect | Query::ChainInfo { .. } | Query::DebugIndex { .. }) | Err(_) => 0,
    };
    (bytes, Some(parsed))
}

fn bytes_of(blocks: u64, each: usize) -> usize {
    usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(WORKING_FACTOR * each).min(MAX_RESPONSE_BYTES)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn estimated_bytes(request: &Bytes, state: Option<&ChainState>) -> usize {
        estimate(request, state).0
    }

    #[rstest]
    #[case("range", r#"{"from_index":5,"to_index":14}"#, 10)]
    #[case("range", r#"{"from_index":0,"to_index":4000,"max_chunk_size":7}"#, 7)]
    #[case("range", r#"{"from_index":0,"to_index":4000}"#, 1000)]
    #[case("canonical", "{}", 3000)]
    #[case("chain_info", r#"{"include_blocks":true}"#, 1000)]
    #[case("chain_info", "{}", 0)]
    #[case("epoch", r#"{"epoch":1}"#, 41)]
    fn the_estimate_grows_with_the_blocks_requested(#[case] path: &str, #[case] data: &str, #[case] blocks: usize) {
        let request = |padding| {
            Bytes::from(format!(r#"{{"path":"/data/miner_block/{path}","data":{data}{}}}"#, " ".repeat(padding)))
        };
        let expected = blocks * WORKING_FACTOR * BLOCK_BYTES;
        let ordinary = ChainState { length: 3000, largest: 8192, ..ChainState::default() };
        assert_eq!(estimated_bytes(&request(0), Some(&ordinary)), expected);
        // For a long request, the most that such a request may ask for.
        assert!((expected..=MAX_RESPONSE_BYTES).contains(&estimated_bytes(&request(1 << 20), Some(&ordinary))));
        assert!(
            path == "canonical"
                || estimated_bytes(&request(1 << 20), Some(&ordinary)) <= 1000 * WORKING_FACTOR * BLOCK_BYTES
        );
    }

    #[test]
    fn one_long_block_raises_all_estimates() {
        let long = ChainState { length: 3000, largest: 60_000, ..ChainState::default() };
        let estimate = |path: &str, data: &str| {
            let request = format!(r#"{{"path":"/data/miner_block/{path}","data":{data}}}"#);
            estimated_bytes(&Bytes::from(request), Some(&long))
        };
        assert_eq!(estimate("range", r#"{"from_index":5,"to_index":14}"#), 10 * WORKING_FACTOR * 60_000);
        assert_eq!(estimate("range", r#"{"from_index":0,"to_index":4000}"#), MAX_RESPONSE_BYTES);
        assert_eq!(estimate("get", r#"{"hash":"h"}"#), WORKING_FACTOR * 60_000);
        assert_eq!(estimate("debug_index", r#"{"index":1}"#), 0);
    }

    #[test]
    fn the_data_of_a_long_request_is_not_parsed() {
        let deep = format!(r#"{{"path":"/ping","data":[{}]}}"#, vec!["[0]"; 100_000].join(","));
        let request = Bytes::from(deep);
        let (bytes, parsed) = estimate(&request, None);
        assert!(bytes == request.len() && parsed.is_none());
    }

    #[test]
    fn check_points_count_by_length_and_malformed_requests_not_at_all() {
        let request = Bytes::from(r#"{"path":"/data/miner_block/find_ancestor","data":{"check_points":[]}}"#);
        assert_eq!(estimated_bytes(&request, None), request.len());
        assert_eq!(estimated_bytes(&Bytes::from("nonsense"), None), 0);
    }
}
