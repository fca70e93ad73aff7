//! The header `server-timing`: what took how long, in milliseconds
//! (<https://www.w3.org/TR/server-timing/>).

use std::{fmt::Write, time::Duration};

use axum::http::HeaderValue;

/// The header's value: the part that is known, then the total.
pub(super) fn value(part: Option<(&str, Duration)>, total: Duration) -> Option<HeaderValue> {
    let mut text = String::with_capacity(64);
    for (name, took) in part.into_iter().chain([("total", total)]) {
        let comma = if text.is_empty() { "" } else { ", " };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Writing to a text can't fail.
        let _ = write!(text, "{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds() {
        let of = |part, total| value(part, total).unwrap();
        let (store, total) = (Duration::from_micros(1_234_005), Duration::from_nanos(999));
        assert_eq!(of(Some(("store", store)), total), "store;dur=1234.005, total;dur=0.000");
        assert_eq!(of(None, Duration::from_micros(70)), "total;dur=0.070");
    }
}
