//! The rules that a block deviates from, where the network doesn't enforce them: their words in JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A rule of the network's nodes from which a block deviates, and which the network itself doesn't enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deviation {
    /// Its difficulty is not the scheduled one.
    Schedule,
    /// Its timestamp is not one that the rule about timestamps allows.
    Timestamp,
}

impl Deviation {
    /// Every one, in the order in which a block lists them.
    pub const ALL: [Self; 2] = [Self::Schedule, Self::Timestamp];

    /// Its word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Timestamp => "timestamp",
        }
    }
}

/// The deviations that a value names, if it is a list; anything else in it or in its place is skipped.
#[derive(Default)]
pub(super) struct Deviations([bool; Deviation::ALL.len()]);

impl Deviations {
    /// Adds those that `list` doesn't have yet.
    pub(super) fn add_to(self, list: &mut Vec<Deviation>) {
        for (deviation, _) in Deviation::ALL.into_iter().zip(self.0).filter(|(_, named)| *named) {
            if !list.contains(&deviation) {
                list.push(deviation);
            }
        }
    }
}

impl<'de> Deserialize<'de> for Deviations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeviationsVisitor { within: false })
    }
}

/// Reads a value of any shape: texts count within the list only, and what is within its members never.
#[derive(Clone, Copy)]
struct DeviationsVisitor {
    within: bool,
}

impl<'de> DeserializeSeed<'de> for DeviationsVisitor {
    type Value = Deviations;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Deviations, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DeviationsVisitor {
    type Value = Deviations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Deviations, E> {
        Ok(Deviations::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Deviations, E> {
        Ok(Deviations::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Deviations, E> {
        Ok(Deviations::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Deviations, E> {
        Ok(Deviations::default())
    }

    fn visit_unit<E: Error>(self) -> Result<Deviations, E> {
        Ok(Deviations::default())
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Deviations, E> {
        Ok(Deviations(Deviation::ALL.map(|deviation| self.within && deviation.as_str() == word)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Deviations, A::Error> {
        let mut found = Deviations::default();
        if self.within {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(found);
        }
        while let Some(Deviations(named)) = list.next_element_seed(Self { within: true })? {
            for (found, named) in found.0.iter_mut().zip(named) {
                *found |= named;
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Deviations, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Deviations::default())
    }
}
