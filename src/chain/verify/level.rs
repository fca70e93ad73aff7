//! How far blocks are verified.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How far blocks are verified. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What a store relies on: contiguous indexes, links, sizes. For sources that are trusted.
    None,
    /// All that shows without the proof-of-work hash: whether the hash belongs to the header stays open.
    Linked,
    /// The hash of each header is computed.
    Pow,
}

impl Level {
    /// The name: `none`, `linked` or `pow`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Linked => "linked",
            Self::Pow => "pow",
        }
    }

    /// The number that a store keeps: 0, 1 or 2, in the order of the levels.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The level with this [`code`](Self::code).
    pub fn from_code(code: i64) -> Option<Self> {
        [Self::None, Self::Linked, Self::Pow].into_iter().find(|level| level.code() == code)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no [`Level`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown verification level `{0}`: expected `none`, `linked` or `pow`")]
pub struct ParseLevelError(String);

impl FromStr for Level {
    type Err = ParseLevelError;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut levels = [Self::None, Self::Linked, Self::Pow].into_iter();
        levels.find(|level| level.as_str() == name).ok_or_else(|| ParseLevelError(name.into()))
    }
}
