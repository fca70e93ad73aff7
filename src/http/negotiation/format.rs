//! The format of an answer, by `Accept` (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

use super::weighted::members;
use crate::protocol::{Code, Failure};

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The envelope, `application/json`.
    #[default]
    Json,
    /// One block a line, `application/x-ndjson`.
    Ndjson,
    /// One block a line behind a line of names, `text/csv`.
    Csv,
}

impl Format {
    /// Every format, the one first that is taken when the client likes several as much.
    pub const ALL: [Self; 3] = [Self::Json, Self::Ndjson, Self::Csv];

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    /// The media type with its parameters.
    pub(in crate::http) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            other => other.media_type(),
        }
    }

    /// The format that the client prefers; of two that it likes as much, the one that it names, else JSON. Only lists
    /// have lines.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`].
    pub(in crate::http) fn of(headers: &HeaderMap, is_list: bool) -> Result<Self, Failure> {
        let formats = if is_list { &Self::ALL[..] } else { &[Self::Json] };
        let mut best: Option<(Self, Preference)> = None;
        for format in formats {
            let preference = preference(headers, format.media_type());
            if preference.quality > 0.0 && best.is_none_or(|(_, best)| preference > best) {
                best = Some((*format, preference));
            }
        }
        best.map(|(format, _)| format).ok_or_else(|| {
            let lists = if is_list { ", application/x-ndjson or text/csv" } else { "" };
            Failure::with_detail(Code::NotAcceptable, format!("this is answered as application/json{lists}"))
        })
    }
}

/// How much a client wants a media type.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(in crate::http) struct Preference {
    /// From 0, not at all, to 1.
    pub(super) quality: f32,
    /// How specific the range is that says so: 3 for the type itself, 2 for its family, 1 for any type.
    specific: u8,
}

/// How much the client wants `media_type`: the quality of the most specific range in its `Accept` lines.
pub(in crate::http) fn preference(headers: &HeaderMap, media_type: &str) -> Preference {
    let family = media_type.split('/').next().unwrap_or_default();
    let (mut best, mut has_ranges) = (Preference { quality: 0.0, specific: 0 }, false);
    for (range, quality) in members(headers, header::ACCEPT) {
        has_ranges = true;
        let specific = match range.split_once('/') {
            Some(("*", "*")) => 1,
            Some((kind, "*")) if kind == family => 2,
            _ if range == media_type => 3,
            _ => continue,
        };
        if (specific, quality) > (best.specific, best.quality) {
            best = Preference { quality, specific };
        }
    }
    if has_ranges { best } else { Preference { quality: 1.0, specific: 1 } }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The format by the `Accept` lines in `accept`, one a line.
    fn negotiated(accept: &str, is_list: bool) -> Option<Format> {
        let line = |line| (header::ACCEPT, HeaderValue::from_str(line).unwrap());
        Format::of(&accept.lines().map(line).collect(), is_list).ok()
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
        assert_eq!(negotiated("text/csv", true), Some(Format::Csv));
        assert_eq!(negotiated("Text/CSV; header=present", true), Some(Format::Csv));
        assert_eq!(negotiated("text/*", true), Some(Format::Csv));
        assert_eq!(negotiated("text/csv", false), None);
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
        assert_eq!(negotiated("application/*;q=0, application/json;q=0.1, */*", true), Some(Format::Csv));
        assert_eq!(negotiated("application/*;q=0.1, text/*;q=0, */*", true), Some(Format::Json));
        assert_eq!(negotiated("application/x-ndjson, */*", true), Some(Format::Ndjson));
        assert_eq!(negotiated("text/csv, */*", true), Some(Format::Csv));
        assert_eq!(negotiated("text/csv, application/x-ndjson, application/json", true), Some(Format::Json));
        assert_eq!(negotiated("text/csv;q=0.9, application/x-ndjson;q=0.8", true), Some(Format::Csv));
    }

    #[test]
    fn a_quality_that_is_no_number_from_0_to_1_is_0() {
        for quality in ["nan", "-1", "2", "x", ""] {
            assert_eq!(negotiated(&format!("application/json;q={quality}"), true), None, "{quality}");
        }
    }
}
