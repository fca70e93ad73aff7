//! Three gateways behind HAProxy, on one Postgres by way of PgBouncer in transaction mode, with reads from a streaming
//! replica. Each part is killed in turn while clients read and follow. Skipped where HAProxy is not installed.

mod support;

#[path = "scale/clients.rs"]
mod clients;
#[path = "scale/followers.rs"]
mod followers;
#[path = "scale/world.rs"]
mod world;

use std::time::Duration;

use support::clock::judge;
use world::World;

/// How soon another process must sync after the one that did has ended.
const TAKE_OVER: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_part_is_killed_in_turn_under_load() {
    let Some(mut world) = World::start().await else { return };
    world.goes_on("before").await;

    let syncing = world.syncing();
    let ended = std::time::Instant::now();
    world.kill(syncing);
    let successor = world.next_syncing(syncing).await;
    let took_over = ended.elapsed();
    eprintln!("gateway {successor} syncs {took_over:.2?} after gateway {syncing} was killed");
    judge(took_over < TAKE_OVER, format_args!("{took_over:?}"));
    world.goes_on("the syncing gateway is gone").await;
    world.restart(syncing);
    world.goes_on("it is back").await;

    let reading = (0..3).find(|place| ![syncing, successor].contains(place)).unwrap();
    world.kill(reading);
    world.goes_on("a reading gateway is gone").await;
    world.restart(reading);

    world.replica.stop("immediate");
    world.goes_on("the replica is gone").await;
    world.replica.up();
    world.replica_is_used().await;
    world.goes_on("it is back").await;

    // Pauses too: the replica stays behind until it is left out.
    world.replica.sql("SELECT pg_wal_replay_pause()");
    world.goes_on("the replica stands still").await;
    world.replica.sql("SELECT pg_wal_replay_resume()");
    world.replica_is_used().await;

    world.pooler.end();
    world.reads_go_on("PgBouncer is gone").await;
    world.pooler.up().await;
    world.goes_on("it is back").await;

    world.primary.stop("immediate");
    world.reads_go_on("the primary is gone").await;
    world.primary.up();
    world.goes_on("it is back").await;

    world.proxy_restarts().await;
    world.goes_on("HAProxy is back").await;

    world.end().await;
}
