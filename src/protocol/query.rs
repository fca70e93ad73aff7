//! One typed query per path, and the one table that joins the two.
//!
//! The table serves both doors: libp2p requests bring `data` as JSON; `GET` requests bring text, which is turned
//! into that JSON by each parameter's kind.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{Code, Failure, MAX_CHUNK};

/// A question about the chain, typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Query {
    /// Echo: the JSON text that comes back unchanged.
    Ping {
        /// Any JSON, as text.
        data: Box<str>,
    },
    /// State of the node and its store.
    Inspect,
    /// One block by hash, orphans too.
    Get {
        /// Hash of the block.
        hash: String,
    },
    /// The whole canonical chain.
    Canonical,
    /// The canonical blocks of an epoch.
    Epoch {
        /// The epoch that the blocks carry.
        epoch: u64,
    },
    /// Canonical blocks by index.
    Range {
        /// First index.
        from_index: u64,
        /// Last index, included.
        to_index: u64,
        /// Most blocks in the answer, 1 to [`MAX_CHUNK`].
        chunk_size: u64,
    },
    /// The tip, its work and, if asked, the blocks that the asker lacks.
    ChainInfo {
        /// Hashes of the asker's chain, to find the common ancestor by.
        local_block_hashes: Vec<String>,
        /// Whether to send blocks.
        include_blocks: bool,
        /// First block to send; else the one after the common ancestor; else the first.
        from_index: Option<u64>,
    },
    /// Which of the asker's check points are on the canonical chain.
    FindAncestor {
        /// The check points.
        check_points: Vec<CheckPoint>,
    },
    /// Every block at an index.
    DebugIndex {
        /// The index.
        index: u64,
    },
}

/// A block of the asker's chain, to be compared with ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckPoint {
    /// Index of the block.
    pub index: u64,
    /// Its hash.
    pub hash: String,
}

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// An integer from 0 to 2^64-1.
    Integer,
    /// `true` or `false`.
    Bool,
    /// A list of texts; in a query string separated by commas.
    TextList,
    /// A list of `{index, hash}`; JSON only.
    CheckPoints,
}

/// A parameter of a path.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether the path can't do without it.
    pub required: bool,
}

/// A row of the table: a path, its parameters, and how they become a query.
#[derive(Debug)]
pub struct Path {
    /// The path, the same at both doors.
    pub path: &'static str,
    /// Its parameters. `None`: any JSON (`/ping`).
    pub parameters: Option<&'static [Parameter]>,
    parse: fn(&Map<String, Value>) -> Result<Query, Failure>,
}

const fn required(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, required: true }
}

const fn optional(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, required: false }
}

/// The table: every path of the protocol.
pub static PATHS: [Path; 9] = [
    Path { path: "/ping", parameters: None, parse: |_| Ok(Query::Ping { data: "null".into() }) },
    Path { path: "/inspect", parameters: Some(&[optional("level", Kind::Text)]), parse: |_| Ok(Query::Inspect) },
    Path { path: "/data/miner_block/get", parameters: Some(&[required("hash", Kind::Text)]), parse: get },
    Path { path: "/data/miner_block/canonical", parameters: Some(&[]), parse: |_| Ok(Query::Canonical) },
    Path { path: "/data/miner_block/epoch", parameters: Some(&[required("epoch", Kind::Integer)]), parse: epoch },
    Path {
        path: "/data/miner_block/range",
        parameters: Some(&[
            required("from_index", Kind::Integer),
            required("to_index", Kind::Integer),
            optional("max_chunk_size", Kind::Integer),
        ]),
        parse: range,
    },
    Path {
        path: "/data/miner_block/chain_info",
        parameters: Some(&[
            optional("local_block_hashes", Kind::TextList),
            optional("include_blocks", Kind::Bool),
            optional("from_index", Kind::Integer),
        ]),
        parse: chain_info,
    },
    Path {
        path: "/data/miner_block/find_ancestor",
        parameters: Some(&[required("check_points", Kind::CheckPoints)]),
        parse: find_ancestor,
    },
    Path {
        path: "/data/miner_block/debug_index",
        parameters: Some(&[required("index", Kind::Integer)]),
        parse: debug_index,
    },
];

/// The row of a path.
///
/// # Errors
/// [`Code::UnknownPath`].
pub fn path(path: &str) -> Result<&'static Path, Failure> {
    PATHS.iter().find(|row| row.path == path).ok_or_else(|| Failure::new(Code::UnknownPath))
}

impl Query {
    /// Reads the parameters of `path` as the network's nodes do: members that the path doesn't know are ignored, a
    /// required one of the wrong type counts as missing, an optional one of the wrong type as absent.
    ///
    /// # Errors
    /// The network's own texts, with [`Code::MissingParameter`], [`Code::InvalidRange`], [`Code::InvalidCheckPoint`]
    /// or [`Code::UnknownPath`]; [`Code::InvalidParameter`] for a `max_chunk_size` of 0.
    pub fn parse(path: &str, data: Option<&RawValue>) -> Result<Self, Failure> {
        let row = self::path(path)?;
        if row.parameters.is_none() {
            return Ok(Self::Ping { data: data.map_or("null", RawValue::get).into() });
        }
        let data = data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        (row.parse)(&data)
    }

    /// The path that asks this.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Ping { .. } => "/ping",
            Self::Inspect => "/inspect",
            Self::Get { .. } => "/data/miner_block/get",
            Self::Canonical => "/data/miner_block/canonical",
            Self::Epoch { .. } => "/data/miner_block/epoch",
            Self::Range { .. } => "/data/miner_block/range",
            Self::ChainInfo { .. } => "/data/miner_block/chain_info",
            Self::FindAncestor { .. } => "/data/miner_block/find_ancestor",
            Self::DebugIndex { .. } => "/data/miner_block/debug_index",
        }
    }

    /// The `data` that asks this, as JSON text. `range` always says `max_chunk_size`: today's nodes give 50 blocks
    /// to those who don't.
    pub fn data(&self) -> String {
        use serde_json::json;
        match self {
            Self::Ping { data } => data.to_string(),
            Self::Inspect => json!({"level": "full"}).to_string(),
            Self::Get { hash } => json!({ "hash": hash }).to_string(),
            Self::Canonical => "null".into(),
            Self::Epoch { epoch } => json!({ "epoch": epoch }).to_string(),
            Self::Range { from_index, to_index, chunk_size } => {
                json!({"from_index": from_index, "to_index": to_index, "max_chunk_size": chunk_size}).to_string()
            }
            Self::ChainInfo { local_block_hashes, include_blocks, from_index } => {
                let mut data = json!({"local_block_hashes": local_block_hashes, "include_blocks": include_blocks});
                if let Some(from_index) = from_index {
                    data["from_index"] = json!(from_index);
                }
                data.to_string()
            }
            Self::FindAncestor { check_points } => json!({ "check_points": check_points }).to_string(),
            Self::DebugIndex { index } => json!({ "index": index }).to_string(),
        }
    }
}

impl Path {
    /// Checks a JSON body more strictly than [`Query::parse`]: a member that the path doesn't know, or one of the
    /// wrong type, is an error that names it. For doors where a person may have mistyped.
    ///
    /// # Errors
    /// [`Code::MalformedBody`], [`Code::UnknownParameter`], [`Code::InvalidParameter`] or [`Code::MissingParameter`].
    pub fn check(&self, data: &Value) -> Result<(), Failure> {
        let Some(parameters) = self.parameters else { return Ok(()) };
        let members = match data {
            Value::Null => return Ok(()),
            Value::Object(members) => members,
            _ => return Err(Failure::with_detail(Code::MalformedBody, "expected a JSON object or null")),
        };
        for (name, value) in members {
            let parameter = self.parameter(parameters, name)?;
            let absent = value.is_null() && !parameter.required;
            if !absent && !parameter.kind.holds(value) {
                return Err(parameter.wrong(parameter.kind.expected()));
            }
        }
        Ok(())
    }

    /// Turns the pairs of a query string into the JSON `data` of this path.
    ///
    /// # Errors
    /// [`Code::UnknownParameter`] or [`Code::InvalidParameter`] naming the parameter, also where one comes twice.
    pub fn data_from_text<'a>(&self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Value, Failure> {
        let mut data = Map::new();
        for (name, text) in pairs {
            let value = match self.parameters {
                None => Value::String(text.to_owned()),
                Some(parameters) => {
                    let parameter = self.parameter(parameters, name)?;
                    parameter.kind.read(text).ok_or_else(|| parameter.wrong(parameter.kind.expected()))?
                }
            };
            if data.insert(name.to_owned(), value).is_some() {
                return Err(Failure::with_detail(Code::InvalidParameter, format!("{} is given twice", shown(name))));
            }
        }
        Ok(if data.is_empty() { Value::Null } else { Value::Object(data) })
    }

    fn parameter(&self, parameters: &'static [Parameter], name: &str) -> Result<&'static Parameter, Failure> {
        parameters.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
            let mut detail = format!("{} is not a parameter of {}", shown(name), self.path);
            for (i, parameter) in parameters.iter().enumerate() {
                let _ = write!(detail, "{}{}", if i == 0 { "; it knows " } else { ", " }, parameter.name);
            }
            Failure::with_detail(Code::UnknownParameter, detail)
        })
    }
}

impl Parameter {
    /// The error for a value that this parameter can't have. A required one keeps the network's text.
    fn wrong(&self, expected: &str) -> Failure {
        let failure = if self.required { missing(self.name) } else { Failure::new(Code::InvalidParameter) };
        Failure { code: Code::InvalidParameter, ..failure }.detail(format!("{}: expected {expected}", self.name))
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
            Kind::Integer => value.is_u64(),
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

/// A client's own word as part of an error: cut to 64 characters, control characters escaped.
fn shown(word: &str) -> String {
    let cut: String = word.chars().take(64).collect();
    format!("{cut:?}")
}

/// The network's text for a missing parameter. `range` names both of its.
fn missing(name: &str) -> Failure {
    match name {
        "from_index" | "to_index" => {
            Failure::with_text(Code::MissingParameter, "Missing 'from_index' or 'to_index' parameter")
        }
        _ => Failure::with_text(Code::MissingParameter, format!("Missing '{name}' parameter")),
    }
}

fn integer(data: &Map<String, Value>, name: &str) -> Result<u64, Failure> {
    data.get(name).and_then(Value::as_u64).ok_or_else(|| missing(name))
}

fn get(data: &Map<String, Value>) -> Result<Query, Failure> {
    let hash = data.get("hash").and_then(Value::as_str).ok_or_else(|| missing("hash"))?;
    Ok(Query::Get { hash: hash.to_owned() })
}

fn epoch(data: &Map<String, Value>) -> Result<Query, Failure> {
    Ok(Query::Epoch { epoch: integer(data, "epoch")? })
}

fn range(data: &Map<String, Value>) -> Result<Query, Failure> {
    let (from_index, to_index) = (integer(data, "from_index")?, integer(data, "to_index")?);
    if from_index > to_index {
        return Err(Failure::new(Code::InvalidRange));
    }
    let chunk_size = match data.get("max_chunk_size").and_then(Value::as_u64) {
        // A chunk of nothing that says there is more would be asked for again and again.
        Some(0) => {
            return Err(Failure::with_detail(
                Code::InvalidParameter,
                format!("max_chunk_size: expected 1 to {MAX_CHUNK}; a larger one counts as {MAX_CHUNK}"),
            ));
        }
        asked => asked.unwrap_or(MAX_CHUNK).min(MAX_CHUNK),
    };
    Ok(Query::Range { from_index, to_index, chunk_size })
}

fn chain_info(data: &Map<String, Value>) -> Result<Query, Failure> {
    let hashes = data.get("local_block_hashes").and_then(Value::as_array);
    let texts = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Query::ChainInfo {
        local_block_hashes: hashes.map(texts).unwrap_or_default(),
        include_blocks: data.get("include_blocks").and_then(Value::as_bool).unwrap_or_default(),
        from_index: data.get("from_index").and_then(Value::as_u64),
    })
}

fn find_ancestor(data: &Map<String, Value>) -> Result<Query, Failure> {
    let list = data.get("check_points").and_then(Value::as_array).ok_or_else(|| missing("check_points"))?;
    let check_points: Result<_, _> = list.iter().map(CheckPoint::deserialize).collect();
    Ok(Query::FindAncestor { check_points: check_points.map_err(|_| Failure::new(Code::InvalidCheckPoint))? })
}

fn debug_index(data: &Map<String, Value>) -> Result<Query, Failure> {
    Ok(Query::DebugIndex { index: integer(data, "index")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str, data: &str) -> Result<Query, Failure> {
        let raw = RawValue::from_string(data.to_owned()).unwrap();
        Query::parse(path, Some(&raw))
    }

    #[test]
    fn every_query_comes_back_from_its_own_path_and_data() {
        let hash = "a".repeat(64);
        for query in [
            Query::Ping { data: r#"{"b": [1,2.50]}"#.into() },
            Query::Inspect,
            Query::Get { hash: hash.clone() },
            Query::Canonical,
            Query::Epoch { epoch: u64::MAX },
            Query::Range { from_index: 0, to_index: u64::MAX, chunk_size: 7 },
            Query::ChainInfo { local_block_hashes: vec![hash.clone()], include_blocks: true, from_index: Some(3) },
            Query::FindAncestor { check_points: vec![CheckPoint { index: 3, hash }] },
            Query::DebugIndex { index: u64::MAX },
        ] {
            assert_eq!(parse(query.path(), &query.data()).unwrap(), query);
        }
    }

    #[test]
    fn a_parameter_of_the_wrong_type_counts_as_missing() {
        for data in ["null", "{}", "[]", "3", r#"{"epoch":"1"}"#, r#"{"epoch":-1}"#, r#"{"epoch":1.5}"#] {
            let failure = parse("/data/miner_block/epoch", data).unwrap_err();
            assert_eq!(
                (failure.code, &*failure.error),
                (Code::MissingParameter, "Missing 'epoch' parameter"),
                "{data}"
            );
        }
    }

    #[test]
    fn chunk_sizes_are_clamped_and_zero_is_refused() {
        let size = |size: &str| parse("/data/miner_block/range", &format!(r#"{{"from_index":0,"to_index":9{size}}}"#));
        for (given, used) in [("", 1000), (r#","max_chunk_size":1000000000"#, 1000), (r#","max_chunk_size":"x""#, 1000)]
        {
            assert_eq!(size(given).unwrap(), Query::Range { from_index: 0, to_index: 9, chunk_size: used });
        }
        assert_eq!(size(r#","max_chunk_size":0"#).unwrap_err().code, Code::InvalidParameter);
    }

    #[test]
    fn text_becomes_data_by_kind() {
        let row = path("/data/miner_block/chain_info").unwrap();
        let pairs =
            [("local_block_hashes", "aa,bb"), ("include_blocks", "true"), ("from_index", "18446744073709551615")];
        let data = row.data_from_text(pairs.into_iter()).unwrap();
        assert_eq!(
            data,
            serde_json::json!({"local_block_hashes": ["aa", "bb"], "include_blocks": true, "from_index": u64::MAX})
        );
        for (name, text) in [
            ("from_index", "-1"),
            ("from_index", "+1"),
            ("from_index", "1.0"),
            ("from_index", "1e3"),
            ("from_index", ""),
            ("from_index", "18446744073709551616"),
            ("include_blocks", "yes"),
        ] {
            let failure = row.data_from_text([(name, text)].into_iter()).unwrap_err();
            assert_eq!(failure.code, Code::InvalidParameter, "{name}={text}");
            assert!(failure.detail.unwrap().starts_with(name));
        }
        let unknown = row.data_from_text([("epohc", "1")].into_iter()).unwrap_err();
        assert_eq!(unknown.code, Code::UnknownParameter);
        let twice = row.data_from_text([("from_index", "1"), ("from_index", "2")].into_iter()).unwrap_err();
        assert_eq!(twice.detail.unwrap(), "\"from_index\" is given twice");
    }

    #[test]
    fn a_body_is_checked_member_by_member() {
        let row = path("/data/miner_block/epoch").unwrap();
        assert_eq!(row.check(&serde_json::json!({"epoch": 1})), Ok(()));
        let wrong = row.check(&serde_json::json!({"epoch": "1"})).unwrap_err();
        assert_eq!((wrong.code, &*wrong.error), (Code::InvalidParameter, "Missing 'epoch' parameter"));
        assert_eq!(row.check(&serde_json::json!({"epohc": 1})).unwrap_err().code, Code::UnknownParameter);
        assert_eq!(row.check(&serde_json::json!([1])).unwrap_err().code, Code::MalformedBody);
    }
}
