//! The paths, their parameters, and how these become a query.

use serde_json::{Map, Value, value::RawValue};

use super::{
    typed::{CheckPoint, Query},
    unique,
};
use crate::protocol::{
    failure::{Code, Failure},
    limits::{MAX_CHUNK, MAX_LIST},
};

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

impl Path {
    /// The query that this data asks; see [`Query::parse`].
    pub(super) fn query(&self, data: Option<&RawValue>) -> Result<Query, Failure> {
        if self.parameters.is_none() {
            return Ok(Query::Ping { data: data.map_or("null", RawValue::get).into() });
        }
        match data.map(|data| unique::lenient(data.get())) {
            Some(Ok(Value::Object(members))) => (self.parse)(&members),
            Some(Err(error)) if error.is_data() => Err(Failure::with_detail(Code::InvalidParameter, error.to_string())),
            // What is no object, or nested too deeply, counts as one without members.
            _ => (self.parse)(&Map::new()),
        }
    }
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

/// The table: every path of the protocol that HTTP and libp2p share.
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

/// The row of a path that HTTP and libp2p share.
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
    /// Whether its answers can hold whole blocks.
    pub fn gives_blocks(&self) -> bool {
        ["get", "canonical", "epoch", "range", "chain_info"].contains(&self.name())
    }

    /// Whether its answer is a list of blocks, which can be paged, anchored and sent as CSV or line by line.
    pub fn is_list(&self) -> bool {
        ["canonical", "epoch", "range"].contains(&self.name())
    }

    /// The last segment.
    fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// The network's text for a missing parameter. `range` names both of its.
pub(super) fn missing(name: &str) -> Failure {
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
pub(super) fn whole(value: &Value) -> Option<u64> {
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
    /// or [`Code::UnknownPath`]; [`Code::InvalidParameter`] for a `max_chunk_size` of 0, and for data with too many
    /// values.
    pub fn parse(path: &str, data: Option<&RawValue>) -> Result<Self, Failure> {
        any_path(path)?.query(data)
    }
}
