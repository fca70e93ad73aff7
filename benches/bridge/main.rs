//! What a request costs: `cargo bench` prints the tables of docs/benchmarks.md. `cargo bench -- --quick` takes a fifth
//! of the time and shows the same within a wider margin. Names after `--` choose sections: `cargo bench -- rivals
//! latency`.
//!
//! Everything that is compared is measured in turns, round by round, and what is printed is the median over the
//! rounds: a machine that is slower for a while is slower for all. Ratios are medians of each round's own ratio.
//!
//! * [`machine`]: where it ran
//! * [`chain`]: a synthetic chain, and the stores that hold its first 1,000, 10,000 and 100,000 blocks
//! * [`measure`]: rounds, medians, tables
//! * [`direct`]: a request without a listener, over the length of the chain
//! * [`views`]: views of the chain and the explorer over HTTP, over the length of the chain
//! * [`wire`]: the same over libp2p
//! * [`echo`]: libp2p against a bare request-response echo of the same bytes
//! * [`http`]: HTTP against a bare axum handler of the same bytes
//! * [`rivals`]: HTTP against a bare handler and [`nginx`], with the [`cpu`] time of each
//! * [`latency`]: latencies at a fixed rate
//! * [`compressed`]: HTTP in each content coding
//! * [`queries`]: Postgres without a gateway: `pgbench`, `json_agg`
//! * [`sync`]: filling a store by syncing, against the other ways to [`fill`] it; [`spent`] measures the CPU time of
//!   each process
//! * [`proof`]: syncing with proof of work, and the memory of a sync
//! * [`pow`]: hashes a second of proof of work
//! * [`plain`]: a peer of the network's own protocol alone
//! * [`memory`]: what `serve` takes
//! * [`whole`]: the whole chain in one answer
//! * [`startup`]: how long it takes to start; [`program`] starts it
//! * [`sizes`]: what it takes on disk

use std::time::{Duration, Instant};

use measure::{Outcome, Pace};

mod bare;
#[path = "../../tests/support/bytes_codec.rs"]
mod bytes_codec;
mod chain;
mod compressed;
mod cpu;
mod direct;
mod echo;
mod fill;
mod http;
mod latency;
mod machine;
mod measure;
mod memory;
mod nginx;
mod plain;
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod pow;
mod program;
mod proof;
mod queries;
mod rivals;
mod sizes;
mod spent;
mod startup;
mod sync;
mod views;
mod whole;
mod wire;

/// Threads of the runtime that client and server share. SQLite and Postgres have threads and processes of their own.
const THREADS: usize = 2;

/// The sections, in their order. `growth` takes long, so that it has to be named.
const SECTIONS: [&str; 13] = [
    "direct",
    "echo",
    "http",
    "rivals",
    "latency",
    "compressed",
    "wire",
    "queries",
    "whole",
    "sync",
    "pow",
    "memory",
    "growth",
];

/// What is to be done.
#[derive(Clone)]
struct Plan {
    /// Shorter rounds, and fewer.
    quick: bool,
    /// Growth to 10,000,000 blocks: some 15 GB of disk for each kind of store in turn.
    huge: bool,
    /// The sections that were named; all but `growth` if there are none.
    named: Vec<String>,
}

impl Plan {
    /// Reads the program's arguments.
    fn of_arguments() -> Outcome<Self> {
        // Cargo adds `--bench`.
        let (options, named): (Vec<_>, Vec<_>) =
            std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
        if let Some(unknown) = named.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
            return Err(format!("no section {unknown}; there are {}", SECTIONS.join(", ")).into());
        }
        let has = |option| options.iter().any(|given| given == option);
        Ok(Self { quick: has("--quick"), huge: has("--huge"), named })
    }

    /// Whether to do a section; says so.
    fn has(&self, section: &str, started: Instant) -> bool {
        let is_chosen = match self.named.is_empty() {
            true => section != "growth",
            false => self.named.iter().any(|name| name == section),
        };
        if is_chosen {
            eprintln!("{:?}: {section} ...", started.elapsed());
        }
        is_chosen
    }

    fn pace(&self, milliseconds: u64, rounds: usize) -> Pace {
        Pace {
            round: Duration::from_millis(if self.quick { milliseconds / 2 } else { milliseconds }),
            rounds: if self.quick { 3 } else { rounds },
        }
    }
}

fn main() -> Outcome<()> {
    if std::env::var_os(pow::CHILD).is_some() {
        return pow::child();
    }
    let plan = Plan::of_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    // As a task, because what `block_on` runs itself has a thread of its own.
    runtime.block_on(async move { tokio::spawn(run(plan)).await? })
}

async fn run(plan: Plan) -> Outcome<()> {
    let started = Instant::now();
    println!("{}", machine::describe().await?);
    if plan.named.is_empty() || plan.named.iter().any(|name| !["growth", "pow"].contains(&name.as_str())) {
        eprintln!("filling the stores ...");
        let stores = chain::Stores::fill(&chain::KINDS, &chain::LENGTHS).await?;
        sections(&plan, &stores, started).await?;
    }
    if plan.has("pow", started) {
        println!("{}", pow::run(plan.quick).await?);
    }
    if plan.has("growth", started) {
        growth(&plan).await?;
    }
    eprintln!("{:?}: done", started.elapsed());
    Ok(())
}

async fn sections(plan: &Plan, stores: &chain::Stores, started: Instant) -> Outcome<()> {
    if plan.has("direct", started) {
        println!("{}", direct::run(stores, &chain::LENGTHS, plan.pace(60, 15)).await?);
    }
    let nodes = wire::Nodes::start(stores).await?;
    if plan.has("echo", started) {
        println!("{}", echo::run(stores, &nodes, plan.pace(300, 9)).await?);
    }
    if plan.has("http", started) {
        println!("{}", http::run(&nodes, plan.pace(300, 9)).await?);
    }
    if plan.has("rivals", started) {
        println!("{}", rivals::run(&nodes, plan.pace(500, 9)).await?);
    }
    if plan.has("latency", started) {
        println!("{}", latency::run(&nodes, Duration::from_secs(if plan.quick { 2 } else { 10 })).await?);
    }
    if plan.has("compressed", started) {
        println!("{}", compressed::run(&nodes, plan.pace(300, 9)).await?);
    }
    if plan.has("wire", started) {
        println!("{}", wire::run(stores, &nodes, plan.pace(200, 5)).await?);
    }
    if plan.has("queries", started) {
        println!("{}", queries::run(stores, &nodes, plan.pace(1000, 5)).await?);
    }
    nodes.stop().await;
    if plan.has("whole", started) {
        println!("{}", whole::run(stores, 100_000, if plan.quick { 3 } else { 9 }).await?);
    }
    if plan.has("sync", started) {
        sync_tables(stores, plan.quick).await?;
    }
    if plan.has("memory", started) {
        println!("{}", memory::run(stores, Duration::from_secs(if plan.quick { 3 } else { 10 })).await?);
    }
    Ok(())
}

/// Requests without a listener, and the start of the program, on longer chains.
async fn growth(plan: &Plan) -> Outcome<()> {
    let mut lengths = if plan.quick { vec![1_000, 10_000] } else { vec![1_000, 1_000_000] };
    if plan.huge {
        lengths.push(10_000_000);
    }
    // One kind after the other: two databases of 10,000,000 blocks are more than many a machine's memory holds.
    for kind in chain::KINDS {
        eprintln!("filling {} with up to {:?} blocks ...", kind.1, lengths.last());
        let stores = chain::Stores::fill(&[kind], &lengths).await?;
        println!("{}", direct::run(&stores, &lengths, plan.pace(300, 15)).await?);
        println!("{}", views::run(&stores, &lengths, plan.pace(300, 15)).await?);
        println!("{}", startup::run(&stores, &lengths, if plan.quick { 2 } else { 9 }).await?);
        let longest = lengths.iter().copied().filter(|length| *length <= 1_000_000).max().unwrap_or_default();
        println!("{}", whole::run(&stores, longest, 3).await?);
        println!("{}", sizes::run(&stores, &lengths).await?);
    }
    Ok(())
}

async fn sync_tables(stores: &chain::Stores, quick: bool) -> Outcome<()> {
    println!("{}", sync::run(stores, if quick { 1 } else { 5 }).await?);
    println!("{}", proof::run(if quick { 1 } else { 5 }).await?);
    println!("{}", proof::memory(stores).await?);
    Ok(())
}
