//! A week of blocks in an hour: two nodes that mine, one gateway on Postgres that follows them, clients that read all
//! the time; nodes and database are restarted, and nodes that were alone for a while come back with a branch of their
//! own. In the end the store must be what an audit expects, memory flat and no task left over.
//!
//! `SOAK_SECONDS` says for how long, one minute unless it is set; `make soak` takes the hour.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

mod support;

#[path = "soak/readers.rs"]
mod readers;
#[path = "soak/samples.rs"]
mod samples;
#[path = "soak/world.rs"]
mod world;

use readers::Tally;
use samples::Samples;
use world::World;

/// A request that takes longer counts as hung, on a machine that does nothing else.
const HUNG: Duration = Duration::from_secs(5);

/// Clients that read.
const READERS: usize = 4;

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(60, |text| text.parse().expect("SOAK_SECONDS: whole seconds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_grows() {
    let length = Duration::from_secs(seconds());
    let mut world = World::start().await;
    let (stop, base) = (CancellationToken::new(), world.gateway.http.clone());
    let readers: Vec<_> =
        (0..READERS).map(|number| tokio::spawn(readers::read(base.clone(), number, stop.clone()))).collect();
    let mut followed = support::follower::follow(&base);
    let samples = tokio::spawn(Samples::take(world.gateway.id(), world.gateway.admin.clone(), stop.clone()));

    let (start, mut done) = (Instant::now(), BTreeMap::<_, u32>::new());
    // At least one of each, however short the run.
    for round in 0.. {
        if start.elapsed() >= length && round >= world::TROUBLES {
            break;
        }
        *done.entry(world.trouble(round).await).or_default() += 1;
        assert!(world.gateway.runs(), "{:?}", world.gateway.log.lock().unwrap());
    }
    let last = world.rest().await;
    // The store has a block before the follower is told of it.
    let told = followed.wait_for(|told| told.tip["hash"] == last.as_str());
    timeout(world::LONG, told).await.expect("the follower is told of the last tip").unwrap();
    let took = start.elapsed();

    stop.cancel();
    let mut tally = Tally::default();
    for reader in readers {
        tally.add(reader.await.unwrap());
    }
    let samples = samples.await.unwrap();
    let chain = world.end().await;

    let told = followed.borrow();
    let (times, deepest) = (told.orphaned.len(), told.orphaned.iter().max().unwrap_or(&0));
    eprintln!(
        "soak: {} s, {} blocks, {times} reorganisations, {deepest} blocks deep at most",
        took.as_secs(),
        chain.length
    );
    eprintln!("soak: troubles {done:?}");
    eprintln!("soak: {tally}");
    eprintln!("soak: {samples}");
    assert_eq!((&told.broken, &told.resets), (&vec![], &vec![]));
    assert_eq!(told.tip, chain.tip, "the follower knows the chain as it is");
    assert!(*deepest >= world::SPELL, "there was not much to survive");
    tally.check();
    samples.check();
}
