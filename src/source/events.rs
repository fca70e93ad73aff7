//! What becomes of the canonical chain, told to those who follow it.
//!
//! The store keeps the events; other processes on the same store write them too. Followers ask with the id of the last
//! event that they know, so that nobody is told twice and whoever was away gets what was missed. A store may also lose its
//! last events and have others in their place: the id says which tip it stood for.

use std::{fmt, str::FromStr, sync::Arc};

use moka::future::Cache;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::store_answers::{store_failure, tip_hash};
use crate::{
    protocol::{Code, Failure},
    store::{BlockStore, ChainState, Event},
};

/// Most events that are told at once.
const BATCH: u64 = 100;

/// Answers that are kept: followers who are up to date all ask the same.
const KEPT: u64 = 64;

/// Something to tell a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// What to ask with for what comes next.
    pub id: Cursor,
    /// `extended`, `reorganised`, or `reset` where events are missing or are not so any more.
    pub name: &'static str,
    /// A JSON object. `tip`: the tip then, `{index, hash}` or null. Of an event also `at`, when it was committed in unix
    /// seconds, and what [`EventKind`](crate::store::EventKind) says.
    pub data: String,
}

/// What followers were told last, by what they knew, the chain's version and its tip.
pub(super) struct Followers {
    store: Arc<dyn BlockStore>,
    pub(super) told: Cache<(Cursor, u64, Option<String>), Arc<[News]>>,
}

impl Followers {
    pub(super) fn new(store: Arc<dyn BlockStore>) -> Self {
        Self { store, told: Cache::new(KEPT) }
    }

    /// What comes after `after`, for those who saw `state` just now; empty if nothing does.
    pub(super) async fn news(&self, after: Cursor, state: &ChainState) -> Result<Arc<[News]>, Failure> {
        let tip_hash = tip_hash(state);
        if state.version == after.version() && after.fits(tip_hash.as_deref()) {
            return Ok([].into());
        }
        let key = (after, state.version, tip_hash);
        self.told.try_get_with(key, self.read(after, state)).await.map_err(Arc::unwrap_or_clone)
    }

    /// The same, read from the store.
    pub(super) async fn read(&self, after: Cursor, seen: &ChainState) -> Result<Arc<[News]>, Failure> {
        let events = self.store.events(after.version(), BATCH).await.map_err(store_failure)?;
        // Read after the events, so that those of a store that has other ones now don't pass for what comes next. If it is
        // replaced between the two reads, the next look finds it out.
        let known = match after.is_marked() {
            true => self.store.event_at(after.version()).await.map_err(store_failure)?,
            false => None,
        };
        let replaced = known.is_some_and(|known| !after.fits(known.tip.as_ref().map(|tip| tip.hash.as_str())));
        let follows = events.first().is_some_and(|first| first.id.saturating_sub(1) == after.version());
        if follows && !replaced {
            return events.into_iter().map(news).collect();
        }
        // Versions without an event leave gaps between ids. Events that are gone leave one before the oldest. The state is
        // read last, so that it is at least as new as what is compared with it.
        let oldest = self.store.events(0, 1).await.map_err(store_failure)?;
        let state = self.store.state().await.map_err(store_failure)?;
        let oldest = oldest.first().map_or(state.version, |oldest| oldest.id.saturating_sub(1));
        let passed = (oldest..=state.version).contains(&after.version());
        // Events that are not kept can't be compared with; the current tip can.
        let fits = after.fits(tip_hash(&state).as_deref());
        let reset = replaced || !passed || state.version == after.version() && !fits;
        let nothing = events.is_empty() && !reset;
        // What is told is kept by what was seen, and the chain may come to that again. So a store that is behind it, as a
        // standby may be that takes over, says neither that nothing comes nor that it is another one; nor does one that
        // has gone on since the events were read. The next look sees it as it is.
        let behind = state.version < seen.version || state.version == seen.version && state.tip != seen.tip;
        if (reset || nothing) && behind || nothing && !fits {
            return Err(Failure::new(Code::StoreUnavailable));
        }
        if reset {
            let id = Cursor::from(&state);
            let tip = state.tip.map(|tip| json!({"index": tip.index, "hash": tip.hash}));
            return Ok([News { id, name: "reset", data: json!({ "tip": tip }).to_string() }].into());
        }
        events.into_iter().map(news).collect()
    }
}

fn news(event: Event) -> Result<News, Failure> {
    let id = Cursor::from(&event);
    let mut data: Map<String, Value> = serde_json::from_str(&event.document).map_err(|error| {
        tracing::error!(%error, event = event.id, "an event can't be read");
        Failure::new(Code::Internal)
    })?;
    data.insert("at".into(), event.at.into());
    data.insert("tip".into(), event.tip.map_or(Value::Null, |tip| json!({"index": tip.index, "hash": tip.hash})));
    Ok(News { id, name: event.kind.as_str(), data: Value::Object(data).to_string() })
}

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
