//! The header `server-timing`: what took how long, in milliseconds
//! (<https://www.w3.org/TR/server-timing/>).

use std::time::Duration;

use axum::http::HeaderValue;

/// A part of an answer, and how long it took.
pub(super) fn part(name: &str, took: Duration) -> String {
    let micros = took.as_micros();
    format!("{name};dur={}.{:03}", micros / 1000, micros % 1000)
}

/// The header's value: the parts that are known, then the total.
pub(super) fn with_total(parts: Option<&HeaderValue>, took: Duration) -> Option<HeaderValue> {
    let total = part("total", took);
    let value = match parts.and_then(|parts| parts.to_str().ok()) {
        Some(parts) => format!("{parts}, {total}"),
        None => total,
    };
    HeaderValue::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds() {
        let store = HeaderValue::try_from(part("store", Duration::from_micros(1_234_005))).unwrap();
        assert_eq!(store, "store;dur=1234.005");
        let value = with_total(Some(&store), Duration::from_nanos(999)).unwrap();
        assert_eq!(value, "store;dur=1234.005, total;dur=0.000");
        assert_eq!(with_total(None, Duration::from_micros(70)).unwrap(), "total;dur=0.070");
    }
}
