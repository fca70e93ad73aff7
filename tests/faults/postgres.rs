//! A Postgres server that stops, hangs, vanishes, is replaced, has no room for connections or on its disk.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::{
    support::{cluster::Cluster, hole::Hole},
    world::{Reads, World, alone},
};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stops_hangs_or_vanishes() {
    let _alone = alone().await;
    let cluster = Cluster::start();
    let hole = Hole::before(cluster.address).await;
    let mut world = World::over(&cluster.url(hole.address, "postgres")).await;
    for mode in ["fast", "immediate"] {
        let restart = async || {
            cluster.stop(mode);
            cluster.up();
        };
        world.fault(&format!("restarted ({mode})"), SHORT, (Reads::Stumble, true), restart, async || {}).await;
    }
    let name = "stopped";
    world.fault(name, LONG, (Reads::Fail, false), async || cluster.stop("fast"), async || cluster.up()).await;
    let (freeze, thaw) = (async || cluster.signal("STOP"), async || cluster.signal("CONT"));
    world.fault("frozen", LONG, (Reads::Fail, false), freeze, thaw).await;
    world.fault("packets vanish", LONG, (Reads::Fail, false), async || hole.open(), async || hole.close()).await;
    // Done, and nobody says so: whoever does it again finds it there.
    for _ in 0..3 {
        world
            .fault("a commit's answer is lost", SHORT, (Reads::Stumble, true), async || hole.lose_commit(), async || {})
            .await;
    }
    world.end(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_without_room_for_connections() {
    let _alone = alone().await;
    let cluster = Cluster::start();
    cluster.sql("CREATE ROLE limited LOGIN CONNECTION LIMIT 40; GRANT ALL ON SCHEMA public TO limited");
    cluster.sql("ALTER DATABASE postgres OWNER TO limited");
    let url = cluster.url(cluster.address, "postgres").replace("postgres@", "limited@");
    let mut world = World::over(&url).await;
    // Other programs take all there are, as soon as the gateway's own are gone.
    let others = tokio::sync::Mutex::new(Vec::new());
    let take = async || {
        cluster.sql("ALTER ROLE limited CONNECTION LIMIT 0");
        cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'limited'");
        let url = cluster.url(cluster.address, "postgres");
        while let Ok(connection) = PgConnection::connect(&url).await {
            others.lock().await.push(connection);
        }
    };
    let give = async || {
        for connection in others.lock().await.drain(..) {
            connection.close().await.unwrap();
        }
        cluster.sql("ALTER ROLE limited CONNECTION LIMIT 40");
    };
    world.fault("no room for connections", LONG, (Reads::Refused, false), take, give).await;
    world.end(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_whose_disk_is_full() {
    let _alone = alone().await;
    let cluster = Cluster::start();
    let disk = cluster.small_disk(24);
    cluster.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display()));
    cluster.sql("CREATE DATABASE chain TABLESPACE small");
    let mut world = World::over(&cluster.url(cluster.address, "chain")).await;
    let (full, room) = (async || disk.fill(), async || disk.clear());
    world.fault("disk full", LONG, (Reads::GoOn, false), full, room).await;
    world.end(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_replaced_by_its_standby() {
    let _alone = alone().await;
    let primary = Cluster::start();
    let hole = Hole::before(primary.address).await;
    let mut world = World::over(&primary.url(hole.address, "postgres")).await;
    let standby = primary.standby();
    let fail_over = async || {
        // Nothing that was committed is lost in a switch that was planned. A standby that has not replayed it would
        // count as one that lost it.
        standby.streams().await;
        primary.stop("fast");
        standby.replayed().await;
        hole.lead_to(standby.address);
    };
    let name = "led to a standby";
    world.fault(name, LONG, (Reads::Stumble, false), fail_over, async || standby.promote()).await;
    world.end(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_replaced_by_a_standby_which_lags() {
    let _alone = alone().await;
    let primary = Cluster::start();
    let hole = Hole::before(primary.address).await;
    let mut world = World::over(&primary.url(hole.address, "postgres")).await;
    let standby = primary.standby();
    standby.stop_replication().await;
    // These are committed and told, and nobody else has them.
    world.goes_on(10).await;
    let fail_over = async || {
        primary.stop("immediate");
        hole.lead_to(standby.address);
    };
    let name = "led to a standby that lags";
    world.fault(name, LONG, (Reads::Stumble, false), fail_over, async || standby.promote()).await;
    world.end(1).await;
}
