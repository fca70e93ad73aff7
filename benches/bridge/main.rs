//! What a request costs: `cargo bench` prints the tables of docs/benchmarks.md. `cargo bench -- --quick` takes a fifth of the
//! time and shows the same within a wider margin; `cargo bench -- sync` and `cargo bench -- compressed` do that part alone.
//!
//! Everything that is compared is measured in turns, round by round, and what is printed is the median over the
//! rounds: a machine that is slower for a while is slower for all. Ratios are medians of each round's own ratio.
//!
//! * [`machine`]: where it ran
//! * [`chain`]: a synthetic chain, and the stores that hold its first 1,000, 10,000 and 100,000 blocks
//! * [`measure`]: rounds, medians, tables
//! * [`direct`]: a request without a listener, over the length of the chain
//! * [`wire`]: the same over libp2p
//! * [`echo`]: libp2p against a bare request-response echo of the same bytes
//! * [`http`]: HTTP against a bare axum handler of the same bytes
//! * [`compressed`]: HTTP in each content coding
//! * [`sync`]: filling a store by syncing, against bare insertion
//! * [`proof`]: syncing with proof of work, and the memory of a sync
//! * [`plain`]: a peer of the network's own protocol alone
//! * [`memory`]: what `serve` takes

use std::time::{Duration, Instant};

use measure::{Outcome, Pace};

mod bare;
#[path = "../../tests/support/bytes_codec.rs"]
mod bytes_codec;
mod chain;
mod compressed;
mod direct;
mod echo;
mod http;
mod machine;
mod measure;
mod memory;
mod plain;
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod proof;
mod sync;
mod wire;

/// Threads of the runtime that client and server share. SQLite and Postgres have threads and processes of their own.
const THREADS: usize = 2;

fn main() -> Outcome<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    // As a task, because what `block_on` runs itself has a thread of its own.
    runtime.block_on(async move { tokio::spawn(run(quick)).await? })
}

async fn run(quick: bool) -> Outcome<()> {
    let started = Instant::now();
    let pace = |milliseconds, rounds| Pace {
        round: Duration::from_millis(if quick { milliseconds / 2 } else { milliseconds }),
        rounds: if quick { 3 } else { rounds },
    };
    eprintln!("filling the stores ...");
    let stores = chain::Stores::fill().await?;
    println!("{}", machine::describe(&stores).await?);

    if std::env::args().any(|argument| argument == "sync") {
        return sync_tables(&stores, quick).await;
    }

    if std::env::args().any(|argument| argument == "compressed") {
        let nodes = wire::Nodes::start(&stores).await?;
        println!("{}", compressed::run(&nodes, pace(300, 9)).await?);
        nodes.stop().await;
        return Ok(());
    }

    eprintln!("{:?}: requests without a listener ...", started.elapsed());
    println!("{}", direct::run(&stores, pace(60, 15)).await?);

    let nodes = wire::Nodes::start(&stores).await?;
    eprintln!("{:?}: libp2p against a bare echo ...", started.elapsed());
    println!("{}", echo::run(&stores, &nodes, pace(300, 9)).await?);

    eprintln!("{:?}: HTTP against a bare handler ...", started.elapsed());
    println!("{}", http::run(&nodes, pace(300, 9)).await?);

    eprintln!("{:?}: HTTP in each content coding ...", started.elapsed());
    println!("{}", compressed::run(&nodes, pace(300, 9)).await?);

    eprintln!("{:?}: requests over libp2p ...", started.elapsed());
    println!("{}", wire::run(&stores, &nodes, pace(200, 5)).await?);
    nodes.stop().await;

    eprintln!("{:?}: syncing ...", started.elapsed());
    sync_tables(&stores, quick).await?;

    eprintln!("{:?}: memory of `serve` ...", started.elapsed());
    println!("{}", memory::run(&stores, Duration::from_secs(if quick { 3 } else { 10 })).await?);
    eprintln!("{:?}: done", started.elapsed());
    Ok(())
}

async fn sync_tables(stores: &chain::Stores, quick: bool) -> Outcome<()> {
    println!("{}", sync::run(stores, if quick { 1 } else { 5 }).await?);
    println!("{}", proof::run(if quick { 1 } else { 5 }).await?);
    println!("{}", proof::memory(stores).await?);
    Ok(())
}
