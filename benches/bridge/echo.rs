//! libp2p against a bare request-response echo that answers with as many bytes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use modal_gateway::source::Origin;

use crate::{
    bare::{Client, Echo},
    chain::{Kind, Question, Stores},
    cpu::Meter,
    measure::{Contender, Outcome, Pace, Rates, Table, Target, median, thousands},
    wire::{Cache, IN_FLIGHT, Nodes},
};

/// Blocks in the chain.
const LENGTH: usize = 10_000;

/// CPU time of a request, in microseconds, of each round.
type Times = Arc<Mutex<Vec<f64>>>;

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
    let mut cpu = Table::new(1, &["request", "in flight", "echo", "our node", "our node and client", "no cache"]);
    // By `IN_FLIGHT`; and without a cache.
    let mut cached = [Target::at_least(0.85), Target::at_least(0.9)];
    let mut uncached_target = Target::at_least(0.7);
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
        for (in_flight, target) in IN_FLIGHT.into_iter().zip(&mut cached) {
            let times = [(); 4].map(|()| Times::default());
            let contenders = [
                echo_client.contender(in_flight, asker.clone()),
                node_client.contender(in_flight, asker.clone()),
                nodes.contender(node, in_flight, asker.clone()),
                uncached_client.contender(in_flight, asker.clone()),
            ];
            let contenders: Vec<_> =
                contenders.into_iter().zip(&times).map(|(contender, times)| timed(contender, times)).collect();
            let rates = Rates::measure(&contenders, pace).await?;
            let mut row = vec![name.to_owned(), in_flight.to_string()];
            row.extend(times.map(|times| {
                let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
                format!("{:.1}", median(times))
            }));
            cpu.row(row);
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
                uncached_target.check(rates.ratio(3, 0)),
            ]);
        }
    }
    let [few, many] = cached;
    Ok(format!(
        "#### Over libp2p against a bare echo of the same bytes, 10,000 blocks in SQLite: requests a second\n\n{table}\n\
         The echo is libp2p alone at both ends, and the same bare client asks it and our node; `our node and client` is \
         our client asking our node. Random over the whole chain, whose answers the default cache holds; without it each \
         is read from the store. With 4 in flight: {few} With 32: {many} Without a cache: {uncached_target}\n\n\
         #### The same, in microseconds of CPU time a request\n\n{cpu}\n\
         Client, server and SQLite together, as the kernel counts them: other programs change these figures less than \
         the rates.\n"
    ))
}

/// Adds the CPU time of a contender's requests to `times`.
fn timed(contender: Contender, times: &Times) -> Contender {
    let times = times.clone();
    Box::new(move |round| {
        let (work, times) = (contender(round), times.clone());
        Box::pin(async move {
            let (cpu, start) = (Meter::Own.seconds()?, Instant::now());
            let rate = work.await?;
            let requests = rate * start.elapsed().as_secs_f64();
            let time = (Meter::Own.seconds()? - cpu) * 1e6 / requests;
            times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
            Ok(rate)
        })
    })
}
