//! The chain's views and the explorer over HTTP, by the length of the chain: read from the store for each request.

use modal_gateway::chain::BLOCKS_PER_EPOCH;

use crate::{
    chain::Stores,
    direct::uncached,
    http::{Server, gateway, load},
    measure::{Contender, Outcome, Pace, Rates, Table, Target, thousands},
};

/// Different requests for each route, as far as it has different ones.
const REQUESTS: usize = 1_000;

/// A path, random over a chain of so many blocks.
type Path = fn(u64) -> String;

/// The routes, and a path of each.
const ROUTES: [(&str, Path); 4] = [
    ("`/chain/epochs/{epoch}`", |blocks| format!("/chain/epochs/{}", fastrand::u64(..(blocks - 1) / BLOCKS_PER_EPOCH))),
    ("`/chain/blocks?before=`", |blocks| format!("/chain/blocks?before={}", fastrand::u64(20..blocks))),
    ("`/chain/network`", |_| "/chain/network".into()),
    ("`/`, the explorer", |_| "/".into()),
];

/// Microseconds a request over one connection, one after the other.
pub async fn run(stores: &Stores, lengths: &[usize], pace: Pace) -> Outcome<String> {
    let blocks: Vec<String> = lengths.iter().map(|length| thousands(*length as f64)).collect();
    let [shortest, .., longest] = &blocks[..] else { return Err("one length shows no growth".into()) };
    let ratio = format!("{longest} : {shortest}");
    let mut columns = vec!["store", "route"];
    columns.extend(blocks.iter().map(String::as_str).chain([ratio.as_str()]));
    let (mut table, mut target) = (Table::new(2, &columns), Target::of_growth(lengths));
    for (kind, store_name) in stores.kinds.iter().copied() {
        let mut servers = Vec::new();
        for length in lengths {
            servers.push(Server::start(gateway(uncached(stores, kind, *length)?)?).await?);
        }
        for (route, path) in ROUTES {
            let contenders: Vec<Contender> = servers
                .iter()
                .zip(lengths)
                .map(|(server, length)| {
                    let request = |path| {
                        format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/html, */*;q=0.5\r\n\r\n")
                    };
                    load(server.address, 1, (0..REQUESTS).map(|_| request(path(*length as u64))).collect())
                })
                .collect();
            let rates = Rates::measure(&contenders, pace).await?;
            let mut row = vec![store_name.to_owned(), route.to_owned()];
            row.extend((0..lengths.len()).map(|length| thousands(1e6 / rates.of(length))));
            row.push(target.check(rates.ratio(0, lengths.len() - 1)));
            table.row(row);
        }
    }
    Ok(format!(
        "#### Views of the chain over HTTP, without a cache: µs a request, by blocks in the chain\n\n{table}\n\
         One request at a time over one connection, epochs and indexes at random over the whole chain. {target}\n"
    ))
}
