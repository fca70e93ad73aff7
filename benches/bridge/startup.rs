//! How long `serve` takes to start, by the length of the chain.

use std::time::Instant;

use crate::{
    chain::Stores,
    measure::{Outcome, Table, median, thousands},
    program::serve,
};

/// Milliseconds from the start of the process to its listener, and to the first answer.
pub async fn run(stores: &Stores, lengths: &[usize], rounds: usize) -> Outcome<String> {
    let mut table = Table::new(1, &["store", "blocks", "listens after", "first answer after"]);
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (kind, name) in stores.kinds.iter().copied() {
        for length in lengths {
            let (mut listens, mut answers) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let folder = tempfile::tempdir()?;
                let start = Instant::now();
                let (mut process, base) = serve(&stores.url(kind, *length)?, folder.path()).await?;
                listens.push(1e3 * start.elapsed().as_secs_f64());
                client.get(format!("{base}/data/miner_block/epoch?epoch=7")).send().await?.error_for_status()?;
                answers.push(1e3 * start.elapsed().as_secs_f64());
                process.kill().await?;
            }
            let times = [listens, answers].map(|times| format!("{:.0}", median(times)));
            table.row([vec![name.to_owned(), thousands(*length as f64)], times.into()].concat());
        }
    }
    Ok(format!(
        "#### Start of `serve`, by blocks in the chain: ms\n\n{table}\n\
         From the start of the process; the store is there and has the current schema. Medians over {rounds} starts.\n"
    ))
}
