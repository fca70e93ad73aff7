//! Where a follower of the chain is.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::store::{ChainState, Event};

/// Most digits of a version, which is an `i64` in the store.
const MAX_DIGITS: usize = 19;
/// Hex digits of a mark.
const MARK_DIGITS: usize = 16;

/// The last event that a follower knows: a version of the chain, and a mark of the tip that the chain had then. A store
/// that lost its last writes, or was replaced, uses versions anew, with other tips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    version: u64,
    /// The first 8 bytes of the SHA-256 of the tip's hash, of no text where there is no tip: without verification a hash
    /// may be any text, and not one that a header can hold. `None`: only the version is known.
    mark: Option<u64>,
}

/// Text that is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of an event: 1 to 19 digits, then `-` and 16 hex digits in lower case, or nothing")]
pub struct MalformedCursor;

impl Cursor {
    /// A cursor of no store: what follows it is a `reset`.
    pub const UNKNOWN: Self = Self { version: i64::MAX as u64, mark: None };

    fn of(version: u64, tip: Option<&str>) -> Self {
        Self { version, mark: Some(mark(tip)) }
    }

    /// The version of the chain.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether it says which tip the chain had.
    pub(super) fn is_marked(&self) -> bool {
        self.mark.is_some()
    }

    /// Whether the chain may have had this tip, so far as it is known.
    pub(super) fn fits(&self, tip: Option<&str>) -> bool {
        self.mark.is_none_or(|known| known == mark(tip))
    }
}

fn mark(tip: Option<&str>) -> u64 {
    let digest = Sha256::digest(tip.unwrap_or_default());
    digest.iter().take(8).fold(0, |mark, byte| (mark << 8) | u64::from(*byte))
}

impl From<&ChainState> for Cursor {
    fn from(state: &ChainState) -> Self {
        Self::of(state.version, state.tip.as_ref().map(|tip| tip.hash.as_str()))
    }
}

impl From<&Event> for Cursor {
    fn from(event: &Event) -> Self {
        Self::of(event.id, event.tip.as_ref().map(|tip| tip.hash.as_str()))
    }
}

impl fmt::Display for Cursor {
    /// `<version>-<mark>`, or `<version>` alone; see [`FromStr`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        match self.mark {
            Some(mark) => write!(f, "-{mark:016x}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    /// `[0-9]{1,19}(-[0-9a-f]{16})?`, as the OpenAPI document has it.
    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let (version, mark) = match text.split_once('-') {
            Some((version, mark)) => (version, Some(mark)),
            None => (text, None),
        };
        // `parse` alone would take a leading plus sign, `from_str_radix` upper case too.
        let is_version = version.len() <= MAX_DIGITS && version.bytes().all(|byte| byte.is_ascii_digit());
        let is_mark = |mark: &str| {
            mark.len() == MARK_DIGITS && mark.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_version || mark.is_some_and(|mark| !is_mark(mark)) {
            return Err(MalformedCursor);
        }
        let version = version.parse().map_err(|_| MalformedCursor)?;
        let mark = mark.map(|mark| u64::from_str_radix(mark, 16)).transpose().map_err(|_| MalformedCursor)?;
        Ok(Self { version, mark })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
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
    fn a_cursor_fits_its_own_tip_only() {
        let cursor = Cursor::of(2, Some("main-3"));
        assert!(cursor.fits(Some("main-3")) && !cursor.fits(Some("side-3")) && !cursor.fits(None));
        let plain: Cursor = "2".parse().unwrap();
        assert!(plain.fits(Some("main-3")) && plain.fits(None) && !plain.is_marked());
        // A hash may be any text: the id of an event is a line.
        let odd = Cursor::of(1, Some("a\0b\nid: 7"));
        assert_eq!(odd.to_string().parse::<Cursor>(), Ok(odd));
    }
}
