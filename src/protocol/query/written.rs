//! Queries as HTTP clients write them: the query string of a `GET`, the JSON body of a `POST`. Both become the same
//! query. They may have been mistyped, so what the path doesn't know is an error that names it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{
    table::{Kind, Parameter, Path, missing, whole},
    typed::Query,
    unique::{self, shown},
};
use crate::protocol::failure::{Code, Failure};

/// Longest query string that is read, in bytes.
pub const MAX_QUERY_BYTES: usize = 16 << 10;

/// A name and its value, decoded.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A name or a value of a query string, decoded.
fn decode(text: &str) -> Result<Cow<'_, str>, Failure> {
    if !text.contains(['+', '%']) {
        return Ok(text.into());
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(|text| text.into_owned().into())
        .map_err(|_| Failure::with_detail(Code::MalformedQuery, "a name or value is not UTF-8 after percent-decoding"))
}

/// The pairs of a query string, decoded.
///
/// # Errors
/// [`Code::UriTooLong`] over [`MAX_QUERY_BYTES`]; [`Code::MalformedQuery`] for what is not UTF-8 once it is decoded.
pub fn pairs(query: &str) -> Result<Vec<Pair<'_>>, Failure> {
    if query.len() > MAX_QUERY_BYTES {
        let detail = format!("query string of {} bytes, at most {MAX_QUERY_BYTES}", query.len());
        return Err(Failure::with_detail(Code::UriTooLong, detail));
    }
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

impl Path {
    /// The query that the pairs of a query string ask.
    ///
    /// # Errors
    /// Those of [`data_from_text`](super::data_from_text) and [`Query::parse`].
    pub fn query_of_pairs<'a>(&self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Query, Failure> {
        let data = data_from_text(self.path, self.parameters, pairs)?;
        match self.parameters {
            None => Ok(Query::Ping { data: data.to_string().into() }),
            Some(_) => self.query_of(data),
        }
    }

    /// The query that a JSON body asks; an empty one is the same as null.
    ///
    /// # Errors
    /// [`Code::MalformedBody`] for what is no JSON, or has a member twice; those of [`check`](super::check) and
    /// [`Query::parse`].
    pub fn query_of_body(&self, body: &[u8]) -> Result<Query, Failure> {
        if body.is_empty() {
            return self.query(None);
        }
        let malformed = |error: serde_json::Error| Failure::with_detail(Code::MalformedBody, error.to_string());
        let data = unique::from_slice(body).map_err(malformed)?;
        let Some(parameters) = self.parameters else {
            // As it was written: it is echoed.
            return self.query(Some(serde_json::from_slice(body).map_err(malformed)?));
        };
        check(self.path, parameters, &data)?;
        self.query_of(data)
    }

    fn query_of(&self, data: Value) -> Result<Query, Failure> {
        let members = match data {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        (self.parse)(&members).map_err(|failure| match failure.code {
            Code::MissingParameter if self.path.ends_with("/range") => failure.detail(
                "both are needed; the index of the last block is in /data/miner_block/chain_info, and a range may go beyond it",
            ),
            _ => failure,
        })
    }
}

/// Checks the JSON body of a path with these parameters, more strictly than [`Query::parse`]: a member that the path
/// doesn't know, or one of the wrong type, is an error that names it.
///
/// # Errors
/// [`Code::MalformedBody`], [`Code::UnknownParameter`] or [`Code::InvalidParameter`].
pub fn check(path: &str, parameters: &[Parameter], data: &Value) -> Result<(), Failure> {
    let members = match data {
        Value::Null => return Ok(()),
        Value::Object(members) => members,
        _ => return Err(Failure::with_detail(Code::MalformedBody, "expected a JSON object or null")),
    };
    for (name, value) in members {
        let parameter = named(path, parameters, name)?;
        let absent = value.is_null() && !parameter.required;
        if !absent && !parameter.kind.holds(value) {
            return Err(parameter.wrong());
        }
    }
    Ok(())
}

/// Turns the pairs of a query string into the JSON `data` of a path with these parameters (`None`: any texts).
///
/// # Errors
/// [`Code::UnknownParameter`] or [`Code::InvalidParameter`] naming the parameter, also where one comes twice.
pub fn data_from_text<'a>(
    path: &str,
    parameters: Option<&[Parameter]>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Value, Failure> {
    let mut data = Map::new();
    for (name, text) in pairs {
        let value = match parameters {
            None => Value::String(text.to_owned()),
            Some(parameters) => {
                let parameter = named(path, parameters, name)?;
                parameter.kind.read(text).ok_or_else(|| parameter.wrong())?
            }
        };
        if data.insert(name.to_owned(), value).is_some() {
            return Err(Failure::with_detail(Code::InvalidParameter, format!("{} is given twice", shown(name))));
        }
    }
    Ok(if data.is_empty() { Value::Null } else { Value::Object(data) })
}

fn named<'a>(path: &str, parameters: &'a [Parameter], name: &str) -> Result<&'a Parameter, Failure> {
    parameters.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
        let known = parameters.iter().map(|parameter| parameter.name).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { known } else { format!("; it knows {known}") };
        let by_index = path == "/data/miner_block/get" && matches!(name, "index" | "height" | "number");
        let instead = if by_index { "; for a block by index ask /data/miner_block/range" } else { "" };
        let detail = format!("{} is not a parameter of {path}{known}{instead}", shown(name));
        Failure::with_detail(Code::UnknownParameter, detail)
    })
}

impl Parameter {
    /// The error for a value that this parameter can't have. A required one keeps the network's text.
    fn wrong(&self) -> Failure {
        let failure = if self.required { missing(self.name) } else { Failure::new(Code::InvalidParameter) };
        let detail = format!("{}: expected {}", self.name, self.kind.expected());
        Failure { code: Code::InvalidParameter, ..failure }.detail(detail)
    }
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Integer => "a whole number from 0 to 18446744073709551615",
            Kind::Bool => "true or false",
            Kind::TextList => "a list of texts",
            Kind::CheckPoints => "a list of {index, hash}",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::Integer => whole(value).is_some(),
            Kind::Bool => value.is_boolean(),
            Kind::TextList => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            Kind::CheckPoints => value.is_array(),
        }
    }

    fn read(self, text: &str) -> Option<Value> {
        match self {
            Kind::Text => Some(text.into()),
            // `parse` alone would take a leading plus sign.
            Kind::Integer if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u64>().ok().map(Value::from),
            Kind::Integer | Kind::CheckPoints => None,
            Kind::Bool => text.parse::<bool>().ok().map(Value::from),
            Kind::TextList => Some(text.split(',').filter(|item| !item.is_empty()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_or_refused() {
        let decoded = [("a", "1"), ("b", "x y z"), ("c", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(pairs("a=1&&b=x%20y+z&c"), Ok(decoded.to_vec()));
        let question = |path: &str, query: &str| {
            let path = crate::protocol::query::path(path).unwrap();
            let pairs = pairs(query).unwrap();
            path.query_of_pairs(pairs.iter().map(|(name, value)| (&**name, &**value)))
        };
        let hint = |path: &str, query: &str| question(path, query).unwrap_err().detail.unwrap();
        assert!(hint("/data/miner_block/get", "index=5").ends_with("ask /data/miner_block/range"));
        assert!(hint("/data/miner_block/range", "from_index=5").contains("/data/miner_block/chain_info"));
        assert_eq!(pairs("a=%ff").unwrap_err().code, Code::MalformedQuery);
        assert_eq!(pairs(&"a".repeat(MAX_QUERY_BYTES + 1)).unwrap_err().code, Code::UriTooLong);
    }
}
