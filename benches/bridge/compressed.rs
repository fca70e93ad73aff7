//! `range` of 1,000 blocks in each content coding: bytes, and requests a second against the body as it is.

use axum::{Router, http::header, routing};
use modal_gateway::{protocol::Query, source::Origin};
use tower_http::compression::CompressionLayer;

use crate::{
    chain::Kind,
    http::{Server, gateway, head_length},
    measure::{Outcome, Pace, Rates, Table, thousands},
    wire::{Cache, Nodes},
};

/// Blocks in the chain.
const LENGTH: usize = 10_000;
/// Connections that are kept open, with one request on each at a time.
const CONNECTIONS: usize = 16;
const RANGE: Query = Query::Range { from_index: 2000, to_index: 2999, chunk_size: 1000 };
const TARGET: &str = "/data/miner_block/range?from_index=2000&to_index=2999";
const CODINGS: [&str; 4] = ["identity", "gzip", "br", "zstd"];

fn request(headers: &str) -> String {
    format!("GET {TARGET} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n")
}

/// Requests per second: of the gateway, which compresses once, and of a bare handler of the same bytes that compresses
/// each response anew.
pub async fn run(nodes: &Nodes, pace: Pace) -> Outcome<String> {
    let source = nodes.get(Kind::Sqlite, LENGTH, Cache::Default)?.source.clone();
    let answer = source.answer(RANGE, &Origin::Local, 0).await;
    let body = answer.map_err(|declined| declined.failure.to_string())?.body.clone();
    let handler = async move || ([(header::CONTENT_TYPE, "application/json")], body.clone());
    let path = TARGET.split('?').next().unwrap_or_default();
    let anew = Router::new().route(path, routing::get(handler)).layer(CompressionLayer::new());
    let (ours, anew) = (Server::start(gateway(source)?).await?, Server::start(anew).await?);

    let (mut contenders, mut bytes) = (Vec::new(), Vec::new());
    for coding in CODINGS {
        let request = request(&format!("accept-encoding: {coding}\r\n"));
        let response = ours.response(&request).await?;
        bytes.push(response.len() - head_length(&response).unwrap_or_default());
        contenders.push(ours.contender(CONNECTIONS, &request));
        contenders.push(anew.contender(CONNECTIONS, &request));
    }
    let response = String::from_utf8_lossy(&ours.response(&request("")).await?).into_owned();
    let tag = response.lines().find_map(|line| line.strip_prefix("etag: ")).ok_or("no entity tag")?.to_owned();
    contenders.push(ours.contender(CONNECTIONS, &request(&format!("if-none-match: {tag}\r\n"))));

    let rates = Rates::measure(&contenders, pace).await?;
    let columns = ["coding", "bytes", "of identity", "gateway", "of identity", "compressed anew"];
    let mut table = Table::new(1, &columns);
    for (place, coding) in CODINGS.into_iter().enumerate() {
        table.row(vec![
            format!("`{coding}`"),
            thousands(bytes[place] as f64),
            format!("{:.2}", bytes[place] as f64 / bytes[0] as f64),
            thousands(rates.of(2 * place)),
            format!("{:.2}", rates.ratio(2 * place, 0)),
            thousands(rates.of(2 * place + 1)),
        ]);
    }
    let copy = 2 * CODINGS.len();
    let rate = thousands(rates.of(copy));
    let ratio = format!("{:.2}", rates.ratio(copy, 0));
    table.row(vec!["304: the copy is current".into(), "0".into(), "0.00".into(), rate, ratio, String::new()]);
    Ok(format!(
        "#### `range` of 1,000 blocks over HTTP, compressed: requests a second\n\n{table}\n\
         The same range, read again and again over {CONNECTIONS} connections that are kept open, without decompression. \
         The gateway compresses an answer once and keeps it; the last column is a bare axum handler of the same bytes that \
         compresses each response with tower-http's layer.\n"
    ))
}
