//! Carries encoded JSON documents over a libp2p stream: the network's codec, without the JSON.
//!
//! On the wire of [`PROTOCOL`](super::PROTOCOL) it is libp2p's own `json` codec: one document per half of a stream,
//! ended by closing that half. Here the documents stay bytes, so an answer is encoded once (elsewhere), shared and
//! written as it is, and nothing is parsed in the tasks that drive connections. With [`COMPRESSED_PROTOCOL`] each
//! document is [`compressed`].

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

/// First allocation for a document that arrives; it then doubles with what really comes, so that a peer which opens
/// streams and sends nothing costs us this much and no more.
const INITIAL_BUFFER_BYTES: usize = 512;

/// What each document may have while it arrives, where memory is shared. Nearly all requests fit.
const FREE_BYTES: usize = 4096;

/// By this the part of one grows, as more of it arrives.
const GROWTH: usize = 8;

/// What requests of one connection have for their first growth, to 32 KiB, before they need what is shared: four at once.
/// Nobody else can take it from them.
const OWN_BYTES: usize = 4 * (GROWTH - 1) * FREE_BYTES;

/// What longer requests of others may have together, in all connections, until their turn comes: four of the longest. Who
/// would exceed it is cut off.
const SHARED_BYTES: usize = 4 * MAX_REQUEST_BYTES;

/// How long a request of others may take to arrive: its stream is cut then, and its place free.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long each [`WRITE_CHUNK`] of an answer may take to be read: whoever stops reading is cut off, whoever is slow isn't.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_CHUNK: usize = 64 << 10;

/// A request on its way to, or from, a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The encoded document `{"path": …, "data": …}`.
    pub body: Bytes,
    /// When the stream of an outbound request is given up. The behaviour's own timeout is one for all requests; this
    /// one frees the stream as soon as nobody waits any more. `None` on inbound requests.
    pub deadline: Option<Instant>,
    /// Bytes that the answer may have.
    answer_limit: usize,
    room: Room,
}

impl Request {
    /// A request of ours.
    pub fn until(deadline: Instant, body: Bytes) -> Self {
        Self { deadline: Some(deadline), ..body.into() }
    }

    /// The same, whose answer shares memory with others while it arrives: what is longer than 4 KiB takes of `room`, which
    /// is in bytes. Where that has not enough left, the stream ends with an error of the kind `OutOfMemory`.
    pub fn answered_within(self, room: Option<Arc<Semaphore>>) -> Self {
        Self { room: Room { for_answer: room, ..self.room }, ..self }
    }

    /// The same, whose answer has so many bytes at most, rounded up to a power of two (of 4 KiB at least), since zstd's
    /// windows are; a longer one is an error.
    pub fn answered_in(self, bytes: usize) -> Self {
        let bytes = bytes.clamp(FREE_BYTES, MAX_RESPONSE_BYTES);
        let answer_limit = bytes.next_power_of_two().min(MAX_RESPONSE_BYTES);
        Self { answer_limit, ..self }
    }
}

impl From<Bytes> for Request {
    fn from(body: Bytes) -> Self {
        Self { body, deadline: None, answer_limit: MAX_RESPONSE_BYTES, room: Room::default() }
    }
}

/// What a document takes of the memory that it shares with others, until it is dropped, and what its answer may take. Of
/// no meaning to whoever compares.
#[derive(Debug, Clone, Default)]
struct Room {
    _held: Option<Arc<Vec<OwnedSemaphorePermit>>>,
    for_answer: Option<Arc<Semaphore>>,
}

impl PartialEq for Room {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Room {}

/// An answer on its way to, or from, a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The encoded document `{"ok": …, "data": …, "errors": …}`.
    pub body: Bytes,
    /// Bytes of it that the stream carried, which are fewer where it came compressed. 0 on answers of ours.
    pub wire_bytes: usize,
    room: Room,
}

impl From<Bytes> for Response {
    fn from(body: Bytes) -> Self {
        Self { body, wire_bytes: 0, room: Room::default() }
    }
}

/// A document that is longer than the protocol allows, found inside the [`io::Error`] that the codec returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than the protocol's limit of {limit} bytes")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

impl TooLarge {
    /// Whether `error` is this one.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<TooLarge>())
    }
}

/// The codec of [`PROTOCOL`](super::PROTOCOL) and [`COMPRESSED_PROTOCOL`]. A request over 1 MiB and an answer over 10 MiB
/// are errors ([`TooLarge`]), read or written, and so is an answer longer than its request allows. A stream that ends
/// before the first byte is one as well (`UnexpectedEof`).
#[derive(Debug, Clone, Default)]
pub struct JsonCodec {
    /// Of the request that this clone wrote: libp2p clones the codec for each stream.
    deadline: Option<Instant>,
    /// Bytes that the answer to it may have; `None`: as many as the protocol allows.
    answer_limit: Option<usize>,
    /// Room for the answer to it.
    for_answer: Option<Arc<Semaphore>>,
    /// Room for requests of others.
    rooms: Option<Rooms>,
}

impl JsonCodec {
    /// A codec for requests of others. Those longer than 4 KiB share 4 MiB, and up to 32 KiB also the 112 KiB of each clone,
    /// which is a connection's, and its clones. They have 10 s to arrive, and 10 s for each 64 KiB of
    /// the answer.
    pub fn serving() -> Self {
        let rooms = Rooms { all: Arc::new(Semaphore::new(SHARED_BYTES)), own: None };
        Self { rooms: Some(rooms), ..Self::default() }
    }
}

/// What requests of others may have while they arrive. libp2p clones the codec of a behaviour for each connection, and
/// that clone for each stream.
#[derive(Debug)]
struct Rooms {
    all: Arc<Semaphore>,
    /// Of one connection; `None` before there is one.
    own: Option<Arc<Semaphore>>,
}

impl Clone for Rooms {
    fn clone(&self) -> Self {
        let own = self.own.clone().unwrap_or_else(|| Arc::new(Semaphore::new(OWN_BYTES)));
        Self { all: Arc::clone(&self.all), own: Some(own) }
    }
}

impl request_response::Codec for JsonCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let deadline = self.rooms.as_ref().map(|_| Instant::now() + ARRIVAL_TIMEOUT);
        let rooms = self.rooms.as_ref().map(|rooms| [rooms.own.as_ref().unwrap_or(&rooms.all), &rooms.all]);
        let arrived = before(deadline, arrive(protocol, io, MAX_REQUEST_BYTES, rooms)).await?;
        let Response { body, room, .. } = arrived;
        Ok(Request { room, ..body.into() })
    }

    async fn read_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let limit = self.answer_limit.unwrap_or(MAX_RESPONSE_BYTES);
        let rooms = self.for_answer.as_ref().map(|room| [room, room]);
        before(self.deadline, arrive(protocol, io, limit, rooms)).await
    }

    async fn write_request<T>(&mut self, protocol: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        (self.deadline, self.answer_limit) = (request.deadline, Some(request.answer_limit));
        self.for_answer = request.room.for_answer;
        before(self.deadline, write(protocol, io, request.body, MAX_REQUEST_BYTES)).await
    }

    async fn write_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(protocol, io, response.body, MAX_RESPONSE_BYTES).await
    }
}

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

async fn read<T: AsyncRead + Unpin + Send>(
    protocol: &StreamProtocol,
    io: &mut T,
    limit: usize,
) -> io::Result<Response> {
    let wire_limit = if is_compressed(protocol) { compressed::most_bytes(limit) } else { limit };
    let mut wire = Vec::with_capacity(INITIAL_BUFFER_BYTES);
    // One byte more than allowed tells a document of exactly the limit from one that goes on.
    io.take(wire_limit as u64 + 1).read_to_end(&mut wire).await?;
    document(protocol, wire, limit)
}

/// Reads a document, with as much memory as it needs and `rooms` have, where that is shared: the first one for its first
/// growth, as long as there is some, the second one otherwise.
async fn arrive<T: AsyncRead + Unpin + Send>(
    protocol: &StreamProtocol,
    io: &mut T,
    limit: usize,
    rooms: Option<[&Arc<Semaphore>; 2]>,
) -> io::Result<Response> {
    let Some([first, later]) = rooms else { return read(protocol, io, limit).await };
    let wire_limit = if is_compressed(protocol) { compressed::most_bytes(limit) } else { limit };
    let mut held: Vec<OwnedSemaphorePermit> = Vec::new();
    let mut grow = |rooms: &[&Arc<Semaphore>], bytes: usize| {
        let full = || io::Error::new(io::ErrorKind::OutOfMemory, "too many long documents at once");
        let mut parts = rooms.iter().map(|room| Arc::clone(room).try_acquire_many_owned(bytes as u32));
        held.push(parts.find_map(Result::ok).ok_or_else(full)?);
        Ok::<_, io::Error>(())
    };
    let (mut wire, mut allowed) = (Vec::with_capacity(INITIAL_BUFFER_BYTES), FREE_BYTES);
    loop {
        (&mut *io).take((allowed - wire.len()) as u64).read_to_end(&mut wire).await?;
        if wire.len() < allowed || allowed > wire_limit {
            break;
        }
        // One byte more than allowed: see `read`.
        let next = (allowed * GROWTH).min(wire_limit + 1);
        let rooms = [first, later];
        grow(if allowed == FREE_BYTES { &rooms } else { &rooms[1..] }, next - allowed)?;
        allowed = next;
    }
    if is_compressed(protocol) && compressed::is_frame(&wire) {
        grow(&[later], limit)?;
    }
    let document = document(protocol, wire, limit)?;
    // What it might have become is given back.
    let mut needed = document.body.len();
    for part in &mut held {
        let had = part.num_permits();
        drop(part.split(had.saturating_sub(needed)));
        needed = needed.saturating_sub(had);
    }
    let held = (!held.is_empty()).then(|| Arc::new(held));
    Ok(Response { room: Room { _held: held, for_answer: None }, ..document })
}

/// What the bytes of a stream mean.
fn document(protocol: &StreamProtocol, wire: Vec<u8>, limit: usize) -> io::Result<Response> {
    let wire_limit = if is_compressed(protocol) { compressed::most_bytes(limit) } else { limit };
    let wire_bytes = wire.len();
    if wire_bytes > wire_limit {
        return Err(too_large(limit));
    }
    let document = if is_compressed(protocol) { compressed::decode(wire, limit)? } else { wire };
    if document.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended without a document"));
    }
    Ok(Response { wire_bytes, ..Bytes::from(document).into() })
}

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
