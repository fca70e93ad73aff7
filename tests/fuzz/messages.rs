//! Requests and answers as they travel.

use modal_gateway::protocol::{
    Answer, Code, Failure, MAX_CHUNK, Query, Request, encode_request, open_envelope, query::CheckPoint,
};
use serde_json::Value;

/// A request that is understood is written so that it is understood alike.
pub fn request(data: &[u8]) {
    let failure = match Request::parse(data).and_then(|request| request.query()) {
        Ok(query) => {
            let again = encode_request(&query);
            assert_eq!(Request::parse(&again).unwrap().query().unwrap(), query);
            return bounded(&query);
        }
        Err(failure) => failure,
    };
    let known = [
        Code::MalformedBody,
        Code::UnknownPath,
        Code::MissingParameter,
        Code::InvalidParameter,
        Code::InvalidRange,
        Code::InvalidCheckPoint,
    ];
    assert!(known.contains(&failure.code), "{failure:?}");
    is_failure(&failure.encode(), &failure);
}

/// What a query may ask for at most.
pub fn bounded(query: &Query) {
    if let Query::Range { from_index, to_index, chunk_size } | Query::Headers { from_index, to_index, chunk_size } =
        query
    {
        assert!(from_index <= to_index && (1..=MAX_CHUNK).contains(chunk_size), "{query:?}");
    }
}

/// An envelope is opened as JSON has it; an answer in it that passes for one is written so that it is read alike.
pub fn answer(data: &[u8]) {
    let Ok(opened) = open_envelope(data) else { return };
    let whole = serde_json::from_slice::<Value>(data);
    if let Ok(whole) = &whole {
        assert_eq!(whole["ok"].as_bool(), Some(opened.is_ok()));
    }
    match opened {
        Ok(text) => {
            if let (Ok(whole), Ok(inner)) = (&whole, serde_json::from_str::<Value>(text)) {
                assert_eq!(whole["data"], inner);
            }
            for query in questions(text) {
                answers(&query, text);
            }
        }
        Err(failure) => {
            let detail = failure.detail.clone().unwrap_or_default();
            assert!(detail.chars().count() <= 200 && !detail.contains(char::is_control), "{detail:?}");
            is_failure(&failure.encode(), &failure);
        }
    }
}

/// A failure that we write is opened as a failure with the same text.
fn is_failure(encoded: &[u8], failure: &Failure) {
    let value: Value = serde_json::from_slice(encoded).unwrap();
    assert_eq!((&value["ok"], &value["errors"]["error"]), (&Value::Bool(false), &Value::from(&*failure.error)));
    assert!(open_envelope(encoded).unwrap().is_err());
}

/// A question of each kind, such that `text` may be its answer.
fn questions(text: &str) -> Vec<Query> {
    let data: Value = serde_json::from_str(text).unwrap_or_default();
    let number = |name: &str| data[name].as_u64().unwrap_or_default();
    let from_index = number("from_index");
    let to_index = from_index.max(number("requested_to")).max(number("to_index"));
    let chunk_size = number("chunk_size").clamp(1, MAX_CHUNK);
    let matches = data["matches"].as_array().map_or(&[][..], Vec::as_slice);
    let check_points = matches.iter().filter_map(|point| {
        Some(CheckPoint { index: point["index"].as_u64()?, hash: point["hash"].as_str()?.to_owned() })
    });
    vec![
        Query::Ping { data: "null".into() },
        Query::Inspect,
        Query::Get { hash: data["hash"].as_str().unwrap_or_default().to_owned() },
        Query::Canonical,
        Query::Epoch { epoch: number("epoch") },
        Query::Range { from_index, to_index, chunk_size },
        Query::Range { from_index, to_index: u64::MAX, chunk_size: MAX_CHUNK },
        Query::Headers { from_index, to_index, chunk_size: MAX_CHUNK },
        Query::ChainInfo { local_block_hashes: vec![], include_blocks: true, from_index: None },
        Query::ChainInfo { local_block_hashes: vec![], include_blocks: false, from_index: Some(from_index) },
        Query::FindAncestor { check_points: check_points.collect() },
        Query::DebugIndex { index: number("index") },
    ]
}

fn answers(query: &Query, text: &str) {
    let Ok(answer) = Answer::decode(query, text) else { return };
    let encoded = answer.encode();
    let data = open_envelope(encoded.as_bytes()).unwrap().unwrap();
    assert_eq!(Answer::decode(query, data).unwrap().encode(), encoded, "{query:?}");
    let list = match (&answer, query) {
        (Answer::Range { blocks, .. }, Query::Range { from_index, to_index, .. }) => {
            let written: Value = serde_json::from_str(data).unwrap();
            // Where to go on is behind this answer, and there is something to go on to.
            let next = written["next_from_index"].as_u64();
            assert!(next.is_none_or(|next| next > *from_index && next <= *to_index), "{data}");
            assert_eq!(written["has_more"].as_bool(), Some(next.is_some()));
            blocks
        }
        (Answer::Canonical(blocks) | Answer::Epoch { blocks, .. }, _) => blocks,
        (Answer::ChainInfo { blocks: Some(blocks), .. }, _) => blocks,
        _ => return,
    };
    let blocks: Vec<Value> = serde_json::from_str(&format!("[{}]", list.json)).unwrap();
    assert_eq!(blocks.len() as u64, list.count);
    if let Query::Range { from_index, to_index, .. } = query {
        let asked = |block: &Value| (*from_index..=*to_index).contains(&block["index"].as_u64().unwrap());
        assert!(blocks.iter().all(asked), "none but those asked for");
    }
}
