//! What ten operations cost, in instructions that the processor runs, against the bounds in `instructions/bounds.toml`.
//! Times differ from machine to machine and from run to run; these counts hardly do, so a change of the code that costs
//! 10 % more fails here.
//!
//! This program has no harness: it counts itself. It starts itself under callgrind, and each run of an operation lies
//! between two functions whose calls callgrind is set to notice.
//!
//! * `make instructions` or `cargo test --test instructions` prints the table; a name after `--` takes that operation
//!   alone
//! * `make instructions WRITE=1` writes the counts as the new bounds
//! * `make instructions PROFILE=release` counts the code as operators run it; CI has no time for its build
//!
//! What runs:
//!
//! * [`operations`]: the operations
//! * [`callgrind`]: starts valgrind, reads what it counted
//! * [`bounds`]: the bounds, and the table

use std::{process::ExitCode, sync::Arc, time::Duration};

use modal_gateway::{
    chain::{Level, PowOptions, Verifier},
    store::{self, BlockStore, OpenOptions},
};

#[path = "instructions/bounds.rs"]
mod bounds;
#[path = "instructions/callgrind.rs"]
mod callgrind;
#[allow(dead_code, reason = "other test programs use more of it")]
#[path = "support/linked.rs"]
mod linked;
#[path = "instructions/operations.rs"]
mod operations;

use bounds::Bounds;
use operations::{OPERATIONS, State};

/// Blocks in the store that the operations read.
const BLOCKS: u64 = 2_000;

/// How long an operation's other threads have to finish what is left to do behind the answer: they run no instruction
/// while there is none.
const SETTLE: Duration = Duration::from_millis(4);

/// More than the 50 ms for which a source takes the state of the chain for current.
const STATE_IS_OLD: Duration = Duration::from_millis(60);

/// How often an operation that is above its bound is counted again: the machine may have stood still.
const MORE_TRIES: usize = 2;

/// The first argument of this program under callgrind: then come the store's URL and the operations.
const COUNTED: &str = "counted";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let [COUNTED, url, names @ ..] = &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        runtime.block_on(run(url, names));
        return ExitCode::SUCCESS;
    }
    // As with any test program, what is no option is part of the names of what is to run.
    let (options, filters): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let is_chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let names: Vec<&str> = OPERATIONS.iter().map(|(name, ..)| *name).filter(|name| is_chosen(name)).collect();
    if options.iter().any(|option| *option == "--list") {
        names.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if names.is_empty() || !callgrind::is_installed() {
        return ExitCode::SUCCESS;
    }

    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/chain.db", folder.path().display());
    runtime.block_on(fill(&url));
    let mut counts = count(&url, &names);
    if std::env::var_os("WRITE_BOUNDS").is_some_and(|value| value == "1") {
        assert!(filters.is_empty(), "the bounds of all operations are written at once");
        Bounds::write(&counts);
    }
    let bounds = Bounds::read();
    for _ in 0..MORE_TRIES {
        let is_above = |(name, count): &&(&str, u64)| bounds.is_above(name, *count);
        let above: Vec<&str> = counts.iter().filter(is_above).map(|(name, _)| *name).collect();
        if above.is_empty() {
            break;
        }
        let again = count(&url, &above);
        for (name, least) in &mut counts {
            *least =
                again.iter().filter(|(other, _)| other == name).fold(*least, |least, (_, count)| least.min(*count));
        }
    }
    let (table, failed) = bounds.compare(&counts);
    println!("\n{table}");
    // The line that test programs end with, which `.ci/run` adds up.
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", counts.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

/// Counts these operations over the store at `url`. Of the rounds the least counts: in others caches tidy up, or a
/// state that was to be fresh is old, because the machine stood still.
fn count<'a>(url: &str, names: &[&'a str]) -> Vec<(&'a str, u64)> {
    let counts = callgrind::count(&[&[COUNTED, url], names].concat());
    assert_eq!(counts.len(), names.len() * operations::ROUNDS, "counts of all rounds");
    let least = counts.chunks(operations::ROUNDS).map(|rounds| rounds.iter().copied().min().unwrap_or_default());
    names.iter().copied().zip(least).collect()
}

/// Writes the chain that the operations read. Not under callgrind, which would take minutes for it.
async fn fill(url: &str) {
    let store = store::open(url, &OpenOptions::default()).await.expect("a store");
    let verifier = Verifier::new(&linked::network(), Level::Linked, PowOptions::default()).expect("a verifier");
    let blocks = verifier.verify(None, linked::linked(None, BLOCKS, "instructions")).expect("a chain");
    let mut writer = store.write().await.expect("a writer");
    writer.append(blocks).await.expect("blocks are appended");
    writer.commit().await.expect("blocks are committed");
    store.close().await;
}

/// Runs operations over the store at `url`, each round between the two functions.
async fn run(url: &str, names: &[&str]) {
    // One connection, whose caches are as full in one round as in the next.
    let options = OpenOptions { connections: 1, ..OpenOptions::default() };
    let store: Arc<dyn BlockStore> = store::open(url, &options).await.expect("the store");
    for name in names {
        let (_, state, prepare) =
            OPERATIONS.iter().find(|(known, ..)| known == name).expect("an operation of this name");
        let mut operation = prepare(store.clone()).await;
        for _ in 0..operations::WARM_UP {
            operation().await;
        }
        for _ in 0..operations::ROUNDS {
            match state {
                // Callgrind takes its time to write its counts, so the state that was read before is old. What this read
                // leaves to do must not be counted: nothing says when it is done.
                State::Fresh => {
                    operation().await;
                    std::thread::sleep(SETTLE);
                }
                // The age of the state is a time by the clock: there is nothing else to wait for.
                State::Old => std::thread::sleep(STATE_IS_OLD),
            }
            callgrind::begin_counted_round();
            operation().await;
            // Nothing says when the work behind the answer is over.
            std::thread::sleep(SETTLE);
            callgrind::end_counted_round();
        }
    }
    store.close().await;
}
