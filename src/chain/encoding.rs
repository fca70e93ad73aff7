//! How numbers, hashes and enums are written as text.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest, Sha256};

/// Gives an enum its words, as JSON, settings and messages have them: `ALL`, `as_str`, `Display` and `FromStr`. Words
/// behind a `|` are read too.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal $(| $other:literal)*),+ $(,)? }) => {
        impl $type {
            /// Every variant, in order.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The variant's word: snake_case, stable.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word $(| $other)* => Ok(Self::$variant),)+
                    _ => Err($crate::chain::expected(&[$($word),+])),
                }
            }
        }
    };
}
pub(crate) use words;

/// The message for a text that is none of these words.
pub(crate) fn expected(words: &[&str]) -> String {
    match words {
        [others @ .., last] if !others.is_empty() => format!("expected {} or {last}", others.join(", ")),
        words => format!("expected {}", words.concat()),
    }
}

/// Lower-case hex of the SHA-256 of `bytes`.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Whether a text is 64 lower-case hex digits.
pub(super) fn has_hash_form(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Parses plain decimal digits: no sign, space or separator, which the number parsers would take.
pub(super) fn parse_decimal(text: &str) -> Option<u128> {
    if is_decimal(text) { text.parse().ok() } else { None }
}

/// Whether a text is plain decimal digits.
pub(super) fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A u128 as a string of decimal digits.
pub(crate) struct Decimal(pub(super) u128);

impl Decimal {
    /// For `#[serde(with = "Decimal")]` on a u128.
    pub(crate) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// For `#[serde(with = "Decimal")]` on a u128.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        <Self as Deserialize>::deserialize(deserializer).map(|Self(value)| value)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl serde::de::Visitor<'_> for Digits {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of decimal digits below 2^128")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
                parse_decimal(text)
                    .map(Decimal)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}
