//! Texts of the pages: numbers, times and ages; and texts of blocks and peers, which may be anything.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::source::view::BlockId;

/// What separates groups of three digits: a narrow space that does not break. No country reads it as a decimal
/// separator.
pub(super) const GROUP: char = '\u{202f}';

/// Longest text in a list, in bytes of HTML: hashes have 64, peer ids 52.
const LISTED: usize = 96;
/// Longest text on the page of its own block, in bytes of HTML.
const WHOLE: usize = 16 << 10;
/// Longest part of a path that a link has, in bytes: longer names have no page of their own.
const MAX_SEGMENT: usize = 160;

const SECONDS_PER_DAY: i64 = 86_400;

/// What stays as it is in a part of a path.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A decimal number with its digits in groups of three; any other text as it is.
pub(super) fn grouped(number: impl ToString) -> String {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return text;
    }
    let mut grouped = String::with_capacity(text.len() * 2);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(GROUP);
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// Hashes per second, with the prefix that leaves one to three digits before the point.
pub(super) fn hash_rate(rate: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E"];
    let steps = (1..prefixes.len()).take_while(|step| rate >= 1000_f64.powi(*step as i32)).count();
    format!("{} {}H/s", grouped(format!("{:.2}", rate / 1000_f64.powi(steps as i32))), prefixes[steps])
}

/// A duration in the unit that fits: seconds up to two minutes, then minutes, hours and days.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} minutes", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} hours", s / 3600.0),
        s => format!("{} days", grouped(format!("{:.0}", s / SECONDS_PER_DAY as f64))),
    }
}

/// How long ago `at` was, in words and in whole minutes, so that a page stays the same for that long.
pub(super) fn age(at: i64, now: i64) -> String {
    let seconds = now.saturating_sub(at);
    let (count, unit) = match seconds.unsigned_abs() {
        s if s < 60 => return if seconds < 0 { "in less than a minute" } else { "less than a minute ago" }.into(),
        s if s < 3600 => (s / 60, "minute"),
        s if s < 2 * 86_400 => (s / 3600, "hour"),
        s if s < 60 * 86_400 => (s / 86_400, "day"),
        s if s < 730 * 86_400 => (s / (30 * 86_400), "month"),
        s => (s / (365 * 86_400), "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    let count = grouped(count);
    if seconds < 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
}

/// Year, month, day, hour, minute and second in UTC; `None` beyond the years 0 to 9999, which no page can name.
fn civil(at: i64) -> Option<[i64; 6]> {
    let (mut days, seconds) = (at.div_euclid(SECONDS_PER_DAY), at.rem_euclid(SECONDS_PER_DAY));
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // The calendar repeats after 400 years, which have 146 097 days.
    let mut year = 1970 + 400 * days.div_euclid(146_097);
    if !(-400..=9999).contains(&year) {
        return None;
    }
    days = days.rem_euclid(146_097);
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        month += 1;
        if days < length {
            break;
        }
        days -= length;
    }
    (0..=9999).contains(&year).then_some([year, month, days + 1, seconds / 3600, seconds / 60 % 60, seconds % 60])
}

/// A time as `<time datetime>` has it.
pub(super) fn iso(at: i64) -> Option<String> {
    civil(at).map(|[y, mo, d, h, mi, s]| format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z"))
}

/// A time for readers.
pub(super) fn utc(at: i64) -> Option<String> {
    civil(at).map(|[y, mo, d, h, mi, s]| format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02} UTC"))
}

/// A text of a block or a peer, bounded, with the characters escaped that readers can't see or that turn text around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// The text, to be escaped for HTML by the template.
    pub text: String,
    /// Whether its end is left out.
    pub is_cut: bool,
}

impl Shown {
    /// As in a list.
    pub(super) fn listed(text: &str) -> Self {
        Self::within(text, LISTED)
    }

    /// As on the page of its own block.
    pub(super) fn whole(text: &str) -> Self {
        Self::within(text, WHOLE)
    }

    fn within(text: &str, most: usize) -> Self {
        let mut shown = Self { text: String::with_capacity(text.len().min(most)), is_cut: false };
        let mut left = most;
        for character in text.chars() {
            let length = match character {
                c if is_invisible(c) => c.escape_unicode().len(),
                // `&#60;`
                '<' | '>' | '&' | '"' | '\'' => 5,
                c => c.len_utf8(),
            };
            let Some(rest) = left.checked_sub(length) else {
                shown.is_cut = true;
                break;
            };
            left = rest;
            match is_invisible(character) {
                true => shown.text.extend(character.escape_unicode()),
                false => shown.text.push(character),
            }
        }
        shown
    }
}

/// Whether a character can't be seen, or changes the direction of text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text as a part of a path; `None` where it is too long for a link, or browsers would take it for another path.
pub(super) fn segment(text: &str) -> Option<String> {
    long_segment(text).filter(|encoded| encoded.len() <= MAX_SEGMENT)
}

/// The same of any length, for a page's links to itself.
pub(super) fn long_segment(text: &str) -> Option<String> {
    (!matches!(text, "" | "." | "..")).then(|| utf8_percent_encode(text, &PLAIN).to_string())
}

/// A text as the value of a parameter.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Whether a hash names another block: one without verification may be a few digits, which are read as an index.
pub(super) fn is_index(hash: &str) -> bool {
    matches!(BlockId::from(hash), BlockId::Index(_))
}

/// A hash of any length as the part of a path that names exactly its block; `None` where there is none.
pub(super) fn block_segment(hash: &str) -> Option<String> {
    if is_index(hash) { None } else { long_segment(hash) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", "0")]
    #[case("999", "999")]
    #[case("1000", "1_000")]
    #[case("12345678", "12_345_678")]
    #[case("1234.5678", "1_234.5678")]
    #[case("-1234", "-1234")]
    #[case("1e9", "1e9")]
    #[case("", "")]
    fn digits_are_grouped(#[case] number: &str, #[case] expected: &str) {
        assert_eq!(grouped(number), expected.replace('_', "\u{202f}"));
    }

    #[rstest]
    #[case(0.0, "0.00 H/s")]
    #[case(53.58, "53.58 H/s")]
    #[case(1000.0, "1.00 kH/s")]
    #[case(1_250_000.0, "1.25 MH/s")]
    fn hash_rates_have_a_prefix(#[case] rate: f64, #[case] expected: &str) {
        assert_eq!(hash_rate(rate), expected);
    }

    /// `date -u -d @N`
    #[rstest]
    #[case(0, Some("1970-01-01 00:00:00 UTC"))]
    #[case(951_782_400, Some("2000-02-29 00:00:00 UTC"))]
    #[case(1_795_390_861, Some("2026-11-22 23:41:01 UTC"))]
    #[case(4_107_542_399, Some("2100-02-28 23:59:59 UTC"))]
    #[case(4_107_542_400, Some("2100-03-01 00:00:00 UTC"))]
    #[case(-1, Some("1969-12-31 23:59:59 UTC"))]
    #[case(253_402_300_799, Some("9999-12-31 23:59:59 UTC"))]
    #[case(253_402_300_800, None)]
    #[case(i64::MAX, None)]
    #[case(i64::MIN, None)]
    fn times_are_utc(#[case] at: i64, #[case] expected: Option<&str>) {
        assert_eq!(utc(at).as_deref(), expected);
        assert_eq!(iso(at), utc(at).map(|text| text.replacen(' ', "T", 1).replace(" UTC", "Z")));
    }

    #[rstest]
    #[case(0, "less than a minute ago")]
    #[case(59, "less than a minute ago")]
    #[case(60, "1 minute ago")]
    #[case(3599, "59 minutes ago")]
    #[case(3600, "1 hour ago")]
    #[case(200_000, "2 days ago")]
    #[case(70 * 86_400, "2 months ago")]
    #[case(800 * 86_400, "2 years ago")]
    #[case(-30, "in less than a minute")]
    #[case(-120, "in 2 minutes")]
    fn ages_are_in_words(#[case] seconds: i64, #[case] expected: &str) {
        assert_eq!(age(1_000_000_000 - seconds, 1_000_000_000), expected);
        assert!(age(i64::MIN, i64::MAX).ends_with("years ago"));
    }

    #[test]
    fn texts_are_bounded_and_visible() {
        let hash = "0".repeat(64);
        assert_eq!(Shown::listed(&hash), Shown { text: hash, is_cut: false });
        let long = Shown::listed(&"<".repeat(1000));
        assert!(long.is_cut && long.text.len() == LISTED / 5, "escaped, each has 5 bytes");
        assert_eq!(Shown::listed("a\u{202e}b\0").text, "a\\u{202e}b\\u{0}");
    }

    #[rstest]
    #[case("a b/?#%", Some("a%20b%2F%3F%23%25"))]
    #[case("12D3KooW", Some("12D3KooW"))]
    #[case("..", None)]
    #[case("", None)]
    fn names_become_parts_of_paths(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(segment(text).as_deref(), expected);
        assert_eq!(segment(&"ä".repeat(100)), None);
    }
}
