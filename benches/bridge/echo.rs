//! libp2p against a bare request-response echo that answers with as many bytes.

use modal_gateway::source::Origin;

use crate::{
    bare::{Client, Echo},
    chain::{Kind, Question, Stores},
    measure::{Outcome, Pace, Rates, Table, Target, thousands},
    wire::{Cache, IN_FLIGHT, Nodes},
};

/// Blocks in the chain.
const LENGTH: usize = 10_000;

/// Requests per second, ours and the echo's.
pub async fn run(stores: &Stores, nodes: &Nodes, pace: Pace) -> Outcome<String> {
    let node = nodes.get(Kind::Sqlite, LENGTH, Cache::Default)?;
    let uncached = nodes.get(Kind::Sqlite, LENGTH, Cache::Off)?;
    let columns = [
        "request",
        "bytes",
        "in flight",
        "echo",
        "our node",
        "our node : echo",
        "our node and client",
        "ours : echo",
        "our node, no cache",
        "no cache : echo",
    ];
    let mut table = Table::new(1, &columns);
    let mut target = Target::at_least(0.7);
    for (question, name) in [(Question::Epoch, "`epoch`"), (Question::Get, "`get`")] {
        let asker = stores.asker(question, LENGTH);
        let answer = node.source.answer(asker(), &Origin::Local, 0).await;
        let answer = answer.map_err(|declined| declined.failure.to_string())?.body.clone();
        let length = answer.len();
        // So often that all but a few of the answers are in the cache.
        for _ in 0..5 * LENGTH {
            node.source.answer(asker(), &Origin::Local, 0).await.map_err(|declined| declined.failure.to_string())?;
        }
        let echo = Echo::start(answer).await?;
        let echo_client = Client::of_echo(&echo).await?;
        let node_client = Client::of_node(node).await?;
        let uncached_client = Client::of_node(uncached).await?;
        for in_flight in IN_FLIGHT {
            let contenders = [
                echo_client.contender(in_flight, asker.clone()),
                node_client.contender(in_flight, asker.clone()),
                nodes.contender(node, in_flight, asker.clone()),
                uncached_client.contender(in_flight, asker.clone()),
            ];
            let rates = Rates::measure(&contenders, pace).await?;
            table.row(vec![
                name.to_owned(),
                thousands(length as f64),
                in_flight.to_string(),
                thousands(rates.of(0)),
                thousands(rates.of(1)),
                target.check(rates.ratio(1, 0)),
                thousands(rates.of(2)),
                target.check(rates.ratio(2, 0)),
                thousands(rates.of(3)),
                format!("{:.2}", rates.ratio(3, 0)),
            ]);
        }
    }
    Ok(format!(
        "#### Over libp2p against a bare echo of the same bytes, 10,000 blocks in SQLite: requests a second\n\n{table}\n\
         The echo is libp2p alone at both ends, and the same bare client asks it and our node; `our node and client` is \
         our client asking our node. Random over the whole chain, whose answers the default cache holds; without it each \
         is read from the store. {target}\n"
    ))
}
