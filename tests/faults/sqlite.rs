//! A SQLite file that is locked, has no room to grow, is taken away or replaced.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};

use crate::{
    support::disk::SmallDisk,
    world::{Reads, World, alone},
};

const LASTS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_is_locked() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/store.db", folder.path().display());
    let mut world = World::over(&url).await;
    let other = tokio::sync::Mutex::new(SqliteConnection::connect(&url).await.unwrap());
    let run = async |sql: &'static str| _ = sqlx::raw_sql(sql).execute(&mut *other.lock().await).await.unwrap();
    let lock = async || run("PRAGMA busy_timeout = 5000; BEGIN EXCLUSIVE").await;
    world.fault("locked", LASTS, (Reads::GoOn, false), lock, async || run("ROLLBACK").await).await;
    world.end(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_without_room_to_grow() {
    let _alone = alone().await;
    let disk = SmallDisk::mount(6);
    let mut world = World::over(&format!("sqlite://{}/store.db", disk.path().display())).await;
    let (full, room) = (async || disk.fill(), async || disk.clear());
    world.fault("disk full (SQLite)", LASTS, (Reads::GoOn, false), full, room).await;
    let metrics = world.metrics().await;
    let failed = |kind: &str| {
        let name = format!("modal_store_errors_total{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    assert!(failed("full") > 0 && failed("damaged") == 0, "{metrics}");
    world.end(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_is_taken_away_or_replaced() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    // With its log, at once: what belongs together must not be seen apart.
    let (place, aside) = (folder.path().join("store"), folder.path().join("aside"));
    std::fs::create_dir(&place).unwrap();
    let mut world = World::over(&format!("sqlite://{}/store.db", place.display())).await;
    let take = async || std::fs::rename(&place, &aside).unwrap();
    let put_back = async || std::fs::rename(&aside, &place).unwrap();
    world.fault("file taken away", LASTS, (Reads::Fail, false), take, put_back).await;
    let replace = async || {
        std::fs::rename(&place, &aside).unwrap();
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("store.db"), "no database ".repeat(10_000)).unwrap();
    };
    let put_back = async || {
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::rename(&aside, &place).unwrap();
    };
    world.fault("file replaced by garbage", LASTS, (Reads::Refused, false), replace, put_back).await;
    world.end(0).await;
}
