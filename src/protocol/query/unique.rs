//! JSON in which an object has no member twice: a parser that keeps the last of them would hide a mistake.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads JSON as [`serde_json::from_slice`] does, without members that are there twice.
///
/// # Errors
/// The parser's error; the name of a member that is there twice, and where.
pub fn from_slice(json: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(json).map(|Unique(value)| value)
}

/// A client's own word as part of an error: cut to 64 characters, control characters escaped.
pub(super) fn shown(word: &str) -> String {
    let cut: String = word.chars().take(64).collect();
    format!("{cut:?}")
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(Error::custom(format!("{} is given twice", shown(&name))));
            }
            let Unique(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_it_is_and_members_that_are_there_twice_are_named() {
        for json in
            ["null", "[1, -2, 2.5, \"a\", true, {\"a\": {\"b\": []}, \"b\": 18446744073709551615}]", "\"\\u20ac\""]
        {
            assert_eq!(from_slice(json.as_bytes()).unwrap(), serde_json::from_str::<Value>(json).unwrap());
        }
        for json in ["{\"a\": 1, \"a\": 1}", "[{\"b\": {\"a\": 1, \"\\u0061\": 2}}]"] {
            let error = from_slice(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("\"a\" is given twice at line 1"), "{error}");
        }
        assert!(from_slice(b"{\"a\": 1").is_err() && from_slice(b"{} {}").is_err());
    }
}
