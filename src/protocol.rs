//! The sync protocol, without any transport.
pub mod codec;
/// Protocol id of the network's request-response protocol.
pub const PROTOCOL: &str = "/modality-network/reqres/0.0.1";
/// Longest request that the network's codec reads: 1 MiB.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Longest answer that the network's codec reads: 10 MiB.
pub const MAX_RESPONSE_BYTES: usize = 10 << 20;
/// Protocol version that the network's nodes send in `identify`.
pub const IDENTIFY_PROTOCOL: &str = "/ipfs/id/1.0.0";
