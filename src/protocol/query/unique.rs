//! JSON of bounded size, in which an object has no member twice: a parser that keeps the last of them would hide a
//! mistake.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::protocol::limits::MAX_LIST;

/// What the values of a document may take, in units of some 40 bytes: as much as the longest list of check points does,
/// 13 MiB. Values take up to a hundred times the bytes of their text, so that its length alone is no limit.
const MAX_COST: usize = 20 * MAX_LIST;

/// What a list and an object take beside their members, if they have any: the least that is allocated for one.
const LIST_COST: usize = 4;
const OBJECT_COST: usize = 16;

/// Reads JSON as [`serde_json::from_slice`] does, without members that are there twice.
///
/// # Errors
/// The parser's error; the name of a member that is there twice, and where; too many values.
pub fn from_slice(json: &[u8]) -> serde_json::Result<Value> {
    read(json, true)
}

/// Reads JSON whose objects may have a member twice: the last one counts.
///
/// # Errors
/// The parser's error; too many values.
pub(super) fn lenient(json: &str) -> serde_json::Result<Value> {
    read(json.as_bytes(), false)
}

fn read(json: &[u8], is_unique: bool) -> serde_json::Result<Value> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let value = Reader { left: &mut { MAX_COST }, is_unique }.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// A client's own word as part of an error: cut to 64 characters, control characters escaped.
pub(super) fn shown(word: &str) -> String {
    let cut: String = word.chars().take(64).collect();
    format!("{cut:?}")
}

/// Reads one value of a document.
struct Reader<'a> {
    /// What the values from here on may take.
    left: &'a mut usize,
    is_unique: bool,
}

impl Reader<'_> {
    fn charge<E: Error>(&mut self, cost: usize) -> Result<(), E> {
        *self.left = self.left.checked_sub(cost).ok_or_else(|| E::custom("more values than a request may have"))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.charge(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.charge(LIST_COST)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Reader { left: &mut *self.left, ..self })? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        self.charge(OBJECT_COST)?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if self.is_unique && object.contains_key(&name) {
                return Err(Error::custom(format!("{} is given twice", shown(&name))));
            }
            let value = members.next_value_seed(Reader { left: &mut *self.left, ..self })?;
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
        assert_eq!(lenient("{\"a\": 1, \"a\": 2}").unwrap()["a"], 2);
    }

    #[test]
    fn the_values_of_a_document_are_bounded_whatever_their_form_is() {
        let list = |item: &str, count| format!("[{}]", vec![item; count].join(","));
        for (item, cost) in [("0", 1), ("[0]", 6), ("{\"\":0}", 18), ("{\"\":{\"\":[0]}}", 40)] {
            let most = (MAX_COST - 1 - LIST_COST) / cost;
            assert!(from_slice(list(item, most).as_bytes()).is_ok(), "{item}");
            for error in [from_slice(list(item, most + 1).as_bytes()), lenient(&list(item, most + 1))] {
                let error = error.unwrap_err().to_string();
                assert!(error.starts_with("more values than a request may have at line 1"), "{error}");
            }
        }
        let check_points = format!("{{\"check_points\":{}}}", list(r#"{"index":1,"hash":"a"}"#, MAX_LIST + 1));
        assert!(from_slice(check_points.as_bytes()).is_ok(), "one member too many has an error of its own");
    }
}
