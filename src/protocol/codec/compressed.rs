//! Documents on streams of [`COMPRESSED_PROTOCOL`](crate::protocol::COMPRESSED_PROTOCOL): long ones as zstd frames,
//! short ones as they are. Which it is shows in the first bytes, since no JSON document begins like a frame.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use super::too_large;

/// What costs least to write. A chain's blocks shrink to about a third, most of which is hashes; higher levels gain
/// little on those.
const LEVEL: i32 = 1;

/// Shorter documents are not compressed: it takes longer than it saves on all but slow lines.
const COMPRESSED_FROM: usize = 64 << 10;

/// What a zstd frame begins with (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Most bytes that a document of `limit` bytes takes on the wire: noise grows a little.
pub(super) fn most_bytes(limit: usize) -> usize {
    zstd::zstd_safe::compress_bound(limit)
}

/// The document as it travels.
pub(super) fn encode(document: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    match document.len() < COMPRESSED_FROM {
        true => Ok(document.into()),
        false => zstd::bulk::compress(document, LEVEL).map(Cow::Owned),
    }
}

/// Whether `wire` is compressed, so that it may become many times as long.
pub(super) fn is_frame(wire: &[u8]) -> bool {
    wire.starts_with(&MAGIC)
}

/// The document in `wire`, at most `limit` bytes long, whatever the frames claim: decoding stops there. A frame cannot
/// ask for a window (memory that is looked back into) beyond the largest power of two within `limit`, either.
///
/// # Errors
/// [`TooLarge`](super::TooLarge); `UnexpectedEof` for a frame that is cut off; what zstd says of anything else.
pub(super) fn decode(wire: Vec<u8>, limit: usize) -> io::Result<Vec<u8>> {
    if !is_frame(&wire) {
        return if wire.len() > limit { Err(too_large(limit)) } else { Ok(wire) };
    }
    let mut decoder = zstd::Decoder::with_buffer(&wire[..])?;
    decoder.window_log_max(limit.ilog2())?;
    let mut document = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut document)?;
    if document.len() > limit { Err(too_large(limit)) } else { Ok(document) }
}
