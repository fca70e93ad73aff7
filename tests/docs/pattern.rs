//! What an example shows, held against what came.
//!
//! An `…` stands for any text, and for any number of lines where it is alone on its line. What differs from run to run
//! is masked on both sides.

/// Whether a value has this character.
type Class = fn(char) -> bool;

/// What comes before a value that differs from run to run, and of which characters the value is.
const VARYING: [(&str, Class); 9] = [
    ("x-modal-source: peer:", |c| c.is_ascii_alphanumeric()),
    ("x-modal-tip: ", |c| c.is_ascii_hexdigit() || c == ':'),
    ("etag: \"", |c| c.is_ascii_hexdigit()),
    (r#""at":"#, |c| c.is_ascii_digit()),
    (r#""chain_length":"#, |c| c.is_ascii_digit()),
    (r#""chain_height":"#, |c| c.is_ascii_digit()),
    (r#""tip_epoch":"#, |c| c.is_ascii_digit()),
    (r#""tip_hash":""#, |c| c.is_ascii_hexdigit()),
    (r#""cumulative_difficulty":""#, |c| c.is_ascii_digit()),
];

fn masked(text: &str) -> String {
    VARYING.iter().fold(text.to_owned(), |text, (before, varies)| {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| {
            let rest = part.trim_start_matches(varies);
            let mask = if rest.len() < part.len() { "*" } else { "" };
            format!("{all}{before}{mask}{rest}")
        })
    })
}

/// Whether `came` is what the example shows.
pub fn matches(shown: &str, came: &str) -> bool {
    let shown = masked(&format!("\n{}\n", shown.trim_end()).replace("\n…\n", "…"));
    let came = masked(&format!("\n{}\n", came.trim_end().replace('\r', "")));
    let mut pieces = shown.split('…');
    let Some(mut rest) = came.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether `came` is what the example shows, of a chain that may have grown since: the same words, and no number is
/// smaller. Hashes may differ.
pub fn matches_grown(shown: &str, came: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(|word| word.trim_end_matches(',').to_owned()).collect();
    let (shown, came): (Vec<String>, Vec<String>) = (words(shown), words(came));
    let same = |(shown, came): (&String, &String)| match (shown.parse::<f64>(), came.parse::<f64>()) {
        _ if shown.len() == 64 => came.len() == 64,
        (Ok(shown), Ok(came)) => came >= shown,
        _ => shown == came,
    };
    shown.len() == came.len() && shown.iter().zip(&came).all(same)
}

#[test]
fn an_ellipsis_in_a_pattern_matches_any_text_and_the_rest_is_literal() {
    let good = [
        ("a", "a\n"),
        ("a…c", "abc"),
        ("a…c", "ac"),
        ("a\n…\nd", "a\nb\nc\nd"),
        ("a\n…\nd", "a\nd"),
        ("…\nd", "d"),
        (r#"{"chain_length":61,…}"#, r#"{"chain_length":7,"x":1}"#),
        ("x-modal-tip: 1:aa\nb", "x-modal-tip: 22:bb\r\nb"),
    ];
    for (shown, came) in good {
        assert!(matches(shown, came), "{shown:?} {came:?}");
    }
    for (shown, came) in [
        ("a", "b"),
        ("a…c", "abd"),
        ("a…b…c", "ac"),
        ("a…", "ba"),
        ("a", "ab"),
        (r#""tip_hash":"0a""#, r#""tip_hash":null"#),
    ] {
        assert!(!matches(shown, came), "{shown:?} {came:?}");
    }
}

#[test]
fn a_chain_that_has_grown_has_no_smaller_number() {
    let hash = |digit: &str| digit.repeat(64);
    let line = |count: u32, digit| format!("synced {count} blocks, tip {} {}, 0.0 s", count - 1, hash(digit));
    assert!(matches_grown(&line(61, "a"), &line(62, "b")));
    assert!(!matches_grown(&line(61, "a"), &line(60, "a")));
    assert!(!matches_grown("61", "61 62") && !matches_grown("61", "sixty-one") && !matches_grown("a", "b"));
}
