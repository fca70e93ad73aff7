//! A request becomes a typed query, the source that answers it, and the form of the answer.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, Method, Uri, Version, header},
};
use bytes::BytesMut;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    envelope::Rejection,
    gateway::Gateway,
    limits::{SHORT_BODY, client::Client},
    numbers::{self, Numbers},
    representations::Preferences,
    server::BodyTimeout,
};
use crate::{
    protocol::{
        Code, Failure, MAX_REQUEST_BYTES, Query,
        query::{self, Kind, Parameter, Path, optional, pairs, parse_apart},
    },
    source::Origin,
};

/// Bytes of a body that is too long that are read before it is refused.
const MAX_DRAINED_BYTES: usize = 8 * MAX_REQUEST_BYTES;
/// How long they are read.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long reading them may pause.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

/// Longer bodies are parsed outside the runtime's threads, which they would hold for milliseconds.
const LONG_BODY: usize = 64 << 10;

/// A read: a query, the source that answers it, and the form of the answer.
#[derive(Debug)]
pub struct Read {
    /// The query.
    pub query: Query,
    /// The source of the answer: `?peer=`.
    pub origin: Origin,
    /// The client's number, so that clients share the requests in flight to a peer fairly.
    pub client: u64,
    /// The block that a paged read is pinned to: `?anchor=`.
    pub anchor: Option<String>,
    /// The representation that the client prefers, `?numbers=` included, and the conditions of the request.
    pub preferences: Preferences,
    /// See [`supports_chunks`].
    pub(super) supports_chunks: bool,
}

impl FromRequest<Arc<Gateway>> for Read {
    type Rejection = Rejection;

    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Self, Rejection> {
        let (parts, body) = request.into_parts();
        let row = query::path(parts.uri.path())?;
        let pairs = pairs(parts.uri.query().unwrap_or_default())?;
        let (mut peer, mut anchor, mut numbers, mut parameters) = (None, None, None, Vec::new());
        for (name, value) in &pairs {
            let slot = match &**name {
                "peer" => &mut peer,
                "anchor" => &mut anchor,
                // Elsewhere it is a parameter like any other: `/ping` echoes it.
                numbers::NAME if row.gives_blocks() => &mut numbers,
                name => {
                    parameters.push((name, &**value));
                    continue;
                }
            };
            if slot.replace(&**value).is_some() {
                let detail = format!("{name} is given twice");
                return Err(Failure::with_detail(Code::InvalidParameter, detail).into());
            }
        }
        let query = if parts.method == Method::POST {
            if let Some((name, _)) = parameters.first() {
                let cut: String = name.chars().take(64).collect();
                let detail = format!("{cut:?} in the query string: the parameters of a POST go into its JSON body");
                return Err(with_shared(row, Failure::with_detail(Code::UnknownParameter, detail)).into());
            }
            Box::pin(query_of_body(row, &parts.headers, body)).await
        } else {
            row.query_of_pairs(parameters.into_iter())
        };
        let query = query.map_err(|failure| with_shared(row, failure))?;
        let origin = match peer {
            Some(name) => gateway.source.origin(name)?,
            None => Origin::Local,
        };
        if anchor.is_some() && !(row.is_list() && origin == Origin::Local) {
            let detail = "anchor: only for lists from the gateway's own store";
            return Err(Failure::with_detail(Code::InvalidParameter, detail).into());
        }
        let numbers = Numbers::asked(numbers)?;
        Ok(Self {
            query,
            origin,
            client: parts.extensions.get().map_or(0, |client: &Client| client.key.number()),
            anchor: anchor.map(str::to_owned),
            preferences: Preferences::of(&parts.method, &parts.headers, row.is_list(), numbers)?,
            supports_chunks: supports_chunks(parts.version),
        })
    }
}

/// Adds to the failure of an unknown parameter those that a path takes in the query string beside its own, with any
/// method.
fn with_shared(row: &Path, failure: Failure) -> Failure {
    match (failure.code, &failure.detail) {
        (Code::UnknownParameter, Some(detail)) => {
            let (list, blocks) = (row.is_list().then_some("anchor"), row.gives_blocks().then_some(numbers::NAME));
            let names: Vec<_> = ["peer"].into_iter().chain(list).chain(blocks).collect();
            let detail = format!("{detail}; the query string may have {}", names.join(", "));
            failure.detail(detail)
        }
        _ => failure,
    }
}

/// The query of a `POST`.
async fn query_of_body(row: &'static Path, headers: &HeaderMap, body: Body) -> Result<Query, Failure> {
    let bytes = read_body(headers, body).await?;
    match bytes.len() > LONG_BODY {
        true => parse_apart(move || row.query_of_body(&bytes)).await,
        false => row.query_of_body(&bytes),
    }
}

/// The query parameters of a route about the gateway itself: a JSON object of those that are there, or null.
pub(super) fn parameters(path: &str, known: &[Parameter], uri: &Uri) -> Result<Value, Failure> {
    let pairs = pairs(uri.query().unwrap_or_default())?;
    query::data_from_text(path, Some(known), pairs.iter().map(|(name, value)| (&**name, &**value)))
}

/// An integer from another part of a request, written as in a query string.
pub(super) fn integer(name: &'static str, text: &str) -> Result<u64, Failure> {
    let data = query::data_from_text("", Some(&[optional(name, Kind::Integer)]), [(name, text)].into_iter())?;
    data[name].as_u64().ok_or_else(|| Failure::new(Code::InvalidParameter))
}

/// Whether an answer of unknown length has a visible end. Before HTTP/1.1 it ends with the connection, as one that
/// breaks off does (RFC 9112, section 6.3).
pub(super) fn supports_chunks(version: Version) -> bool {
    version >= Version::HTTP_11
}

/// Whether a peer answers a request: whether it has `?peer=`.
pub(super) fn is_forwarded(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| {
        query.split('&').any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            name == "peer" || name.contains('%') && percent_decode_str(name).eq(b"peer".iter().copied())
        })
    })
}

/// Receives a body of at most [`MAX_REQUEST_BYTES`]; returns it with its permits of `memory`, one for each byte. A body
/// of at most [`SHORT_BODY`] needs none when there are none left: large bodies must not block others' requests.
///
/// # Errors
/// A body that is too large, too slow, or breaks off; no permits left.
pub(super) async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    memory: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let too_large =
        || Failure::with_detail(Code::RequestTooLarge, format!("a body has at most {MAX_REQUEST_BYTES} bytes"));
    let take = |bytes: usize| {
        let bytes = u32::try_from(bytes).map_err(|_| too_large())?;
        memory.clone().try_acquire_many_owned(bytes).map_err(|_| Failure::new(Code::Busy))
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > MAX_REQUEST_BYTES as u64) {
        // A client that waits for `100 Continue` sends nothing.
        if !headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(too_large());
    }
    let (mut bytes, mut taken) = (BytesMut::new(), take(0)?);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_REQUEST_BYTES {
            drop((bytes, taken));
            drain(body).await;
            return Err(too_large());
        }
        match take(data.len()) {
            Ok(more) => taken.merge(more),
            Err(_) if bytes.len() + data.len() <= SHORT_BODY => {}
            Err(busy) => return Err(busy),
        }
        if bytes.is_empty() && hyper::body::Body::is_end_stream(&body) {
            return Ok((data, taken));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), taken))
}

/// Reads what the client still sends, for a while: if it were answered while it sends, its connection might be reset
/// before it reads the answer.
async fn drain(mut body: Body) {
    let rest = async {
        let mut left = MAX_DRAINED_BYTES;
        while let Ok(Some(Ok(frame))) = timeout(DRAIN_PAUSE, body.frame()).await
            && let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left = less;
        }
    };
    // The body is refused whether or not it has ended.
    let _ = timeout(DRAIN_TIME, rest).await;
}

/// The failure of a body that did not come to its end.
fn broken(error: &(dyn Error + 'static)) -> Failure {
    let mut causes = std::iter::successors(Some(error), |cause| (*cause).source());
    match causes.any(|cause| cause.is::<BodyTimeout>()) {
        true => Failure::with_detail(Code::RequestTimeout, "the body came too slowly"),
        false => Failure::with_detail(Code::MalformedBody, "the body broke off"),
    }
}

/// Receives the body of a `POST`, which must be declared as JSON unless it is empty.
pub(super) async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Failure> {
    let memory = Arc::new(Semaphore::new(MAX_REQUEST_BYTES));
    let (bytes, _) = receive(headers, body, &memory).await?;
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if !codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Err(Failure::with_detail(Code::UnsupportedMediaType, "a body is sent without a content encoding"));
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("?"));
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_json =
        headers.get_all(header::CONTENT_TYPE).iter().count() == 1 && kind.eq_ignore_ascii_case("application/json");
    if !bytes.is_empty() && !is_json {
        return Err(Failure::with_detail(Code::UnsupportedMediaType, "a body is sent as application/json"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_body_needs_no_permit() {
        let memory = Arc::new(Semaphore::new(0));
        let received = async |bytes: usize| receive(&HeaderMap::new(), Body::from(vec![0; bytes]), &memory).await;
        assert_eq!(received(SHORT_BODY).await.unwrap().0.len(), SHORT_BODY);
        assert_eq!(received(SHORT_BODY + 1).await.unwrap_err().code, Code::Busy);
    }
}
