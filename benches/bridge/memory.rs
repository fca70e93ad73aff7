//! Resident memory of a `serve` process on the longest chain, under mixed load.

use std::time::{Duration, Instant};

use futures::StreamExt;
use modal_gateway::protocol::Query;
use tokio::task::JoinSet;

use crate::{
    chain::{Kind, Question, Stores},
    machine::field,
    measure::{Outcome, Table, Target, thousands},
    program::serve,
};

/// Blocks in the chain.
const LENGTH: usize = 100_000;
/// Clients that ask for blocks; one more reads the whole chain again and again.
const CLIENTS: usize = 32;

/// MiB before, during and after.
pub async fn run(stores: &Stores, duration: Duration) -> Outcome<String> {
    let folder = tempfile::tempdir()?;
    let (process, base) = serve(&stores.url(Kind::Sqlite, LENGTH)?, folder.path()).await?;
    let status = format!("/proc/{}/status", process.id().ok_or("`serve` has ended")?);
    let mebibytes =
        |name| -> Outcome<f64> { Ok(field(&status, name)?.trim_end_matches(" kB").parse::<f64>()? / 1024.0) };
    let before = mebibytes("VmRSS")?;

    let client = reqwest::Client::builder().no_proxy().build()?;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (client, base) = (client.clone(), base.clone());
        let kinds = [Question::Get, Question::Epoch, Question::Range].map(|question| stores.asker(question, LENGTH));
        tasks.spawn(async move {
            let (mut requests, mut bytes) = (0u64, 0u64);
            while start.elapsed() < duration {
                // Every eighth client asks for as much as is given at once.
                let url = match number % 8 {
                    0 => format!(
                        "{base}/data/miner_block/range?from_index={}&to_index={LENGTH}",
                        fastrand::usize(..LENGTH)
                    ),
                    _ => url(&base, &kinds[fastrand::usize(..kinds.len())]())?,
                };
                bytes += client.get(url).send().await?.error_for_status()?.bytes().await?.len() as u64;
                requests += 1;
            }
            Outcome::Ok((requests, bytes, 0))
        });
    }
    tasks.spawn(async move {
        let (mut bytes, mut chains) = (0u64, 0u64);
        while start.elapsed() < duration {
            let response = client.get(format!("{base}/data/miner_block/canonical")).send().await?.error_for_status()?;
            let mut body = response.bytes_stream();
            while let Some(part) = body.next().await {
                bytes += part?.len() as u64;
            }
            chains += 1;
        }
        Outcome::Ok((0, bytes, chains))
    });
    let (mut requests, mut bytes, mut chains) = (0, 0, 0);
    while let Some(task) = tasks.join_next().await {
        let (more_requests, more_bytes, more_chains) = task??;
        (requests, bytes, chains) = (requests + more_requests, bytes + more_bytes, chains + more_chains);
    }
    let seconds = start.elapsed().as_secs_f64();

    let mut target = Target::at_most(150.0);
    let peak = mebibytes("VmHWM")?;
    target.check(peak);
    let mut table = Table::new(0, &["at start", "after the load", "peak"]);
    table.row([before, mebibytes("VmRSS")?, peak].map(|value| format!("{value:.0}")).into());
    drop(process);
    Ok(format!(
        "#### Resident memory of `serve` on 100,000 blocks in SQLite: MiB\n\n{table}\n\
         Under load from {CLIENTS} clients (`get`, `epoch`, `range` of 40 and of 1,000, at random over the chain: {} \
         requests a second) and one that read the whole chain {chains} times over, {} MB a second in all, for {seconds:.0} \
         s. {target}\n",
        thousands(requests as f64 / seconds),
        thousands(bytes as f64 / 1e6 / seconds),
    ))
}

fn url(base: &str, query: &Query) -> Outcome<String> {
    let parameters = match query {
        Query::Get { hash } => format!("hash={hash}"),
        Query::Epoch { epoch } => format!("epoch={epoch}"),
        Query::Range { from_index, to_index, .. } => format!("from_index={from_index}&to_index={to_index}"),
        _ => return Err("not a question of this load".into()),
    };
    Ok(format!("{base}{}?{parameters}", query.path()))
}
