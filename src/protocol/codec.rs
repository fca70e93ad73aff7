//! Codec that carries encoded JSON documents over libp2p streams: the network's codec, without the JSON.
//!
//! On the wire of [`PROTOCOL`](super::PROTOCOL) it is libp2p's own `json` codec: one document per half of a stream,
//! ended by closing that half. Here documents stay bytes: an answer is encoded once (elsewhere), shared and written as
//! it is, and nothing is parsed in the tasks that drive connections. With [`COMPRESSED_PROTOCOL`] each document is
//! [`compressed`].

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::prelude::*;
use libp2p::StreamProtocol;
use libp2p::request_response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{COMPRESSED_PROTOCOL, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};

mod compressed;

/// First allocation for a document; it grows with the bytes that arrive, so that an idle stream costs no more.
const INITIAL_BUFFER_BYTES: usize = 512;

/// Memory that each document may use without a permit while it arrives. Nearly all requests fit.
const FREE_BYTES: usize = 4096;

/// Factor by which a document's memory grows.
const GROWTH: usize = 8;

/// Memory of one connection for the first growth of its requests, to 32 KiB, of four at once, before they take shared
/// memory.
const CONNECTION_BYTES: usize = 4 * (GROWTH - 1) * FREE_BYTES;

/// Memory of longer inbound requests over all connections while they arrive: four of the longest. A request over it
/// fails. From then on the limits on requests in progress count them.
const SHARED_BYTES: usize = 4 * MAX_REQUEST_BYTES;

/// Timeout for an inbound request to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of each [`WRITE_CHUNK`] of a document: a slow reader is served, a stalled one is not.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are written with one timeout.
const WRITE_CHUNK: usize = 64 << 10;

/// An encoded request to or from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireRequest {
    /// The encoded document `{"path": …, "data": …}`.
    pub body: Bytes,
    /// Time at which the stream of an outbound request is closed, as soon as its caller gives up; the behaviour's
    /// timeout is one for all requests. `None` for inbound requests.
    pub deadline: Option<Instant>,
    /// Longest answer, in bytes.
    answer_limit: usize,
    memory: Memory,
}

impl WireRequest {
    /// Makes an outbound request.
    pub fn with_deadline(deadline: Instant, body: Bytes) -> Self {
        Self { deadline: Some(deadline), ..body.into() }
    }

    /// Sets the memory that the answer shares with others while it arrives: `permits` are bytes, taken by answers
    /// longer than 4 KiB. Without enough permits, the stream ends with an error of the kind `OutOfMemory`.
    pub fn with_answer_memory(self, permits: Option<Arc<Semaphore>>) -> Self {
        Self { memory: Memory { for_answer: permits, ..self.memory }, ..self }
    }

    /// Sets the longest answer, rounded up to a power of two (at least 4 KiB) as zstd's windows are; a longer one is an
    /// error.
    pub fn with_answer_limit(self, bytes: usize) -> Self {
        let bytes = bytes.clamp(FREE_BYTES, MAX_RESPONSE_BYTES);
        let answer_limit = bytes.next_power_of_two().min(MAX_RESPONSE_BYTES);
        Self { answer_limit, ..self }
    }
}

impl From<Bytes> for WireRequest {
    fn from(body: Bytes) -> Self {
        Self { body, deadline: None, answer_limit: MAX_RESPONSE_BYTES, memory: Memory::default() }
    }
}

/// Permits for the memory of a document, held until it is dropped, and the permits that its answer may take. Ignored by
/// comparisons.
#[derive(Debug, Clone, Default)]
struct Memory {
    _held: Option<Arc<Vec<OwnedSemaphorePermit>>>,
    for_answer: Option<Arc<Semaphore>>,
}

impl PartialEq for Memory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memory {}

/// An encoded answer to or from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireResponse {
    /// The encoded document `{"ok": …, "data": …, "errors": …}`.
    pub body: Bytes,
    /// Bytes on the wire, which are fewer where the answer was compressed. 0 for outbound answers.
    pub wire_bytes: usize,
    memory: Memory,
}

impl From<Bytes> for WireResponse {
    fn from(body: Bytes) -> Self {
        Self { body, wire_bytes: 0, memory: Memory::default() }
    }
}

/// Error for a document longer than the protocol allows; the source of the codec's [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than the protocol's limit of {limit} bytes")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

impl TooLarge {
    /// Whether `error` has this source.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<TooLarge>())
    }
}

/// The codec of [`PROTOCOL`](super::PROTOCOL) and [`COMPRESSED_PROTOCOL`]. A request over 1 MiB and an answer over 10
/// MiB are errors ([`TooLarge`]), read or written, and so is an answer longer than its request allows. A stream that
/// ends before the first byte is one as well (`UnexpectedEof`).
#[derive(Debug, Clone, Default)]
pub struct JsonCodec {
    /// Deadline of the request that this clone wrote: libp2p clones the codec for each stream.
    deadline: Option<Instant>,
    /// Longest answer to it; `None`: the protocol's limit.
    answer_limit: Option<usize>,
    /// Memory for the answer to it.
    answer_memory: Option<Arc<Semaphore>>,
    /// Memory for inbound requests.
    request_memory: Option<RequestMemory>,
}

impl JsonCodec {
    /// Makes a codec for inbound requests. Requests longer than 4 KiB share 4 MiB, and up to 32 KiB also 112 KiB per
    /// connection. They have 10 s to arrive, and 10 s for each 64 KiB of the answer.
    pub fn serving() -> Self {
        let memory = RequestMemory { shared: Arc::new(Semaphore::new(SHARED_BYTES)), connection: None };
        Self { request_memory: Some(memory), ..Self::default() }
    }
}

/// Memory for inbound requests while they arrive. libp2p clones the codec of a behaviour for each connection, and that
/// clone for each stream.
#[derive(Debug)]
struct RequestMemory {
    /// Permits of all connections.
    shared: Arc<Semaphore>,
    /// Permits of one connection; `None` in the behaviour's codec.
    connection: Option<Arc<Semaphore>>,
}

impl Clone for RequestMemory {
    fn clone(&self) -> Self {
        let connection = self.connection.clone().unwrap_or_else(|| Arc::new(Semaphore::new(CONNECTION_BYTES)));
        Self { shared: Arc::clone(&self.shared), connection: Some(connection) }
    }
}

impl request_response::Codec for JsonCodec {
    type Protocol = StreamProtocol;
    type Request = WireRequest;
    type Response = WireResponse;

    async fn read_request<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<WireRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let memory = self.request_memory.as_ref();
        let deadline = memory.map(|_| Instant::now() + ARRIVAL_TIMEOUT);
        let permits = memory.map(|memory| [memory.connection.as_ref().unwrap_or(&memory.shared), &memory.shared]);
        let read = before(deadline, read_within(protocol, io, MAX_REQUEST_BYTES, permits)).await?;
        let WireResponse { body, memory, .. } = read;
        Ok(WireRequest { memory, ..body.into() })
    }

    async fn read_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<WireResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        let limit = self.answer_limit.unwrap_or(MAX_RESPONSE_BYTES);
        let permits = self.answer_memory.as_ref().map(|permits| [permits, permits]);
        before(self.deadline, read_within(protocol, io, limit, permits)).await
    }

    async fn write_request<T>(&mut self, protocol: &StreamProtocol, io: &mut T, request: WireRequest) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        (self.deadline, self.answer_limit) = (request.deadline, Some(request.answer_limit));
        self.answer_memory = request.memory.for_answer;
        before(self.deadline, write(protocol, io, request.body, MAX_REQUEST_BYTES)).await
    }

    async fn write_response<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        response: WireResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(protocol, io, response.body, MAX_RESPONSE_BYTES).await
    }
}

/// Fails with `TimedOut` where `work` is not done before the deadline.
async fn before<T>(deadline: Option<Instant>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
        None => work.await,
    }
}

fn is_compressed(protocol: &StreamProtocol) -> bool {
    protocol.as_ref() == COMPRESSED_PROTOCOL
}

/// Reads a document of at most `limit` bytes.
async fn read<T: AsyncRead + Unpin + Send>(
    protocol: &StreamProtocol,
    io: &mut T,
    limit: usize,
) -> io::Result<WireResponse> {
    let wire_limit = if is_compressed(protocol) { compressed::most_bytes(limit) } else { limit };
    let mut wire = Vec::with_capacity(INITIAL_BUFFER_BYTES);
    // One byte more than the limit tells a document of exactly the limit from a longer one.
    io.take(wire_limit as u64 + 1).read_to_end(&mut wire).await?;
    document(protocol, wire, limit)
}

/// Reads a document within shared memory: it takes `permits` as it grows, of the first semaphore for the first growth
/// if it has enough, else of the second.
async fn read_within<T: AsyncRead + Unpin + Send>(
    protocol: &StreamProtocol,
    io: &mut T,
    limit: usize,
    permits: Option<[&Arc<Semaphore>; 2]>,
) -> io::Result<WireResponse> {
    let Some([first, later]) = permits else { return read(protocol, io, limit).await };
    let wire_limit = if is_compressed(protocol) { compressed::most_bytes(limit) } else { limit };
    let mut held: Vec<OwnedSemaphorePermit> = Vec::new();
    let mut grow = |sources: &[&Arc<Semaphore>], bytes: usize| {
        let full = || io::Error::new(io::ErrorKind::OutOfMemory, "no memory for another long document");
        let mut permits = sources.iter().map(|source| Arc::clone(source).try_acquire_many_owned(bytes as u32));
        held.push(permits.find_map(Result::ok).ok_or_else(full)?);
        Ok::<_, io::Error>(())
    };
    let (mut wire, mut allowed) = (Vec::with_capacity(INITIAL_BUFFER_BYTES), FREE_BYTES);
    loop {
        (&mut *io).take((allowed - wire.len()) as u64).read_to_end(&mut wire).await?;
        if wire.len() < allowed || allowed > wire_limit {
            break;
        }
        // One byte more than the limit: see `read`.
        let next = (allowed * GROWTH).min(wire_limit + 1);
        let sources = [first, later];
        grow(if allowed == FREE_BYTES { &sources } else { &sources[1..] }, next - allowed)?;
        allowed = next;
    }
    if is_compressed(protocol) && compressed::is_frame(&wire) {
        grow(&[later], limit)?;
    }
    let document = document(protocol, wire, limit)?;
    // Unneeded permits are given back.
    let mut needed = document.body.len();
    for permit in &mut held {
        let had = permit.num_permits();
        drop(permit.split(had.saturating_sub(needed)));
        needed = needed.saturating_sub(had);
    }
    let held = (!held.is_empty()).then(|| Arc::new(held));
    Ok(WireResponse { memory: Memory { _held: held, for_answer: None }, ..document })
}

/// Decodes the bytes of a stream.
fn document(protocol: &StreamProtocol, wire: Vec<u8>, limit: usize) -> io::Result<WireResponse> {
    let wire_limit = if is_compressed(protocol) { compressed::most_bytes(limit) } else { limit };
    let wire_bytes = wire.len();
    if wire_bytes > wire_limit {
        return Err(too_large(limit));
    }
    let document = if is_compressed(protocol) { compressed::decode(wire, limit)? } else { wire };
    if document.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended without a document"));
    }
    Ok(WireResponse { wire_bytes, ..Bytes::from(document).into() })
}

/// Writes a document of at most `limit` bytes.
async fn write<T: AsyncWrite + Unpin + Send>(
    protocol: &StreamProtocol,
    io: &mut T,
    document: Bytes,
    limit: usize,
) -> io::Result<()> {
    if document.len() > limit {
        return Err(too_large(limit));
    }
    let compressed = match is_compressed(protocol).then(|| compressed::encode(&document)).transpose()? {
        Some(Cow::Owned(bytes)) => Some(Bytes::from(bytes)),
        _ => None,
    };
    let wire = compressed.unwrap_or(document);
    for chunk in wire.chunks(WRITE_CHUNK) {
        before(Some(Instant::now() + WRITE_TIMEOUT), io.write_all(chunk)).await?;
    }
    Ok(())
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, TooLarge { limit })
}

#[cfg(test)]
mod tests;
