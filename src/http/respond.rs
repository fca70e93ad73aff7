//! An answer becomes a response: the body that the client prefers, and headers for its source, verification and
//! caching.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, future, stream};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::{
    envelope::{Rejection, SOURCE, TIP, VERIFICATION, source_name},
    extract::Read,
    gateway::Gateway,
    negotiation::{Coding, Format, Outcome},
    numbers::Numbers,
    representations::{Encoded, Preferences, Representations, lines, unreadable},
    views::ViewRead,
};
use crate::{
    chain::{Level, MinerBlock},
    protocol::{BlockList, CLOSING, Code, Failure, OPENING, Query},
    source::{AnsweredBy, EncodedAnswer, Origin, Source, SourceError, with_deadline},
    store::{Blocks, ChainState},
};

/// Final blocks: any cache may keep them for a day.
const FINAL: HeaderValue = HeaderValue::from_static("public, max-age=86400");
/// Blocks that a reorganisation may replace: not for shared caches, and to be revalidated each time.
const NOT_FINAL: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Capacity of a response's header map: the headers of an answer, and those that the middleware adds.
const HEADERS: usize = 24;

/// What the middleware has to know of a response, in the response's extensions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Details {
    /// Bytes of an answer that was fetched from a peer; the client may be sent fewer.
    pub(super) fetched: u64,
    /// Bytes of the body before it was compressed, if it was: what the client is charged for.
    pub(super) uncompressed: Option<u64>,
    /// The coding that the entity tag is for; `None`: the middleware negotiates it.
    pub(super) negotiated: Option<Negotiated>,
    /// The source that was asked, and how long it took.
    pub(super) timing: Option<(&'static str, Duration)>,
}

/// The coding of a response.
#[derive(Debug, Clone, Copy)]
pub(super) enum Negotiated {
    /// The body is sent as it is: it has its coding already, or needs none.
    Sent,
    /// The body is a stream, which the middleware compresses outside of the limits.
    Stream(Coding),
}

/// Answers a read.
///
/// # Errors
/// The source's error.
pub(super) async fn answer(gateway: &Gateway, read: Read) -> Result<Response, Rejection> {
    let source = &gateway.source;
    if read.query == Query::Canonical && read.origin == Origin::Local && read.supports_chunks {
        return Box::pin(with_deadline(whole_chain(source, &read))).await;
    }
    let asked = Instant::now();
    let served = match &read.anchor {
        Some(anchor) => source.answer_anchored(read.query, anchor).await?,
        None => source.answer(read.query, &read.origin, read.client).await?,
    };
    encoded(&gateway.representations, &served, &read.preferences, asked.elapsed()).await
}

/// Answers a view of the chain.
///
/// # Errors
/// The source's error.
pub(super) async fn view(gateway: &Gateway, read: ViewRead) -> Result<Response, Rejection> {
    let asked = Instant::now();
    let served = gateway.source.view(read.query, read.anchor.as_deref()).await?;
    encoded(&gateway.representations, &served, &read.preferences, asked.elapsed()).await
}

/// The response with an answer that the source took so long for, in the representation that the client prefers.
///
/// # Errors
/// [`Code::Internal`] for an answer that does not have that representation.
async fn encoded(
    representations: &Representations,
    served: &Arc<EncodedAnswer>,
    preferences: &Preferences,
    took: Duration,
) -> Result<Response, Rejection> {
    let representation = preferences.representation(Some(served.body.len()));
    // A shared cache keeps a settled answer for a day, and the tip would be as old.
    let tip = served.tip_text().filter(|_| !served.settled);
    let mut headers = described(representation.format, served.answered_by, tip, served.snapshot.level);
    let etag = representation.etag(served.tag());
    add_caching(&mut headers, &etag, served.settled);
    let is_local = served.answered_by == AnsweredBy::Local;
    let mut details = Details {
        fetched: if is_local { 0 } else { served.body.len() as u64 },
        uncompressed: None,
        negotiated: Some(Negotiated::Sent),
        timing: Some((if is_local { "store" } else { "peer" }, took)),
    };
    let mut response = match preferences.conditions.evaluate(Some(&etag)) {
        Outcome::Failed => precondition_failed(),
        Outcome::NotModified => not_modified(headers),
        Outcome::Answer => {
            let Encoded { body, uncompressed } = representations.get(served, representation, &etag).await?;
            details.uncompressed = Some(uncompressed);
            if let Some(coding) = representation.coding {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
            }
            with_headers(headers, body.into())
        }
    };
    response.extensions_mut().insert(details);
    Ok(response)
}

fn with_headers(headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

fn not_modified(headers: HeaderMap) -> Response {
    let mut response = with_headers(headers, Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn precondition_failed() -> Response {
    Rejection::from(Failure::new(Code::PreconditionFailed)).into_response()
}

/// Streams the whole chain, so that memory stays flat whatever its length.
async fn whole_chain(source: &Source, read: &Read) -> Result<Response, Rejection> {
    let state = source.state().await?;
    match whole_chain_of(source, read, &state).await {
        // The chain may have changed since `state` was read: the anchor may be on the one that replaced it.
        Err(Rejection(SourceError { failure, .. })) if failure.code == Code::AnchorNotCanonical => {
            whole_chain_of(source, read, &source.state_now().await?).await
        }
        response => response,
    }
}

async fn whole_chain_of(source: &Source, read: &Read, state: &ChainState) -> Result<Response, Rejection> {
    if let Some(anchor) = &read.anchor {
        source.check_anchor_in(state, anchor).await?;
    }
    let tip = state.tip.as_ref().map(|tip| tip.to_string().into());
    let representation = read.preferences.representation(None);
    let mut headers = described(representation.format, AnsweredBy::Local, tip.as_ref(), state.level);
    let tag = chain_tag(state.length, state.tip_hash().unwrap_or_default());
    let etag = representation.etag(&tag);
    add_caching(&mut headers, &etag, false);
    match read.preferences.conditions.evaluate(Some(&etag)) {
        Outcome::Answer => {}
        Outcome::NotModified => return Ok(not_modified(headers)),
        Outcome::Failed => return Ok(precondition_failed()),
    }
    let negotiated = Some(representation.coding.map_or(Negotiated::Sent, Negotiated::Stream));
    let details = Details { negotiated, ..Details::default() };
    if read.preferences.conditions.is_head {
        // The chain is not read for it. As a stream the body has no length, as for `GET`.
        let mut response = with_headers(headers, Body::from_stream(stream::empty::<Result<Bytes, Failure>>()));
        response.extensions_mut().insert(details);
        return Ok(response);
    }
    let pages = source.pages(state).map_ok(move |page| match representation.numbers {
        Numbers::Number => page,
        Numbers::String => {
            let list = BlockList { json: Numbers::quoted(&page.list.json), ..page.list };
            Blocks { list, ..page }
        }
    });
    let mut pages = Box::pin(pages.peekable());
    // A store that fails at once still gets its status; later the body can only break off.
    if let Some(Err(failure)) = pages.as_mut().peek().await {
        return Err(failure.clone().into());
    }
    let body = match representation.format {
        Format::Json => Body::from_stream(envelope_of(pages)),
        Format::Ndjson => Body::from_stream(pages.map(|page| lines(&page?.list.json))),
        Format::Csv => Body::from_stream(csv_of(pages)),
    };
    let mut response = with_headers(headers, body);
    response.extensions_mut().insert(details);
    Ok(response)
}

/// The entity tag of the whole chain, in quotes. It is hashed, since the tip's hash may be any text on an unverified
/// chain, also one with quotes or commas; the length distinguishes such chains.
fn chain_tag(length: u64, tip: &str) -> Bytes {
    format!("\"{}\"", hex::encode(&Sha256::digest(format!("{length}-{tip}"))[..16])).into()
}

/// The same bytes that [`Answer::Canonical`](crate::protocol::Answer::Canonical) writes, page by page. The comma
/// between two pages is a piece of its own, so that no page is copied.
fn envelope_of(
    pages: impl stream::Stream<Item = Result<Blocks, Failure>> + Send + 'static,
) -> impl stream::Stream<Item = Result<String, Failure>> + Send + 'static {
    let opening = stream::once(future::ready(Ok(format!(r#"{OPENING}{{"blocks":["#))));
    // The count follows the last page; `page` is what follows a comma.
    let blocks =
        stream::try_unfold((Box::pin(pages), 0u64, None, false), |(mut pages, count, page, ended)| async move {
            if page.is_some() || ended {
                return Ok(page.map(|page: String| (page, (pages, count, None, ended))));
            }
            Ok(Some(match pages.try_next().await? {
                Some(page) if count == 0 => (page.list.json, (pages, page.list.count, None, false)),
                Some(page) => (",".into(), (pages, count + page.list.count, Some(page.list.json), false)),
                None => (format!(r#"],"count":{count}}}{CLOSING}"#), (pages, count, None, true)),
            }))
        });
    opening.chain(blocks)
}

/// The pages as CSV. A page is parsed for it, which takes milliseconds.
fn csv_of(
    pages: impl stream::Stream<Item = Result<Blocks, Failure>> + Send + 'static,
) -> impl stream::Stream<Item = Result<String, Failure>> + Send + 'static {
    let lines = pages.and_then(|page| async move {
        let lines = move || page.list.parse().map(|blocks: Vec<MinerBlock>| MinerBlock::csv_lines(&blocks));
        spawn_blocking(lines).await.map_err(unreadable)?.map_err(unreadable)
    });
    stream::once(future::ready(Ok(MinerBlock::csv_header()))).chain(lines)
}

/// The headers for the format and the source of an answer. `tip` is the text of [`TIP`].
fn described(format: Format, answered_by: AnsweredBy, tip: Option<&Bytes>, level: Option<Level>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Some(source) = source_name(answered_by) {
        headers.insert(SOURCE, source);
    }
    // Hashes of unverified chains may be any text: one that can't be a header's value is left out.
    if let Some(Ok(tip)) = tip.map(|tip| HeaderValue::from_maybe_shared(tip.clone())) {
        headers.insert(TIP, tip);
    }
    if let Some(level) = level {
        headers.insert(VERIFICATION, HeaderValue::from_static(level.as_str()));
    }
    headers
}

/// Adds the headers for caches.
fn add_caching(headers: &mut HeaderMap, etag: &HeaderValue, settled: bool) {
    headers.insert(header::ETAG, etag.clone());
    headers.insert(header::CACHE_CONTROL, if settled { FINAL } else { NOT_FINAL });
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::http::{negotiation::Conditions, representations::Representation};

    #[test]
    fn the_tag_of_a_chain_is_well_formed_whatever_its_hashes_are() {
        let tips = ["", "00ab", "a\", \"b", "a, b", "ä\n", "*"];
        let tags: Vec<_> = tips.iter().map(|tip| chain_tag(2, tip)).collect();
        for (i, tag) in tags.iter().enumerate() {
            let text = str::from_utf8(tag).unwrap().trim_matches('"');
            assert!(text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
            assert!(!tags[..i].contains(tag) && *tag != chain_tag(3, tips[i]), "{text} twice");
            let tag = Representation::default().etag(tag);
            let copies = HeaderValue::try_from(format!("\"other\", W/{}", tag.to_str().unwrap())).unwrap();
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, copies)]);
            assert_eq!(Conditions::of(&Method::GET, &headers).evaluate(Some(&tag)), Outcome::NotModified);
        }
    }
}
