//! A question as clients write it who may have mistyped: the query string of a `GET`, the JSON body of a `POST`. Both
//! become the same query, and whatever the path doesn't know is named.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, value::RawValue};

use super::{table::Path, typed::Query, unique};
use crate::protocol::failure::{Code, Failure};

/// Longest query string that is read, in bytes.
pub const MAX_QUERY_BYTES: usize = 16 << 10;

/// The pairs of a query string, decoded.
///
/// # Errors
/// [`Code::UriTooLong`] over [`MAX_QUERY_BYTES`]; [`Code::MalformedQuery`] for what is not UTF-8 once it is decoded.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, Failure> {
    if query.len() > MAX_QUERY_BYTES {
        let detail = format!("query string of {} bytes, at most {MAX_QUERY_BYTES}", query.len());
        return Err(Failure::with_detail(Code::UriTooLong, detail));
    }
    let decode = |text: &str| -> Result<String, Failure> {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8();
        decoded.map(|text| text.into_owned()).map_err(|_| {
            Failure::with_detail(Code::MalformedQuery, "a name or value is not UTF-8 after percent-decoding")
        })
    };
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
        let data = self.data_from_text(pairs)?;
        match self.parameters {
            None => Ok(Query::Ping { data: data.to_string().into() }),
            Some(_) => self.query_of(data),
        }
    }

    /// The query that a JSON body asks; an empty one is the same as null.
    ///
    /// # Errors
    /// [`Code::MalformedBody`] for what is no JSON, or has a member twice; those of [`check`](super::check) and [`Query::parse`].
    pub fn query_of_body(&self, body: &[u8]) -> Result<Query, Failure> {
        if body.is_empty() {
            return Query::parse(self.path, None);
        }
        let malformed = |error: serde_json::Error| Failure::with_detail(Code::MalformedBody, error.to_string());
        if self.parameters.is_none() {
            let data: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
            return Query::parse(self.path, Some(data));
        }
        let data = unique::from_slice(body).map_err(malformed)?;
        self.check(&data)?;
        self.query_of(data)
    }

    fn query_of(&self, data: Value) -> Result<Query, Failure> {
        let Value::Object(members) = data else { return (self.parse)(&Map::new()) };
        (self.parse)(&members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_or_refused() {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        assert_eq!(pairs("a=1&&b=x%20y+z&c"), Ok(own(&[("a", "1"), ("b", "x y z"), ("c", "")])));
        assert_eq!(pairs("a=%ff").unwrap_err().code, Code::MalformedQuery);
        assert_eq!(pairs(&"a".repeat(MAX_QUERY_BYTES + 1)).unwrap_err().code, Code::UriTooLong);
    }
}
