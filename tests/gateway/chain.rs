//! The routes under `/chain`: what the chain is for, on the bundled chain and on chains that are reorganised.

use modal_gateway::chain::{Level, MinerBlock};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::gateway::{Backend, TestGateway, TestStore, chain, parent, synthetic, synthetic_block, verifier};

async fn data(gateway: &TestGateway, path: &str) -> Value {
    let reply = gateway.get(path).await;
    assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
    reply.json()["data"].clone()
}

fn indexes(blocks: &Value) -> Vec<u64> {
    blocks.as_array().unwrap().iter().map(|block| block["index"].as_u64().unwrap()).collect()
}

/// A gateway over a chain of `count` blocks whose hashes are plain text.
async fn over(backend: Backend, blocks: Vec<MinerBlock>) -> TestGateway {
    let store = TestStore::create(backend).await;
    store.append(blocks, Level::None).await;
    TestGateway::over(store, &[], |config| config).await
}

/// Replaces the blocks above `keep` by a branch up to `end`.
async fn reorganise(gateway: &TestGateway, keep: u64, end: u64) {
    let store = gateway.store.open().await;
    let mut writer = store.write().await.unwrap();
    let tip = format!("side-{end}");
    writer.rewind(Some(keep), "heavier chain", Some(&tip), 1_700_001_000).await.unwrap();
    let from = keep + 1;
    let branch = (from..=end).map(|index| synthetic_block(index, "side", if index == from { "main" } else { "side" }));
    let branch = branch.map(|block| MinerBlock { nonce: 11 * u128::from(block.index), ..block });
    let verified =
        verifier(Level::None).verify(Some(&parent(keep, &format!("main-{keep}"))), branch.collect()).unwrap();
    writer.append(verified).await.unwrap();
    writer.commit().await.unwrap();
    store.close().await;
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn an_epoch_says_which_validators_follow(#[case] backend: Backend) {
    let gateway = TestGateway::start(backend).await;
    let chain = chain();
    let epoch = data(&gateway, "/chain/epochs/0").await;
    let summary = &epoch["summary"];
    assert_eq!(
        (&summary["first_index"], &summary["last_index"], &summary["blocks"]),
        (&json!(1), &json!(40), &json!(40))
    );
    assert_eq!((&summary["complete"], &summary["final"]), (&json!(true), &json!(false)), "the tip is 60");
    assert_eq!(indexes(&epoch["positions"]), (1..=40).collect::<Vec<_>>());
    let election = &epoch["election"];
    assert_eq!(
        (&election["seed"], &election["provisional"], &election["serves_epoch"]),
        (&json!("1480"), &json!(true), &json!(2))
    );
    assert_eq!(
        election["shuffled"],
        json!([
            35, 14, 18, 40, 19, 24, 4, 17, 26, 1, 8, 22, 28, 13, 29, 3, 20, 36, 34, 10, 39, 21, 27, 15, 37, 5, 12, 30,
            25, 32, 2, 31, 23, 9, 11, 16, 38, 6, 33, 7
        ])
    );
    let validators = election["validators"].as_array().unwrap();
    let stakes: u64 = validators.iter().map(|validator| validator["stake"].as_u64().unwrap()).sum();
    assert_eq!((stakes, &validators[0]["peer"]), (40, &json!(chain[35].nominated_peer_id)));
    assert_eq!(election["alternates"], json!([]));

    let running = data(&gateway, "/chain/epochs/1").await;
    assert_eq!((&running["summary"]["blocks"], &running["summary"]["complete"]), (&json!(20), &json!(false)));
    assert_eq!(running["election"], Value::Null);
    let unknown = gateway.get("/chain/epochs/2").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "block_not_found"));

    let epochs = data(&gateway, "/chain/epochs").await;
    let numbers = |page: &Value| -> Vec<u64> {
        page["epochs"].as_array().unwrap().iter().map(|epoch| epoch["epoch"].as_u64().unwrap()).collect()
    };
    assert_eq!((numbers(&epochs), &epochs["next_before"]), (vec![1, 0], &Value::Null));
    assert_eq!(epochs["epochs"][1], epoch["summary"]);
    let first = data(&gateway, "/chain/epochs?limit=1").await;
    assert_eq!((numbers(&first), &first["next_before"]), (vec![1], &json!(1)));
    assert_eq!(numbers(&data(&gateway, "/chain/epochs?limit=1&before=1").await), [0]);
    assert_eq!(numbers(&data(&gateway, "/chain/epochs?before=0").await), [] as [u64; 0]);
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn the_network_s_figures_are_those_of_its_status_page(#[case] backend: Backend) {
    let gateway = TestGateway::start(backend).await;
    let chain = chain();
    let network = data(&gateway, "/chain/network").await;
    let rate = network["hash_rate"].as_f64().unwrap();
    assert!((rate - 53.58).abs() < 0.005, "{rate}");
    assert_eq!((&network["length"], &network["tip"]["index"]), (&json!(61), &json!(60)));
    assert_eq!(network["tip_time"], json!(chain[60].timestamp));
    assert_eq!(network["difficulty"], json!(chain[60].target_difficulty.to_string()));
    let epoch = &network["epoch"];
    assert_eq!((&epoch["epoch"], &epoch["blocks"], &epoch["of"]), (&json!(1), &json!(20), &json!(40)));
    assert!(epoch["next_difficulty"].is_string() && epoch["seconds_left"].as_f64().unwrap() > 0.0);
    assert_eq!(network["validators"], Value::Null, "nobody serves before epoch 2");

    let ranking = data(&gateway, "/chain/nominees").await;
    assert_eq!((&ranking["from_epoch"], &ranking["to_epoch"], &ranking["blocks"]), (&json!(0), &json!(1), &json!(60)));
    let nominees = ranking["nominees"].as_array().unwrap();
    let counts: Vec<u64> = nominees.iter().map(|nominee| nominee["blocks"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b) && counts.iter().sum::<u64>() == 60, "{counts:?}");
    let last = data(&gateway, "/chain/nominees?epochs=1").await;
    assert_eq!((&last["from_epoch"], &last["blocks"]), (&json!(1), &json!(20)));
}

#[tokio::test]
async fn validators_serve_two_epochs_later() {
    let gateway = over(Backend::Sqlite, synthetic(125)).await;
    let network = data(&gateway, "/chain/network").await;
    let epoch = data(&gateway, "/chain/epochs/1").await;
    assert_eq!((&network["epoch"]["epoch"], &epoch["election"]["serves_epoch"]), (&json!(3), &json!(3)));
    assert_eq!(network["validators"], epoch["election"]["validators"]);
    assert_eq!(epoch["election"]["provisional"], false, "block 80 is 44 below the tip");
    let reply = gateway.get("/chain/epochs/1").await;
    assert_eq!((reply.header("cache-control"), reply.header("x-modal-tip")), (Some("public, max-age=86400"), None));
    assert_eq!(gateway.get("/chain/epochs/2").await.header("cache-control"), Some("private, no-cache"));
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn blocks_come_newest_first_and_pages_stay_put(#[case] backend: Backend) {
    let gateway = over(backend, synthetic(50)).await;
    let first = data(&gateway, "/chain/blocks").await;
    assert_eq!((indexes(&first["blocks"]), &first["next_before"]), ((30..50).rev().collect(), &json!(30)));
    gateway.store.append((50..60).map(|index| synthetic_block(index, "main", "main")).collect(), Level::None).await;
    gateway.wait_for_tip("main-59").await;
    let second = data(&gateway, "/chain/blocks?before=30&anchor=main-49").await;
    assert_eq!(indexes(&second["blocks"]), (10..30).rev().collect::<Vec<_>>());
    let last = data(&gateway, "/chain/blocks?before=10&limit=100").await;
    assert_eq!((indexes(&last["blocks"]), &last["next_before"]), ((0..10).rev().collect(), &Value::Null));
    assert_eq!(data(&gateway, "/chain/blocks?before=0").await["count"], 0);
    assert_eq!(indexes(&data(&gateway, "/chain/blocks?before=10000&limit=1").await["blocks"]), [59]);

    let strings = gateway.get("/chain/blocks?limit=1&numbers=string").await.json();
    assert_eq!(strings["data"]["blocks"][0]["miner_number"], "59");
    for (path, code) in [
        ("/chain/blocks?limit=0", "invalid_parameter"),
        ("/chain/blocks?limit=101", "invalid_parameter"),
        ("/chain/blocks?before=-1", "invalid_parameter"),
        ("/chain/blocks?page=2", "unknown_parameter"),
        ("/chain/blocks?numbers=roman", "invalid_parameter"),
        ("/chain/epochs?limit=21", "invalid_parameter"),
        ("/chain/epochs/first", "invalid_parameter"),
        ("/chain/nominees?epochs=26", "invalid_parameter"),
        ("/chain/network?epochs=2", "unknown_parameter"),
        ("/chain/search", "missing_parameter"),
        ("/chain/orphans?before=x", "invalid_parameter"),
    ] {
        let refused = gateway.get(path).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{path}");
    }
    let tagged = gateway.get("/chain/blocks?before=10").await;
    let tag = tagged.header("etag").unwrap().to_owned();
    assert_eq!(gateway.get_with("/chain/blocks?before=10", "if-none-match", &tag).await.status, 304);
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_reorganisation_shows_everywhere(#[case] backend: Backend) {
    let gateway = over(backend, synthetic(43)).await;
    let before = data(&gateway, "/chain/epochs/0").await;
    assert_eq!(data(&gateway, "/chain/reorganisations").await["reorganisations"], json!([]));
    // From 39 on: the last blocks of epoch 0 change, and so do its validators.
    reorganise(&gateway, 38, 44).await;
    gateway.wait_for_tip("side-44").await;
    let after = data(&gateway, "/chain/epochs/0").await;
    assert_ne!(before["election"], after["election"]);
    assert_eq!((&after["positions"][38]["hash"], &after["election"]["provisional"]), (&json!("side-39"), &json!(true)));

    let orphan = data(&gateway, "/chain/blocks/main-42").await;
    assert_eq!((&orphan["status"], &orphan["block"]["is_orphaned"]), (&json!("orphaned"), &json!(true)));
    assert_eq!((&orphan["final"], &orphan["in_epoch"]), (&json!(false), &json!(1)));
    assert_eq!(orphan["branched_from"], json!({"index": 38, "hash": "main-38"}));
    assert_eq!(
        orphan["siblings"],
        json!([{"index": 42, "hash": "side-42", "status": "canonical", "orphan_reason": null}])
    );
    assert_eq!((&orphan["previous"]["hash"], &orphan["previous"]["status"]), (&json!("main-41"), &json!("orphaned")));
    let fork = data(&gateway, "/chain/blocks/38").await;
    assert_eq!((&fork["status"], &fork["branched_from"]), (&json!("canonical"), &Value::Null));
    let next: Vec<_> = fork["next"].as_array().unwrap().iter().map(|next| (&next["hash"], &next["status"])).collect();
    assert_eq!(next, [(&json!("side-39"), &json!("canonical")), (&json!("main-39"), &json!("orphaned"))]);
    assert_eq!(data(&gateway, "/chain/blocks/0").await["previous"], Value::Null);
    let deep = gateway.get("/chain/blocks/main-0").await;
    assert_eq!(
        (deep.json()["data"]["final"].clone(), deep.header("cache-control")),
        (json!(true), Some("private, no-cache")),
        "its neighbours may change"
    );
    assert_eq!(gateway.get("/chain/blocks/0").await.header("cache-control"), Some("private, no-cache"));
    assert_eq!(gateway.get("/chain/blocks/45").await.code(), "block_not_found");
    assert_eq!(gateway.get("/chain/blocks/never-was").await.code(), "block_not_found");
    assert_eq!(gateway.get("/chain/blocks?anchor=main-42").await.code(), "anchor_not_canonical");

    let seen = &data(&gateway, "/chain/reorganisations").await["reorganisations"][0];
    assert_eq!((&seen["orphaned"], &seen["adopted"], &seen["reason"]), (&json!(4), &json!(6), &json!("heavier chain")));
    assert_eq!(seen["ancestor"], json!({"index": 38, "hash": "main-38"}));
    assert_eq!(seen["new_tip"], json!({"index": 44, "hash": "side-44"}));

    let orphans = data(&gateway, "/chain/orphans?limit=3").await;
    assert_eq!((indexes(&orphans["blocks"]), &orphans["next_before"]), (vec![42, 41, 40], &json!("40:main-40")));
    let rest = data(&gateway, "/chain/orphans?limit=3&before=40:main-40").await;
    assert_eq!((indexes(&rest["blocks"]), &rest["next_before"]), (vec![39], &Value::Null));
    assert_eq!(indexes(&data(&gateway, "/chain/orphans?before=41").await["blocks"]), [40, 39]);
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_search_finds_blocks_epochs_and_nominees(#[case] backend: Backend) {
    let gateway = TestGateway::start(backend).await;
    let chain = chain();
    let found = data(&gateway, "/chain/search?q=1").await;
    assert_eq!((indexes(&found["blocks"]), &found["epoch"]), (vec![1], &json!(1)));
    for text in [&chain[7].hash, &chain[7].hash[..8], &chain[7].hash.to_uppercase()[..20]] {
        let found = data(&gateway, &format!("/chain/search?q={text}")).await;
        assert_eq!((indexes(&found["blocks"]), &found["has_more"]), (vec![7], &json!(false)), "{text}");
    }
    assert_eq!(data(&gateway, &format!("/chain/search?q={}", &chain[7].hash[..7])).await["blocks"], json!([]));
    let nominee = &chain[35].nominated_peer_id;
    assert_eq!(data(&gateway, &format!("/chain/search?q={nominee}")).await["nominee"], json!(nominee));
    for text in ["", "61", "nobody", "%00", "%22"] {
        let found = data(&gateway, &format!("/chain/search?q={text}")).await;
        assert_eq!((&found["blocks"], &found["epoch"], &found["nominee"]), (&json!([]), &Value::Null, &Value::Null));
    }

    let page = data(&gateway, &format!("/chain/nominees/{nominee}?limit=2")).await;
    let expected = chain.iter().filter(|block| block.nominated_peer_id == *nominee).count();
    assert_eq!((page["total"].as_u64().unwrap(), page["blocks"].as_array().unwrap().len()), (expected as u64, 2));
    let next = data(&gateway, &format!("/chain/nominees/{nominee}?limit=100&before={}", page["next_before"])).await;
    assert_eq!(next["blocks"].as_array().unwrap().len(), expected - 2);
    let nobody = data(&gateway, "/chain/nominees/nobody").await;
    assert_eq!((&nobody["total"], &nobody["blocks"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn an_empty_chain_has_views_too() {
    let store = TestStore::create(Backend::Sqlite).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    for path in ["/chain/blocks", "/chain/orphans", "/chain/epochs", "/chain/nominees", "/chain/reorganisations"] {
        let data = data(&gateway, path).await;
        assert_eq!(data["next_before"], Value::Null, "{path}");
    }
    let network = data(&gateway, "/chain/network").await;
    assert_eq!((&network["tip"], &network["hash_rate"], &network["length"]), (&Value::Null, &Value::Null, &json!(0)));
    assert_eq!(gateway.get("/chain/epochs/0").await.status, 404);
    assert_eq!(gateway.get("/chain/blocks/0").await.status, 404);
}
