//! An answer without end whose database vanishes in the middle of it.

use std::time::{Duration, Instant};

use modal_gateway::{app::Gateway, chain::Level, config::Config, store, store::OpenOptions};
use tokio_util::sync::CancellationToken;

use crate::support::clock::judge;
use crate::{
    support::{
        cluster::Cluster,
        gateway::{PATIENCE, synthetic, verifier},
        hole::Hole,
    },
    world::alone,
};

/// More than the buffers between here and the database hold.
const LENGTH: u64 = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_truncated_answer_does_not_look_complete() {
    let _alone = alone().await;
    let cluster = Cluster::start();
    let hole = Hole::before(cluster.address).await;
    let url = cluster.url(hole.address, "postgres");
    let store = store::open(&url, &OpenOptions::default()).await.unwrap();
    let mut writer = store.write().await.unwrap();
    writer.append(verifier(Level::None).verify(None, synthetic(LENGTH)).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    store.close().await;

    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        database_url: url.parse().unwrap(),
        http: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        listen: Vec::new(),
        identity: folder.path().join("key"),
        sync: false,
        ..Config::default()
    };
    let gateway = Gateway::start(&config).await.unwrap();
    let base = format!("http://{}", gateway.http);
    let running = CancellationToken::new();
    let stopped = tokio::spawn(gateway.run(running.clone()));
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    for (accept, end) in [("application/json", "}"), ("application/x-ndjson", "\n")] {
        let get = || http.get(format!("{base}/data/miner_block/canonical")).header("accept", accept).send();
        let whole = get().await.unwrap().text().await.unwrap();
        assert!(whole.ends_with(end) && whole.matches("\"previous_hash\"").count() as u64 == LENGTH, "{accept}");

        let mut response = get().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut read = response.chunk().await.unwrap().unwrap().len();
        hole.open();
        let broken = Instant::now();
        let outcome = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => read += bytes.len(),
                outcome => break outcome,
            }
        };
        assert!(outcome.is_err(), "{accept}: it ends as if it were whole after {read} of {} bytes", whole.len());
        assert!(read < whole.len(), "{accept}");
        judge(broken.elapsed() < Duration::from_secs(5), format_args!("{accept}: {:?}", broken.elapsed()));
        hole.close();
        let ready = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while http.get(format!("{base}/health/ready")).send().await.unwrap().status() != 200 {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("it recovers");
    }
    running.cancel();
    stopped.await.unwrap().unwrap();
}
