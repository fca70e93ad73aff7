//! Content negotiation (RFC 9110, section 12) and conditional requests (section 13).

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::envelope::Rejection;
use crate::protocol::{Code, Failure};

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The envelope, `application/json`.
    Json,
    /// One block a line, `application/x-ndjson`.
    Ndjson,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The format that the client prefers; of two that it likes as much, the one that it names, else JSON. Only lists
    /// have lines.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`].
    pub(super) fn of(headers: &HeaderMap, is_list: bool) -> Result<Self, Failure> {
        let preference = |format: Self| preference(headers, format.media_type());
        let (json, lines) = (preference(Self::Json), preference(Self::Ndjson));
        match () {
            () if is_list && lines.quality > 0.0 && lines > json => Ok(Self::Ndjson),
            () if json.quality > 0.0 => Ok(Self::Json),
            () => {
                let lists = if is_list { " or application/x-ndjson" } else { "" };
                Err(Failure::with_detail(Code::NotAcceptable, format!("this is answered as application/json{lists}")))
            }
        }
    }
}

/// How much a client wants a media type.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Preference {
    /// From 0, not at all, to 1.
    quality: f32,
    /// How specific the range is that says so: 3 for the type itself, 2 for its family, 1 for any type.
    specific: u8,
}

/// How much the client wants `media_type`: the quality of the most specific range in its `Accept` lines.
fn preference(headers: &HeaderMap, media_type: &str) -> Preference {
    let family = media_type.split('/').next().unwrap_or_default();
    let lines = headers.get_all(header::ACCEPT).iter().map(|line| line.to_str().unwrap_or_default());
    let (mut best, mut has_ranges) = (Preference { quality: 0.0, specific: 0 }, false);
    for entry in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty()) {
        has_ranges = true;
        let mut parts = entry.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match range.split_once('/') {
            Some(("*", "*")) => 1,
            Some((kind, "*")) if kind == family => 2,
            _ if range == media_type => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let quality = quality.map_or(Some(1.0), |text| text.parse().ok());
        let quality = quality.filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0);
        if (specific, quality) > (best.specific, best.quality) {
            best = Preference { quality, specific };
        }
    }
    if has_ranges { best } else { Preference { quality: 1.0, specific: 1 } }
}

/// Refuses what the client does not accept, on routes whose answers have one format. Probes are answered in any case.
pub(super) async fn acceptable(request: Request, next: Next) -> Response {
    let accept: HeaderMap =
        request.headers().get_all(header::ACCEPT).iter().map(|line| (header::ACCEPT, line.clone())).collect();
    let is_probe = request.uri().path().starts_with("/health/");
    let response = next.run(request).await;
    if accept.is_empty() || is_probe || response.status() != StatusCode::OK {
        return response;
    }
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match media_type.and_then(|kind| kind.split(';').next()) {
        Some(kind) if preference(&accept, kind.trim()).quality == 0.0 => {
            Rejection::from(Failure::with_detail(Code::NotAcceptable, format!("this is answered as {kind}")))
                .into_response()
        }
        _ => response,
    }
}

/// The conditions of a request: entity tags separated by commas, or `*`.
#[derive(Debug, Default)]
pub struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    /// Whether the method is `GET` or `HEAD`.
    reads: bool,
}

/// What a request's conditions ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer.
    Answer,
    /// 304: the client's copy is current.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    /// The conditions in a request's headers.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let all = |name: HeaderName| {
            let lines: Vec<_> = headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
            (!lines.is_empty()).then(|| lines.join(","))
        };
        let reads = method == Method::GET || method == Method::HEAD;
        Self { if_match: all(header::IF_MATCH), if_none_match: all(header::IF_NONE_MATCH), reads }
    }

    /// Evaluates them, in the order of RFC 9110, for an answer with this entity tag.
    pub(super) fn evaluate(&self, tag: &HeaderValue) -> Outcome {
        let tag = tag.to_str().unwrap_or_default();
        let any = |list: &str, same: fn(&str, &str) -> bool| {
            list.split(',').map(str::trim).any(|copy| copy == "*" || same(copy, tag))
        };
        // Weak tags never match strongly.
        if self.if_match.as_deref().is_some_and(|list| !any(list, |copy, tag| copy == tag)) {
            return Outcome::Failed;
        }
        match self.if_none_match.as_deref() {
            Some(list) if any(list, |copy, tag| copy.strip_prefix("W/").unwrap_or(copy) == tag) => match self.reads {
                true => Outcome::NotModified,
                false => Outcome::Failed,
            },
            _ => Outcome::Answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(name: HeaderName, lines: &str) -> HeaderMap {
        lines.lines().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect()
    }

    /// The format by the `Accept` lines in `accept`, one a line.
    fn negotiated(accept: &str, is_list: bool) -> Option<Format> {
        Format::of(&headers(header::ACCEPT, accept), is_list).ok()
    }

    #[test]
    fn the_format_is_negotiated() {
        assert_eq!(negotiated("*/*", true), Some(Format::Json));
        assert_eq!(negotiated("application/x-ndjson", true), Some(Format::Ndjson));
        assert_eq!(negotiated("application/x-ndjson", false), None);
        assert_eq!(negotiated("text/html, application/x-ndjson;q=0.5, */*;q=0.1", true), Some(Format::Ndjson));
        assert_eq!(negotiated("application/json;q=0", true), None);
        assert_eq!(negotiated("text/html", true), None);
        assert_eq!(negotiated("application/json;Q=0.1, application/x-ndjson;Q=0.2", true), Some(Format::Ndjson));
        assert_eq!(negotiated("application/json;Q=0", true), None);
        assert_eq!(negotiated("", true), Some(Format::Json));
    }

    #[test]
    fn all_accept_lines_count() {
        assert_eq!(negotiated("text/html\napplication/x-ndjson", true), Some(Format::Ndjson));
        assert_eq!(negotiated("application/x-ndjson;q=0.1\napplication/json;q=0.2", true), Some(Format::Json));
        assert_eq!(negotiated("text/html\ntext/plain", true), None);
    }

    #[test]
    fn the_most_specific_range_decides() {
        assert_eq!(negotiated("*/*, application/json;q=0", true), Some(Format::Ndjson));
        assert_eq!(negotiated("*/*, application/json;q=0", false), None);
        assert_eq!(negotiated("application/*;q=0, application/json;q=0.1, */*", true), Some(Format::Json));
        assert_eq!(negotiated("application/x-ndjson, */*", true), Some(Format::Ndjson));
        assert_eq!(negotiated("application/x-ndjson, application/json", true), Some(Format::Json));
    }

    #[test]
    fn a_quality_that_is_no_number_from_0_to_1_is_0() {
        for quality in ["nan", "-1", "2", "x", ""] {
            assert_eq!(negotiated(&format!("application/json;q={quality}"), true), None, "{quality}");
        }
    }

    #[rstest]
    #[case::none("GET", "", "", Outcome::Answer)]
    #[case::current("GET", "", "\"other\", W/\"a\"", Outcome::NotModified)]
    #[case::any_copy("HEAD", "", "*", Outcome::NotModified)]
    #[case::changed("GET", "", "\"b\"", Outcome::Answer)]
    #[case::same("GET", "\"a\"", "", Outcome::Answer)]
    #[case::any("GET", "*", "", Outcome::Answer)]
    #[case::another("GET", "\"b\"", "", Outcome::Failed)]
    #[case::weak("GET", "W/\"a\"", "", Outcome::Failed)]
    #[case::match_comes_first("GET", "\"b\"", "\"a\"", Outcome::Failed)]
    #[case::post_of_a_copy("POST", "", "\"a\"", Outcome::Failed)]
    #[case::post("POST", "\"a\"", "\"b\"", Outcome::Answer)]
    fn conditions_are_evaluated(
        #[case] method: Method,
        #[case] if_match: &str,
        #[case] if_none_match: &str,
        #[case] outcome: Outcome,
    ) {
        let mut map = headers(header::IF_MATCH, if_match);
        map.extend(headers(header::IF_NONE_MATCH, if_none_match));
        assert_eq!(Conditions::of(&method, &map).evaluate(&HeaderValue::from_static("\"a\"")), outcome);
    }
}
