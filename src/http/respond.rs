//! An answer becomes a response: the envelope's bytes as they are, and headers that say where it came from, how far
//! it is verified and who may keep it.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, future, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error::Rejection,
    extract::{Format, Read},
};
use crate::{
    chain::Level,
    protocol::{CLOSING, Code, Failure, OPENING, Query},
    source::{AnsweredBy, EncodedAnswer, Origin, Source, SourceError, with_deadline},
    store::{Blocks, ChainState, Tip},
};

/// Who answered: `local`, or `peer:` and its id.
pub const SOURCE: HeaderName = HeaderName::from_static("x-modal-source");
/// The tip of the gateway's store: index, colon, hash.
pub const TIP: HeaderName = HeaderName::from_static("x-modal-tip");
/// The weakest verification among the blocks in the answer: `pow`, `linked` or `none`.
pub const VERIFICATION: HeaderName = HeaderName::from_static("x-modal-verification");

/// Blocks below the finality depth: any cache may keep them for a day.
const SETTLED: HeaderValue = HeaderValue::from_static("public, max-age=86400");
/// Blocks that a reorganisation may replace: not for shared caches, and to be asked for again each time.
const UNSETTLED: HeaderValue = HeaderValue::from_static("private, no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Bytes of an answer that was fetched from a peer, however few of them the client is sent. In a response's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetched(pub u64);

/// Answers a read.
///
/// # Errors
/// What the source declines, and why.
pub async fn answer(source: &Source, read: Read) -> Result<Response, Rejection> {
    if read.query == Query::Canonical && read.origin == Origin::Local && read.takes_chunks {
        return with_deadline(whole_chain(source, &read)).await;
    }
    let served = match &read.anchor {
        Some(anchor) => source.answer_anchored(read.query, anchor).await?,
        None => source.answer(read.query, &read.origin, read.asker).await?,
    };
    let mut headers = provenance(served.answered_by, served.tip.as_ref(), served.level);
    let tag = cached(&mut headers, served.tag(), read.format, served.settled);
    let mut response = match read.format {
        _ if matches(read.if_none_match.as_deref(), &tag) => (StatusCode::NOT_MODIFIED, headers).into_response(),
        Format::Json => (headers, served.body.clone()).into_response(),
        Format::Ndjson => (headers, lines_of(&served)?).into_response(),
    };
    if served.answered_by != AnsweredBy::Local {
        response.extensions_mut().insert(Fetched(served.body.len() as u64));
    }
    Ok(response)
}

/// Streams the whole chain, so that memory stays flat whatever its length.
async fn whole_chain(source: &Source, read: &Read) -> Result<Response, Rejection> {
    let state = source.state().await?;
    match whole_chain_of(source, read, &state).await {
        // It may be the state that is of another chain by now: who named no block takes whichever there is, and whose
        // block is still in it keeps it.
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
    let mut headers = provenance(AnsweredBy::Local, state.tip.as_ref(), state.level);
    // The tip's hash stands for the whole chain. The length is there for chains whose hashes mean nothing.
    let name = state.tip.as_ref().map_or("empty", |tip| tip.hash.as_str());
    let tag = cached(&mut headers, &format!("{}-{name}", state.length), read.format, false);
    if matches(read.if_none_match.as_deref(), &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let mut pages = Box::pin(source.pages(state).peekable());
    // A store that fails at once still gets its status; later the body can only break off.
    if let Some(Err(failure)) = pages.as_mut().peek().await {
        return Err(failure.clone().into());
    }
    let body = match read.format {
        Format::Json => Body::from_stream(envelope_of(pages)),
        Format::Ndjson => Body::from_stream(pages.map(|page| lines(&page?.json))),
    };
    Ok((headers, body).into_response())
}

/// The same bytes that [`Answer::Canonical`](crate::protocol::Answer::Canonical) writes, page by page.
fn envelope_of(
    pages: impl stream::Stream<Item = Result<Blocks, Failure>> + Send + 'static,
) -> impl stream::Stream<Item = Result<String, Failure>> + Send + 'static {
    let opening = stream::once(future::ready(Ok(format!(r#"{OPENING}{{"blocks":["#))));
    // One page ahead of the end comes the count, so both are one stream with the count carried along.
    let blocks = stream::try_unfold((Box::pin(pages), 0u64, false), |(mut pages, count, ended)| async move {
        if ended {
            return Ok(None);
        }
        Ok(match pages.try_next().await? {
            Some(page) => {
                let comma = if count == 0 { "" } else { "," };
                Some((format!("{comma}{}", page.json), (pages, count + page.count, false)))
            }
            None => Some((format!(r#"],"count":{count}}}{CLOSING}"#), (pages, count, true))),
        })
    });
    opening.chain(blocks)
}

/// The value of [`SOURCE`].
pub(super) fn source_name(answered_by: AnsweredBy) -> Option<HeaderValue> {
    match answered_by {
        AnsweredBy::Local => Some(HeaderValue::from_static("local")),
        peer => HeaderValue::try_from(peer.to_string()).ok(),
    }
}

fn provenance(answered_by: AnsweredBy, tip: Option<&Tip>, level: Option<Level>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(source) = source_name(answered_by) {
        headers.insert(SOURCE, source);
    }
    // Hashes of unverified chains may be any text: one that is no header value is left out.
    if let Some(Ok(tip)) = tip.map(|tip| HeaderValue::try_from(format!("{}:{}", tip.index, tip.hash))) {
        headers.insert(TIP, tip);
    }
    if let Some(level) = level {
        headers.insert(VERIFICATION, HeaderValue::from_static(level.as_str()));
    }
    headers
}

/// Adds what caches need to know; returns the entity tag.
fn cached(headers: &mut HeaderMap, tag: &str, format: Format, settled: bool) -> HeaderValue {
    let form = if format == Format::Ndjson { "-lines" } else { "" };
    let tag = HeaderValue::try_from(format!("\"{tag}{form}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    headers.insert(header::CONTENT_TYPE, if format == Format::Ndjson { NDJSON } else { JSON });
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::CACHE_CONTROL, if settled { SETTLED } else { UNSETTLED });
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    tag
}

/// Whether one of the client's copies is the current one. Weak comparison, as RFC 9110 has it for `If-None-Match`.
fn matches(if_none_match: Option<&str>, tag: &HeaderValue) -> bool {
    let (Some(copies), Ok(tag)) = (if_none_match, tag.to_str()) else { return false };
    copies.split(',').map(str::trim).any(|copy| copy == "*" || copy.strip_prefix("W/").unwrap_or(copy) == tag)
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    blocks: Vec<&'a RawValue>,
}

/// The blocks of a list, one a line.
fn lines_of(served: &Arc<EncodedAnswer>) -> Result<Bytes, Failure> {
    let list: Listed<'_> = serde_json::from_slice(served.data()).map_err(|_| Failure::new(Code::Internal))?;
    Ok(joined(&list.blocks))
}

fn lines(json: &str) -> Result<Bytes, Failure> {
    let list = format!("[{json}]");
    let blocks: Vec<&RawValue> = serde_json::from_str(&list).map_err(|_| Failure::new(Code::Internal))?;
    Ok(joined(&blocks))
}

fn joined(blocks: &[&RawValue]) -> Bytes {
    let mut out = String::with_capacity(blocks.iter().map(|block| block.get().len() + 1).sum());
    for block in blocks {
        out.push_str(block.get());
        out.push('\n');
    }
    out.into()
}
