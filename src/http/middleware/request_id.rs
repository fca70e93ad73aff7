//! The id of a request: the client's, that of the client's trace, or one of our own.

use axum::http::{HeaderMap, HeaderValue};
use tracing::Span;

use crate::http::envelope::{REQUEST_ID, TRACEPARENT};
#[cfg(feature = "otlp")]
use crate::telemetry::otlp;

/// Most characters of a client's id.
const MAX_ID_CHARS: usize = 128;

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// The id of a request. Its text is of visible ASCII characters that stand in no need of quotes, so that it can't break
/// a line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    id: HeaderValue,
    /// The trace that the request is part of.
    trace: Option<HeaderValue>,
    /// A valid `traceparent` and its `tracestate`, where spans are exported.
    #[cfg(feature = "otlp")]
    parent: [Option<HeaderValue>; 2],
}

impl RequestId {
    /// The id of a request with these headers: `x-request-id` if it is well formed, else the trace id of `traceparent`,
    /// else a new one of 32 hex digits.
    pub fn of(headers: &HeaderMap) -> Self {
        let trace = headers.get(TRACEPARENT).and_then(|parent| trace_id(parent.as_bytes()));
        let trace = trace.and_then(|trace| HeaderValue::from_bytes(trace).ok());
        let own = headers.get(REQUEST_ID).filter(|id| is_id(id.as_bytes()));
        let id = own.or(trace.as_ref()).cloned().unwrap_or_else(new_id);
        #[cfg(feature = "otlp")]
        let parent = match trace.is_some() && otlp::exports() {
            true => [TRACEPARENT.as_str(), "tracestate"].map(|name| headers.get(name).cloned()),
            false => [None, None],
        };
        Self {
            id,
            trace,
            #[cfg(feature = "otlp")]
            parent,
        }
    }

    /// The value of the answer's header.
    pub fn value(&self) -> &HeaderValue {
        &self.id
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// The trace's id, of 32 hex digits.
    pub fn trace(&self) -> Option<&str> {
        self.trace.as_ref()?.to_str().ok()
    }

    /// The span whose log lines name the request. One that waits for a peer has it at level info; for others it would
    /// cost more than they do, so that they have it at level debug only. Each has it where spans are exported.
    pub fn span(&self, forwarded: bool) -> Span {
        #[cfg(feature = "otlp")]
        if otlp::exports() {
            let [parent, state] = self.parent.each_ref().map(|value| value.as_ref()?.to_str().ok());
            return otlp::request_span(self.as_str(), self.trace(), parent, state);
        }
        match forwarded {
            true => tracing::info_span!("request", id = self.as_str(), trace = self.trace()),
            false => tracing::debug_span!("request", id = self.as_str(), trace = self.trace()),
        }
    }
}

/// Whether a client's id is taken over.
fn is_id(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(byte);
    (1..=MAX_ID_CHARS).contains(&id.len()) && id.iter().all(is_plain)
}

/// The trace id of a `traceparent`: `<version>-<trace id>-<parent id>-<flags>`, in lower-case hex. A later version may
/// have more behind another hyphen.
fn trace_id(parent: &[u8]) -> Option<&[u8]> {
    let (known, rest) = parent.split_at_checked(TRACEPARENT_BYTES)?;
    let hex = |from: usize, to: usize| {
        let digits = known.get(from..to)?;
        digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(digits)
    };
    let (version, trace, parent, _flags) = (hex(0, 2)?, hex(3, 35)?, hex(36, 52)?, hex(53, 55)?);
    let is_separated = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
    let is_ended = rest.is_empty() || version != b"00" && rest.starts_with(b"-");
    let is_set = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
    (version != b"ff" && is_separated && is_ended && is_set(trace) && is_set(parent)).then_some(trace)
}

fn new_id() -> HeaderValue {
    let mut digits = [b'0'; 32];
    // Thirty-two digits are what sixteen bytes have.
    let _ = hex::encode_to_slice(fastrand::u128(..).to_be_bytes(), &mut digits);
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use rstest::rstest;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(headers: &[(&HeaderName, &str)]) -> RequestId {
        let line =
            |(name, value): &(&HeaderName, &str)| ((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        RequestId::of(&headers.iter().map(line).collect())
    }

    #[rstest]
    #[case("a", true)]
    #[case("7f3c8f0e-0b0d-4d3f-9a5e-5c6a3a3b1c2d", true)]
    #[case("Root=1-67891233:abc/def+._~@", true)]
    #[case("", false)]
    #[case("a b", false)]
    #[case("a\tb", false)]
    #[case("a\"b", false)]
    #[case("{a}", false)]
    #[case("a\u{9b}31m", false)]
    #[case("a,b", false)]
    fn an_id_that_fits_a_line_is_taken_over(#[case] id: &str, #[case] taken: bool) {
        let own = of(&[(&REQUEST_ID, id)]);
        assert_eq!(own.as_str() == id, taken, "{own:?}");
        assert!(taken || own.as_str().len() == 32);
    }

    #[test]
    fn an_id_is_bounded_and_new_ones_differ() {
        let (most, more) = ("x".repeat(MAX_ID_CHARS), "x".repeat(MAX_ID_CHARS + 1));
        assert_eq!(of(&[(&REQUEST_ID, &most)]).as_str(), most);
        assert_ne!(of(&[(&REQUEST_ID, &more)]).as_str(), more);
        let (first, second) = (of(&[]), of(&[]));
        assert!(first.as_str().len() == 32 && first.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()), "{first:?}");
        assert_ne!(first, second);
    }

    #[rstest]
    #[case(PARENT, true)]
    #[case("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true)]
    #[case("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false)]
    #[case("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more", false)]
    #[case("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false)]
    #[case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false)]
    #[case("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false)]
    #[case("", false)]
    fn a_trace_context_names_a_request_without_an_id(#[case] parent: &str, #[case] valid: bool) {
        let id = of(&[(&TRACEPARENT, parent)]);
        assert_eq!((id.trace(), id.as_str() == TRACE), (valid.then_some(TRACE), valid));
        let named = of(&[(&TRACEPARENT, parent), (&REQUEST_ID, "own")]);
        assert_eq!((named.trace(), named.as_str()), (valid.then_some(TRACE), "own"));
    }
}
