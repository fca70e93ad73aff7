//! The paths, their parameters, and how these become a query.

use std::fmt::Write as _;

use serde_json::{Map, Value, value::RawValue};

use super::typed::{CheckPoint, Query};
use crate::protocol::{
    failure::{Code, Failure},
    limits::MAX_CHUNK,
};

/// Most members of a list. A request of 1 MiB can't have more whole hashes; of short made-up ones it would, each of which
/// takes memory and is looked for.
pub const MAX_LIST: usize = 16_384;

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
    /// The path, the same over HTTP and libp2p.
    pub path: &'static str,
    /// Its parameters. `None`: any JSON (`/ping`).
    pub parameters: Option<&'static [Parameter]>,
    pub(super) parse: fn(&Map<String, Value>) -> Result<Query, Failure>,
}

const fn required(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, required: true }
}

/// A parameter that its path can do without.
pub const fn optional(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, required: false }
}

/// Parameters of the paths that give a part of the chain.
const RANGE: &[Parameter] = &[
    required("from_index", Kind::Integer),
    required("to_index", Kind::Integer),
    optional("max_chunk_size", Kind::Integer),
];

/// The table: every path of the protocol, over HTTP and libp2p.
pub static PATHS: [Path; 9] = [
    Path { path: "/ping", parameters: None, parse: |_| Ok(Query::Ping { data: "null".into() }) },
    Path { path: "/inspect", parameters: Some(&[optional("level", Kind::Text)]), parse: |_| Ok(Query::Inspect) },
    Path { path: "/data/miner_block/get", parameters: Some(&[required("hash", Kind::Text)]), parse: get },
    Path { path: "/data/miner_block/canonical", parameters: Some(&[]), parse: |_| Ok(Query::Canonical) },
    Path { path: "/data/miner_block/epoch", parameters: Some(&[required("epoch", Kind::Integer)]), parse: epoch },
    Path { path: "/data/miner_block/range", parameters: Some(RANGE), parse: range },
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

/// What gateways ask each other beyond the network's protocol: libp2p only. Other nodes answer "Unknown path".
static PEER_PATHS: [Path; 1] = [Path { path: "/data/miner_block/headers", parameters: Some(RANGE), parse: headers }];

/// The row of a path.
///
/// # Errors
/// [`Code::UnknownPath`].
pub fn path(path: &str) -> Result<&'static Path, Failure> {
    PATHS.iter().find(|row| row.path == path).ok_or_else(|| Failure::new(Code::UnknownPath))
}

/// The row of a path that libp2p knows.
pub(super) fn any_path(path: &str) -> Result<&'static Path, Failure> {
    self::path(path).or_else(|unknown| PEER_PATHS.iter().find(|row| row.path == path).ok_or(unknown))
}

impl Path {
    /// See [`check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, data: &Value) -> Result<(), Failure> {
        self.parameters.map_or(Ok(()), |parameters| check(self.path, parameters, data))
    }

    /// Whether its answers can hold whole blocks.
    pub fn gives_blocks(&self) -> bool {
        ["get", "canonical", "epoch", "range", "chain_info"].iter().any(|name| self.path.ends_with(&format!("/{name}")))
    }

    /// See [`data_from_text`].
    ///
    /// # Errors
    /// As there.
    pub fn data_from_text<'a>(&self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Value, Failure> {
        data_from_text(self.path, self.parameters, pairs)
    }
}

/// Checks the JSON body of a path with these parameters, more strictly than [`Query::parse`]: a member that the path
/// doesn't know, or one of the wrong type, is an error that names it. For HTTP, where a person may have mistyped.
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
            return Err(parameter.wrong(parameter.kind.expected()));
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
                parameter.kind.read(text).ok_or_else(|| parameter.wrong(parameter.kind.expected()))?
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
        let mut detail = format!("{} is not a parameter of {path}", shown(name));
        for (i, parameter) in parameters.iter().enumerate() {
            let _ = write!(detail, "{}{}", if i == 0 { "; it knows " } else { ", " }, parameter.name);
        }
        Failure::with_detail(Code::UnknownParameter, detail)
    })
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

/// A client's own word as part of an error: cut to 64 characters, control characters escaped.
pub(super) fn shown(word: &str) -> String {
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
    data.get(name).and_then(whole).ok_or_else(|| missing(name))
}

/// A whole number, also where it is written with a fraction of zero: `7.0` is an integer to JSON Schema, and what some
/// languages write.
fn whole(value: &Value) -> Option<u64> {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    let is_whole = |number: &f64| number.fract() == 0.0 && (0.0..BEYOND_U64).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(is_whole).map(|number| number as u64))
}

fn get(data: &Map<String, Value>) -> Result<Query, Failure> {
    let hash = data.get("hash").and_then(Value::as_str).ok_or_else(|| missing("hash"))?;
    Ok(Query::Get { hash: hash.to_owned() })
}

fn epoch(data: &Map<String, Value>) -> Result<Query, Failure> {
    Ok(Query::Epoch { epoch: integer(data, "epoch")? })
}

fn range(data: &Map<String, Value>) -> Result<Query, Failure> {
    let (from_index, to_index, chunk_size) = part(data)?;
    Ok(Query::Range { from_index, to_index, chunk_size })
}

fn headers(data: &Map<String, Value>) -> Result<Query, Failure> {
    let (from_index, to_index, chunk_size) = part(data)?;
    Ok(Query::Headers { from_index, to_index, chunk_size })
}

/// First index, last index and most members of the part of the chain that is asked for.
fn part(data: &Map<String, Value>) -> Result<(u64, u64, u64), Failure> {
    let (from_index, to_index) = (integer(data, "from_index")?, integer(data, "to_index")?);
    if from_index > to_index {
        return Err(Failure::new(Code::InvalidRange));
    }
    let chunk_size = match data.get("max_chunk_size").and_then(whole) {
        // A chunk of nothing that says there is more would be asked for again and again.
        Some(0) => {
            return Err(Failure::with_detail(
                Code::InvalidParameter,
                format!("max_chunk_size: expected 1 to {MAX_CHUNK}; a larger one counts as {MAX_CHUNK}"),
            ));
        }
        asked => asked.unwrap_or(MAX_CHUNK).min(MAX_CHUNK),
    };
    Ok((from_index, to_index, chunk_size))
}

/// A list that is not too long, if there is one.
fn list<'a>(data: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Vec<Value>>, Failure> {
    let list = data.get(name).and_then(Value::as_array);
    match list {
        Some(list) if list.len() > MAX_LIST => {
            Err(Failure::with_detail(Code::InvalidParameter, format!("{name}: expected at most {MAX_LIST} members")))
        }
        list => Ok(list),
    }
}

fn chain_info(data: &Map<String, Value>) -> Result<Query, Failure> {
    let hashes = list(data, "local_block_hashes")?;
    let texts = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Query::ChainInfo {
        local_block_hashes: hashes.map(texts).unwrap_or_default(),
        include_blocks: data.get("include_blocks").and_then(Value::as_bool).unwrap_or_default(),
        from_index: data.get("from_index").and_then(whole),
    })
}

fn find_ancestor(data: &Map<String, Value>) -> Result<Query, Failure> {
    let list = list(data, "check_points")?.ok_or_else(|| missing("check_points"))?;
    let check_point =
        |item: &Value| Some(CheckPoint { index: whole(&item["index"])?, hash: item["hash"].as_str()?.to_owned() });
    let check_points: Option<_> = list.iter().map(check_point).collect();
    Ok(Query::FindAncestor { check_points: check_points.ok_or_else(|| Failure::new(Code::InvalidCheckPoint))? })
}

fn debug_index(data: &Map<String, Value>) -> Result<Query, Failure> {
    Ok(Query::DebugIndex { index: integer(data, "index")? })
}

impl Query {
    /// Reads the parameters of `path` as the network's nodes do: members that the path doesn't know are ignored, a
    /// required one of the wrong type counts as missing, an optional one of the wrong type as absent.
    ///
    /// # Errors
    /// The network's own texts, with [`Code::MissingParameter`], [`Code::InvalidRange`], [`Code::InvalidCheckPoint`]
    /// or [`Code::UnknownPath`]; [`Code::InvalidParameter`] for a `max_chunk_size` of 0.
    pub fn parse(path: &str, data: Option<&RawValue>) -> Result<Self, Failure> {
        let row = any_path(path)?;
        if row.parameters.is_none() {
            return Ok(Self::Ping { data: data.map_or("null", RawValue::get).into() });
        }
        let data = data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        (row.parse)(&data)
    }
}
