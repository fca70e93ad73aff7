//! The id of an event, which followers send back.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::store::{ChainState, Event};

/// Most digits of a version, which is an `i64` in the store.
const MAX_VERSION_DIGITS: usize = 19;
/// Hex digits of a tip's digest.
const TIP_DIGEST_DIGITS: usize = 16;

/// The id of an event: a version of the chain, and a digest of the tip that it had then. A store that lost its last
/// writes, or was replaced, uses versions again, with other tips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    version: u64,
    /// The first 8 bytes of the SHA-256 of the tip's hash, of the empty text for an empty chain. A digest, since
    /// without verification a hash may be any text, also one that no HTTP header can hold. `None`: only the version is
    /// known.
    tip_digest: Option<u64>,
}

/// Text that is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of an event: 1 to 19 digits, then `-` and 16 hex digits in lower case, or nothing")]
pub struct MalformedCursor;

impl Cursor {
    /// A cursor of no store: the event that follows it is a `reset`.
    pub const UNKNOWN: Self = Self { version: i64::MAX as u64, tip_digest: None };

    fn of(version: u64, tip: Option<&str>) -> Self {
        Self { version, tip_digest: Some(tip_digest(tip)) }
    }

    /// The version of the chain.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the tip is known.
    pub fn has_tip_digest(&self) -> bool {
        self.tip_digest.is_some()
    }

    /// Whether the chain had this tip, or that is not known.
    pub fn matches_tip(&self, tip: Option<&str>) -> bool {
        self.tip_digest.is_none_or(|known| known == tip_digest(tip))
    }
}

fn tip_digest(tip: Option<&str>) -> u64 {
    let digest = Sha256::digest(tip.unwrap_or_default());
    digest.iter().take(8).fold(0, |tip_digest, byte| (tip_digest << 8) | u64::from(*byte))
}

impl From<&ChainState> for Cursor {
    fn from(state: &ChainState) -> Self {
        Self::of(state.version, state.tip_hash())
    }
}

impl From<&Event> for Cursor {
    fn from(event: &Event) -> Self {
        Self::of(event.id, event.tip.as_ref().map(|tip| tip.hash.as_str()))
    }
}

impl fmt::Display for Cursor {
    /// `<version>-<digest>`, or `<version>` alone; see [`FromStr`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        match self.tip_digest {
            Some(tip_digest) => write!(f, "-{tip_digest:016x}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    /// `[0-9]{1,19}(-[0-9a-f]{16})?`, as the OpenAPI document has it.
    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let (version, tip_digest) = match text.split_once('-') {
            Some((version, tip_digest)) => (version, Some(tip_digest)),
            None => (text, None),
        };
        // `parse` alone accepts a leading plus sign, `from_str_radix` upper case.
        let is_version = version.len() <= MAX_VERSION_DIGITS && version.bytes().all(|byte| byte.is_ascii_digit());
        let is_digest = |tip_digest: &str| {
            tip_digest.len() == TIP_DIGEST_DIGITS
                && tip_digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_version || tip_digest.is_some_and(|tip_digest| !is_digest(tip_digest)) {
            return Err(MalformedCursor);
        }
        let version = version.parse().map_err(|_| MalformedCursor)?;
        let tip_digest = tip_digest
            .map(|tip_digest| u64::from_str_radix(tip_digest, 16))
            .transpose()
            .map_err(|_| MalformedCursor)?;
        Ok(Self { version, tip_digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_as_it_is_written() {
        // `printf %s main-3 | sha256sum`, and of nothing.
        let texts = ["0", "2-9708332be0e95efc", "0-e3b0c44298fc1c14", "9999999999999999999", "1-0000000000000001"];
        for text in texts {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert_eq!(Cursor::of(2, Some("main-3")).to_string(), texts[1]);
        assert_eq!(Cursor::of(0, None).to_string(), texts[2]);
        assert_eq!("007".parse::<Cursor>().unwrap().version(), 7);
        for text in [
            "",
            "+1",
            "-1",
            "1-",
            " 1",
            "1\n",
            "٣",
            "now",
            "10000000000000000000",
            "1-9708332be0e95ef",
            "1-9708332be0e95efc0",
            "1-9708332BE0E95EFC",
            "1-+708332be0e95efc",
            "1-9708332be0e95efc-1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(MalformedCursor), "{text:?}");
        }
    }

    #[test]
    fn a_cursor_matches_its_own_tip_only() {
        let cursor = Cursor::of(2, Some("main-3"));
        assert!(cursor.matches_tip(Some("main-3")) && !cursor.matches_tip(Some("side-3")) && !cursor.matches_tip(None));
        let plain: Cursor = "2".parse().unwrap();
        assert!(plain.matches_tip(Some("main-3")) && plain.matches_tip(None) && !plain.has_tip_digest());
        // A hash may be any text, but the id of an event is one line.
        let odd = Cursor::of(1, Some("a\0b\nid: 7"));
        assert_eq!(odd.to_string().parse::<Cursor>(), Ok(odd));
    }
}
