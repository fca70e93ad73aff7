//! Lists whose members have weights, such as `gzip;q=0.5, br`: the form of `Accept` and `Accept-Encoding` (RFC 9110,
//! section 12.4.2).

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName};

/// The members of a header, over all its lines: each in lower case, without parameters, and its weight from 0 to 1. A
/// weight that is no such number counts as 0.
pub(in crate::http) fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (Cow<'_, str>, f32)> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
    let entries = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let mut member = Cow::from(parts.next().unwrap_or_default());
        if member.bytes().any(|byte| byte.is_ascii_uppercase()) {
            member = member.to_ascii_lowercase().into();
        }
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(Some(1.0), |text| text.parse().ok());
        (member, weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0))
    })
}
