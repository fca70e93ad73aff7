//! Compression of what is not kept: streams of the chain, pages, and answers about the gateway itself. It is done anew
//! for each request, while the response is sent.
//!
//! Answers with blocks come here compressed, or with a decision: see [`Details`].

use std::{convert::Infallible, future};

use axum::{
    body::Body,
    extract::Request,
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use hyper::body::Body as _;
use tower::{ServiceExt, service_fn};
use tower_http::compression::{self, CompressionLevel};

use crate::http::{
    extract,
    negotiation::{Coding, Codings},
    respond::{Details, Negotiated},
};

/// Text formats beside `text/…` and those that end in `+xml` or `+json`.
const TEXT: [&str; 4] =
    ["application/json", "application/javascript", "application/x-ndjson", "application/manifest+json"];

/// How the client wants a response to be compressed.
pub(in crate::http) struct Compression {
    codings: Codings,
    /// Whether the client's copy, if it has one, has a weak entity tag.
    has_weak_tag: bool,
    has_chunks: bool,
}

impl Compression {
    /// As the request asks for.
    pub fn of(request: &Request) -> Self {
        let copies = request.headers().get(header::IF_NONE_MATCH);
        Self {
            // A client that accepts nothing of ours gets an error, which is sent as it is.
            codings: Codings::of(request.headers()).unwrap_or_default(),
            has_weak_tag: copies.is_some_and(|copies| copies.as_bytes().starts_with(b"W/")),
            has_chunks: extract::supports_chunks(request.version()),
        }
    }

    /// Compresses the response.
    pub async fn apply(self, mut response: Response) -> Response {
        let negotiated = response.extensions().get().and_then(|details: &Details| details.negotiated);
        match negotiated {
            Some(Negotiated::Stream(coding)) if response.status() == StatusCode::OK => {
                return Box::pin(compressed(response, coding)).await;
            }
            Some(_) => return response,
            None => {}
        }
        match response.status() {
            // Before HTTP/1.1 a body of unknown length ends with the connection, like one that breaks off.
            StatusCode::OK if self.has_chunks && may_be_compressed(response.headers()) => {
                add_vary(response.headers_mut());
                let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
                let Some(coding) = self.codings.choose(bytes) else { return response };
                weaken_tag(response.headers_mut());
                Box::pin(compressed(response, coding)).await
            }
            StatusCode::NOT_MODIFIED if self.has_chunks => {
                add_vary(response.headers_mut());
                // The tag of the client's copy, which was weakened when it was compressed.
                if self.has_weak_tag {
                    weaken_tag(response.headers_mut());
                }
                response
            }
            _ => response,
        }
    }
}

/// Whether a body is text that may be changed on the way.
fn may_be_compressed(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
    let is_text = kind.starts_with("text/") || kind.ends_with("+xml") || TEXT.contains(&kind.as_str());
    is_text
        && kind != "text/event-stream"
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !text(header::CACHE_CONTROL).contains("no-transform")
}

/// Says that the coding depends on the request.
fn add_vary(headers: &mut HeaderMap) {
    let names =
        |line: &HeaderValue| line.to_str().is_ok_and(|line| line.to_ascii_lowercase().contains("accept-encoding"));
    if !headers.get_all(header::VARY).iter().any(names) {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Makes a strong entity tag a weak one: the compressed body has other bytes.
fn weaken_tag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get_mut(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

/// The response, compressed while it is sent.
async fn compressed(response: Response, coding: Coding) -> Response {
    // The layer compresses the response of a service as a request asks for: here of one that has it already.
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding.as_str()));
    let mut response = Some(response);
    let service = service_fn(move |_: Request| future::ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let service = compression::Compression::new(service).quality(CompressionLevel::Default).compress_when(always);
    match service.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// The layer's predicate: whether to compress is decided.
fn always(_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use rstest::rstest;

    use super::*;

    const TEXT: &str = "the same again and again, ";

    /// The answer to a request with these headers, of a handler that answers with those.
    async fn answer(asked: &[(HeaderName, &str)], answered: &[(HeaderName, &'static str)], bytes: usize) -> Response {
        let mut response = Response::new(Body::from(TEXT.repeat(1 + bytes / TEXT.len())[..bytes].to_owned()));
        for (name, value) in answered {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        // The handler of a copy that is current.
        if bytes == 0 {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let mut request = Request::new(Body::empty());
        for (name, value) in asked {
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        Compression::of(&request).apply(response).await
    }

    const GZIP: (HeaderName, &str) = (header::ACCEPT_ENCODING, "gzip");
    const HTML: (HeaderName, &str) = (header::CONTENT_TYPE, "text/html; charset=utf-8");

    #[tokio::test]
    async fn a_page_is_compressed_and_says_so() {
        let response = answer(&[GZIP], &[HTML, (header::ETAG, "\"a\""), (header::VARY, "accept")], 5000).await;
        let headers = response.headers().clone();
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(headers[header::ETAG], "W/\"a\"");
        assert!(!headers.contains_key(header::CONTENT_LENGTH));
        assert!(headers.get_all(header::VARY).iter().eq(["accept", "accept-encoding"]));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text).unwrap();
        assert!(body.len() < 500 && text.len() == 5000 && text.starts_with(TEXT), "{}", body.len());
    }

    #[rstest]
    #[case::short(GZIP, HTML, 1023)]
    #[case::an_image(GZIP, (header::CONTENT_TYPE, "image/png"), 5000)]
    #[case::events(GZIP, (header::CONTENT_TYPE, "text/event-stream"), 5000)]
    #[case::unknown((header::ACCEPT_ENCODING, "deflate"), HTML, 5000)]
    #[case::not_asked((header::ACCEPT, "*/*"), HTML, 5000)]
    #[tokio::test]
    async fn others_are_sent_as_they_are(
        #[case] asked: (HeaderName, &str),
        #[case] answered: (HeaderName, &'static str),
        #[case] bytes: usize,
    ) {
        let response = answer(&[asked], &[answered], bytes).await;
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(response.body().size_hint().exact(), Some(bytes as u64));
    }

    #[tokio::test]
    async fn what_must_not_be_changed_is_not() {
        for fixed in [(header::CACHE_CONTROL, "no-store, no-transform"), (header::CONTENT_ENCODING, "br")] {
            let response = answer(&[GZIP], &[HTML, fixed.clone()], 5000).await;
            assert_eq!(response.headers().get(&fixed.0).unwrap(), fixed.1);
            assert_eq!(response.body().size_hint().exact(), Some(5000));
        }
    }

    #[tokio::test]
    async fn a_copy_that_is_current_keeps_its_tag() {
        let current = [(header::ETAG, "\"a\"")];
        for copy in ["W/\"a\"", "\"a\""] {
            let response = answer(&[GZIP, (header::IF_NONE_MATCH, copy)], &current, 0).await;
            assert_eq!(
                (response.status(), &response.headers()[header::ETAG]),
                (StatusCode::NOT_MODIFIED, &HeaderValue::from_static(copy))
            );
        }
    }
}
