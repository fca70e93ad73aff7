//! Protocol ids, limits of size, and the text around the `data` of an answer.

/// Protocol id of the network's request-response protocol.
pub const PROTOCOL: &str = "/modality-network/reqres/0.0.1";
/// Protocol id of the same documents, compressed with zstd in either direction: what gateways speak among themselves.
/// A peer that does not know it is asked by [`PROTOCOL`].
pub const COMPRESSED_PROTOCOL: &str = "/modal-gateway/reqres/1.0.0";
/// Protocol version that the network's nodes send in `identify`.
pub const IDENTIFY_PROTOCOL: &str = "/ipfs/id/1.0.0";
/// Longest request that the network's codec reads: 1 MiB.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Longest answer that the network's codec reads: 10 MiB. A longer one is cut there and can't be parsed.
pub const MAX_RESPONSE_BYTES: usize = 10 << 20;
/// Most blocks in one answer of `range` and `chain_info`: what current nodes allow.
pub const MAX_CHUNK: u64 = 1000;
/// Most members of a list in a request. One of 1 MiB can't have more whole hashes; of short made-up ones it would, each
/// of which takes memory and is looked for.
pub const MAX_LIST: usize = 16_384;

/// What stands before and behind the `data` of a good answer.
pub const OPENING: &str = r#"{"ok":true,"data":"#;
/// See [`OPENING`].
pub const CLOSING: &str = r#","errors":null}"#;
