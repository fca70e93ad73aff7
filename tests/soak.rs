//! A week of blocks in an hour: two nodes that mine, one gateway on Postgres that follows them, clients that read all the
//! time; nodes and database are restarted, and nodes that were alone for a while come back with a branch of their own.
//! In the end the store must be what an audit expects, memory flat and no task left over.
//!
//! `SOAK_SECONDS` says for how long, one minute unless it is set; `make soak` takes the hour.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use support::gateway::PATIENCE;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

mod support;

#[path = "soak/follower.rs"]
mod follower;
#[path = "soak/readers.rs"]
mod readers;
#[path = "soak/samples.rs"]
mod samples;
#[path = "soak/world.rs"]
mod world;

use follower::Follower;
use readers::Tally;
use samples::Samples;
use world::World;

/// A request that takes longer counts as hung.
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
    let follower = tokio::spawn(Follower::new(&base).follow(stop.clone()));
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
    world.rest().await;
    let took = start.elapsed();

    stop.cancel();
    let mut tally = Tally::default();
    for reader in readers {
        tally.add(reader.await.unwrap());
    }
    let (followed, samples) = (follower.await.unwrap(), samples.await.unwrap());
    let chain = world.end().await;

    eprintln!(
        "soak: {} s, {} blocks, {} reorganisations told, deepest {}",
        took.as_secs(),
        chain.length,
        followed.reorganisations,
        followed.deepest
    );
    eprintln!("soak: troubles {done:?}");
    eprintln!("soak: {tally}");
    eprintln!("soak: {samples}");
    assert_eq!(followed.tip, chain.tip, "the follower knows the chain as it is");
    assert!(followed.reorganisations > 0, "there was nothing to survive");
    tally.check();
    samples.check();
}
